"""A mail server with moods: real SMTP on a free port, mail into Maildir folders. It logs each answer, and so is the witness.

What a double is, only the side of the receiver can know: it finds the Message-ID in the mailbox, and says "250 OK" once
more. Mail servers have options for that (Cyrus: `duplicatesuppression`; Dovecot: the Sieve extension `duplicate`), and some
large providers do it unasked. Behind a server that does not, a crash at the wrong moment shows as a second copy.
"""

import asyncio
import logging
import threading
from collections.abc import Collection, Generator
from contextlib import contextmanager
from email import message_from_bytes
from hashlib import sha256
from pathlib import Path

from aiosmtpd.smtp import SMTP, Envelope, Session

from examples.effects import write_file


class PostOffice:
    """Decides on recipients and keeps mail.

    Args:
        folder: A Maildir for each address, and the log.
        mailboxes: The addresses that exist; others are refused for good.
        greylists: Defer the first attempt for each address, as many servers do: spammers do not come back.
    """

    def __init__(self, folder: Path, mailboxes: Collection[str], *, greylists: bool = True) -> None:
        self.folder = folder
        self.address = ""
        """Where it listens, as host:port."""
        self._mailboxes = mailboxes
        self._seen: set[str] = set() if greylists else set(mailboxes)

    async def handle_RCPT(  # noqa: N802 - the name is aiosmtpd's
        self, server: SMTP, session: Session, envelope: Envelope, address: str, options: list[str]
    ) -> str:
        """Take a recipient, or not."""
        if address not in self._mailboxes:
            status = "550 5.1.1 no such mailbox"
        elif address not in self._seen:
            self._seen.add(address)
            status = "451 4.7.1 greylisted, come back later"
        else:
            envelope.rcpt_tos.append(address)
            return "250 OK"
        self._log(f"{address} {status}")
        return status

    async def handle_DATA(self, server: SMTP, session: Session, envelope: Envelope) -> str:  # noqa: N802
        """Keep a mail for each recipient who does not have it yet; durable before the server says so."""
        content = envelope.content if isinstance(envelope.content, bytes) else b""
        message = message_from_bytes(content)
        name = sha256(str(message["Message-ID"]).encode()).hexdigest()
        for address in envelope.rcpt_tos:
            box = self.folder / address
            if any(box.glob(f"*/{name}*")):  # a mail reader moves it to `cur` and appends flags
                self._log(f"{address} 250 dropped a double of '{message['Subject']}'")
            else:
                write_file(box / "new" / name, content)
                self._log(f"{address} 250 kept '{message['Subject']}'")
        return "250 OK"

    def _log(self, line: str) -> None:
        with (self.folder / "log").open("a") as log:
            log.write(f"{line}\n")


@contextmanager
def open_post_office(
    folder: Path, mailboxes: Collection[str], *, greylists: bool = True
) -> Generator[PostOffice]:
    """The server, on an event loop in a thread of its own, for as long as the block runs."""
    logging.getLogger("mail.log").setLevel(logging.WARNING)  # aiosmtpd tells each line of each dialogue
    for address in mailboxes:
        for part in ("cur", "new", "tmp"):
            (folder / address / part).mkdir(parents=True, exist_ok=True)
    office = PostOffice(folder, mailboxes, greylists=greylists)
    loop = asyncio.new_event_loop()

    async def opened() -> asyncio.Server:  # the system chooses the port
        return await loop.create_server(lambda: SMTP(office, hostname="post.example"), "127.0.0.1", 0)

    async def closed() -> None:
        server.close()
        lines = asyncio.all_tasks() - {asyncio.current_task()}
        for line in lines:
            line.cancel()
        await asyncio.gather(*lines, return_exceptions=True)

    thread = threading.Thread(target=loop.run_forever, daemon=True)
    thread.start()
    server = asyncio.run_coroutine_threadsafe(opened(), loop).result()
    office.address = "{}:{}".format(*server.sockets[0].getsockname())
    try:
        yield office
    finally:
        asyncio.run_coroutine_threadsafe(closed(), loop).result()
        loop.call_soon_threadsafe(loop.stop)
        thread.join()
        loop.close()

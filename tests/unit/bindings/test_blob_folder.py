"""A folder of blobs: names are data. Nothing outside of it is read, written, listed or deleted, whatever a name says."""

import asyncio
import os
import threading
import time
from collections.abc import Callable, Coroutine
from pathlib import Path
from typing import Any, cast

import pytest

from durably import BlobNotFoundError, BlobOutput, BrokerError, InvalidTextError, JsonConverter
from durably.bindings.blobs.accounts import BlobAccounts
from durably.bindings.blobs.folder import FolderStore
from durably.bindings.blobs.names import check_blob, check_file
from durably.bindings.blobs.store import read
from durably.bindings.outlets import Outlets
from durably.bindings.placeholders import Occasion

UP = [
    "../secret",
    "../../secret",
    "a/../../secret",
    "a/b/../../../secret",
    "..",
    "../",
    "./../secret",
    "a/..",
    "a/.",
]
ABSOLUTE = ["/", "/secret", "//secret", "/etc/passwd", "///", "C:/secret", "c:/x", "Z:/"]
BACKSLASHES = [
    "..\\secret",
    "\\secret",
    "a\\..\\..\\secret",
    "C:\\secret",
    "\\\\host\\share\\x",
    "\\\\?\\C:\\x",
    "a\\b",
    "..\\/secret",
]
EMPTY_PARTS = ["", "a//b", "a/", "/a", "a///", "./a", "a/./b", ".", "./", "a/b/"]
CONTROL = [f"a{chr(code)}b" for code in (*range(32), *range(0x7F, 0xA0))] + ["\0", "secret\0.txt", "a/\0"]
HALVES = ["\ud800", "a\udc80b", "\udfff.txt", "x/\udcff"]
LONG = ["x" * 256, "ü" * 128, "a/" * 600 + "a", "x" * 1025, "a/" + "x" * 300]
DEVICES = [
    *("con", "CON", "con.txt", "Prn", "aux", "AUX.tar.gz", "nul", "NUL.", "a/nul/b", "a/con", "clock$"),
    *(f"{port}{number}" for port in ("com", "LPT") for number in range(10)),
    *("com1.txt", "lpt².txt", "conin$", "CONOUT$", "nul .txt"),
]
ENDINGS = ["a.", "a ", "a./b", "a /b", "...", ". ", "a/. ", "a/.. ", ".. /secret", "..."]
OWN = [".durably-", ".durably-0123456789abcdef", "a/.durably-x"]
NOT_TEXT = [None, 7, b"a", b"../secret", ["a"], Path("a")]
HOSTILE: list[Any] = [
    *UP, *ABSOLUTE, *BACKSLASHES, *EMPTY_PARTS, *CONTROL, *HALVES, *LONG, *DEVICES, *ENDINGS, *OWN, *NOT_TEXT,
]  # fmt: skip

HARMLESS = [
    *("a", "a.txt", "a/b/c", "..a", "..a/b..c", "...a", ".hidden", ".git/config", "~", "~/x", "~root"),
    *("%2e%2e%2fsecret", "..%2fsecret", "%00", "%2Fetc%2Fpasswd", "$HOME", "${HOME}", "$(id)", "`id`", "a;b"),
    *(
        "a|b",
        "a&b",
        "*",
        "?",
        "[a]",
        "{name}",
        "a'b",
        'a"b',
        "-rf",
        "--help",
        "a b",
        " a",
        "file:x",
        "10:00.csv",
    ),
    *(
        "ü/ö",
        "日本語",
        "\ufe52\ufe52\uff0fsecret",
        "\u2025/secret",
        "\u2024\u2024/secret",
        "a\u2044b",
        "\u2215etc",
        "\u202etxt",
    ),
    *("A/a", "a/A", "x" * 255, "/".join(["d" * 200] * 5), "consul", "company", "com10", "null", "auxiliary"),
    *(
        "#",
        "a#b",
        "a?b=c",
        "a+b",
        "a=b",
        "a@b",
        "a,b",
        "a^b",
        "a!b",
        "<a>",
        "a:b",
        "con-fig",
        "%",
        "%zz",
        "a%",
    ),
]

Operation = Callable[[FolderStore, Any], Coroutine[Any, Any, Any]]


async def reads(store: FolderStore, name: Any) -> None:
    await read(store, "docs", name)


async def heads(store: FolderStore, name: Any) -> None:
    await store.head("docs", name)


async def writes(store: FolderStore, name: Any) -> None:
    await store.write("docs", name, b"written")


async def deletes(store: FolderStore, name: Any) -> None:
    await store.delete("docs", name)


@pytest.fixture
def root(tmp_path: Path) -> Path:
    """A folder with the container "docs", and a secret on each floor above."""
    root = tmp_path / "up" / "root"
    (root / "docs" / "a").mkdir(parents=True)
    for folder in (tmp_path, tmp_path / "up", root):
        (folder / "secret").write_text("secret")
    return root


def all_of(folder: Path) -> list[tuple[str, str]]:
    """All files, with what is in them."""
    return sorted((str(path), path.read_text()) for path in folder.rglob("*") if path.is_file())


def test_the_corpus_is_large() -> None:
    assert len(HOSTILE) + len(HARMLESS) >= 200


@pytest.mark.parametrize("operation", [reads, heads, writes, deletes])
def test_names_that_mean_another_place_are_refused(root: Path, tmp_path: Path, operation: Operation) -> None:
    before = all_of(tmp_path)

    async def main() -> None:
        store = FolderStore(root)
        for name in HOSTILE:
            with pytest.raises(InvalidTextError, match="Blob name"):
                await operation(store, name)
            with pytest.raises(InvalidTextError):
                check_file(name)
        for container in ("..", ".", "", "docs/a", "../root", "/", "docs\0", "DOCS", None, "a" * 64):
            for call in (store.head(container, "a"), store.write(container, "a", b"")):  # type: ignore[arg-type]
                with pytest.raises(InvalidTextError, match="Container"):
                    await call
            with pytest.raises(InvalidTextError, match="Container"):
                await anext(store.list(container))  # type: ignore[arg-type]
        for prefix in ("../", "..", "/", "/etc", "\0"):
            assert [page async for page in store.list("docs", prefix)] == []
        await store.close()

    asyncio.run(main())
    assert all_of(tmp_path) == before


def test_outputs_go_nowhere_else(root: Path, tmp_path: Path) -> None:
    """Names that come with a message."""
    before = all_of(tmp_path)
    blobs = BlobAccounts("memory://", {"DURABLY_BLOBS": f"file://{root}"})
    outlets = Outlets(cast("Any", None), cast("Any", None), blobs, JsonConverter())

    async def write(path: str, name: str) -> None:
        opened = outlets.open(BlobOutput(path), "It", Occasion("here", 0, lambda: {"name": name}))
        opened.out.set("written")
        await outlets.write([opened], "here")

    async def main() -> None:
        for name in HOSTILE:
            if isinstance(name, str):
                with pytest.raises(InvalidTextError, match="Blob name"):
                    await write("docs/{name}", name)
        for path in ("docs/../{name}", "docs/a/{name}/../../x", "docs//{name}"):
            with pytest.raises(InvalidTextError, match="Blob name"):
                await write(path, "secret")
        await blobs.close()

    asyncio.run(main())
    assert all_of(tmp_path) == before


def test_all_other_names_are_what_they_say(root: Path, tmp_path: Path) -> None:
    before = all_of(tmp_path)

    async def main() -> None:
        store = FolderStore(root)
        for number, name in enumerate(HARMLESS):
            assert check_blob(name) == name
            container = f"docs-{number}"
            written = await store.write(container, name, name.encode())
            assert await store.head(container, name) == written
            assert await read(store, container, name, version=written.version) == name.encode()
            assert [one async for page in store.list(container) for one in page] == [written]
            assert await store.delete(container, name)
            assert [one async for one in store.list(container)] == []
        await store.close()

    asyncio.run(main())
    assert all_of(tmp_path) == before


def test_what_is_no_file_is_no_blob(root: Path, tmp_path: Path) -> None:
    docs = root / "docs"
    (docs / "link").symlink_to(tmp_path / "secret")
    (docs / "inside").symlink_to(docs / "real")
    (docs / "folder").symlink_to(tmp_path / "up")
    (docs / "loop").symlink_to("loop")
    (root / "others").symlink_to(tmp_path / "up")
    (docs / "real").write_text("real")
    (docs / "con").write_text("a name that is refused")
    (docs / ".durably-0").write_text("on its way")
    os.mkfifo(docs / "pipe")

    async def main() -> None:
        store = FolderStore(root)
        assert [one.name async for page in store.list("docs") for one in page] == ["real"]
        assert [page async for page in store.list("others")] == []
        for name in ("link", "inside", "folder", "folder/secret", "loop", "pipe", "a", "real/x"):
            assert await store.head("docs", name) is None
            assert not await store.delete("docs", name)
            with pytest.raises(BlobNotFoundError):
                await read(store, "docs", name)
        for container, name in (("docs", "folder/x"), ("docs", "real/x"), ("docs", "a"), ("others", "x")):
            with pytest.raises(BrokerError, match="refuses"):
                await store.write(container, name, b"")
        # The link itself is replaced, and what it names is not.
        await store.write("docs", "link", b"mine")
        assert (docs / "link").read_text() == "mine"
        assert (tmp_path / "secret").read_text() == "secret"
        await store.close()

    asyncio.run(main())
    assert not (tmp_path / "up" / "x").exists()


def test_a_folder_that_turns_into_a_link_again_and_again_leads_nowhere(root: Path, tmp_path: Path) -> None:
    """Whoever may write in the folder puts links in the place of folders and files, while others read, write and list."""
    outside = tmp_path / "outside"
    outside.mkdir()
    (outside / "file").write_text("secret")
    docs, stop = root / "docs", threading.Event()
    (docs / "real").mkdir()
    (docs / "real" / "file").write_text("mine")
    (docs / "link").symlink_to(outside)

    def swap() -> None:
        here = docs / "swapped"
        while not stop.is_set():
            for source in ("real", "link"):
                try:
                    (docs / source).rename(here)
                    time.sleep(0.001)  # lets the others have the interpreter
                    here.rename(docs / source)
                except OSError:
                    pass

    async def main() -> int:
        store, seen = FolderStore(root), 0
        for number in range(100):
            try:
                assert await read(store, "docs", "swapped/file") in (b"mine", b"written")
                seen += 1
            except BlobNotFoundError:
                pass
            try:
                await store.write("docs", f"swapped/new{number % 5}", b"written")
            except BrokerError:
                pass
            await store.delete("docs", "swapped/file2")
            async for page in store.list("docs"):
                assert not any(one.size == len("secret") for one in page if one.name.endswith("file"))
        await store.close()
        return seen

    swapping = threading.Thread(target=swap)
    swapping.start()
    try:
        seen = asyncio.run(main())
    finally:
        stop.set()
        swapping.join()
    assert [path.name for path in outside.iterdir()] == ["file"]
    assert (outside / "file").read_text() == "secret"
    print(f"{seen} of 100 reads found the folder in its place")


def test_writes_are_whole_and_leave_nothing_behind(root: Path) -> None:
    old = root / ".durably-old"
    old.write_text("of a process that died")
    os.utime(old, (1, 1))
    (root / ".durably-new").write_text("of a process that is at it")

    async def main() -> None:
        store = FolderStore(root)
        big = os.urandom(1 << 20)
        await asyncio.gather(*(store.write("docs", "big", big) for _ in range(8)))
        assert await read(store, "docs", "big") == big
        assert await read(store, "docs", "big", limit=300_000) == big[:300_000]
        assert await read(store, "docs", "big", limit=0) == b""
        found = await store.head("docs", "big")
        assert found is not None
        pieces = store.stream("docs", "big", version=found.version)
        first = await anext(pieces)
        await store.write("docs", "big", b"small")
        assert first + b"".join([piece async for piece in pieces]) == big  # what was begun is ended
        with pytest.raises(BlobNotFoundError, match="anew"):
            await read(store, "docs", "big", version=found.version)
        await store.close()

    asyncio.run(main())
    assert sorted(path.name for path in root.iterdir()) == [".durably-new", "docs", "secret"]


def test_a_file_that_is_changed_while_it_is_read_is_not_the_version_that_was_asked_for(root: Path) -> None:
    async def main() -> None:
        store = FolderStore(root)
        found = await store.write("docs", "big", b"x" * (1 << 20))
        pieces = store.stream("docs", "big", version=found.version)
        await anext(pieces)
        with (root / "docs" / "big").open("ab") as file:
            file.write(b"more")
        with pytest.raises(BlobNotFoundError, match="anew"):
            async for _ in pieces:
                pass
        await store.close()

    asyncio.run(main())


def test_a_folder_that_is_made_anew_is_seen(root: Path, tmp_path: Path) -> None:
    async def main() -> None:
        store = FolderStore(root)
        await store.write("docs", "old", b"old")
        os.rename(root, tmp_path / "aside")  # noqa: PTH104 - ruff knows the other one blocks
        assert [page async for page in store.list("docs")] == []
        with pytest.raises(BrokerError, match="refuses"):
            await store.head("docs", "old")
        await store.write("docs", "new", b"new")
        assert [one.name async for page in store.list("docs") for one in page] == ["new"]
        await store.close()

    asyncio.run(main())
    assert not (tmp_path / "aside" / "docs" / "new").exists()


def test_pages_go_on_behind_a_name(root: Path) -> None:
    async def main() -> None:
        store = FolderStore(root)
        names = sorted(f"{folder}{number:03}" for folder in ("a/", "b/c/", "", "a-") for number in range(400))
        (root / "docs" / "b" / "c").mkdir(parents=True)
        for name in names:
            (root / "docs" / name).write_bytes(b"")
        pages = [[one.name for one in page] async for page in store.list("docs")]
        assert [len(page) for page in pages] == [1000, 600]
        assert [name for page in pages for name in page] == names
        for after in ("", "a", "a/", "a/399", "b/c", "b/c/200", "zzz"):
            for prefix in ("", "a", "a/1", "b/", "nothing/"):
                found = [one.name async for page in store.list("docs", prefix, after) for one in page]
                assert found == [name for name in names if name > after and name.startswith(prefix)]
        await store.close()

    asyncio.run(main())

"""A report on the files of a folder: one activity call for each file, all at once, and one that gathers the results."""

import hashlib
import mimetypes
import os
import time
from collections import Counter
from dataclasses import dataclass
from pathlib import Path

import msgspec

from durably import App, NonRetryableError, OrchestrationContext, TaskFailedError
from examples.effects import write_file

app = App()

# The built-in table only, so that the report is the same on every machine.
MIME_TYPES = mimetypes.MimeTypes()


@dataclass(frozen=True)
class ReportRequest:
    """Which folder to read, and where to write."""

    folder: str
    report: str


@dataclass(frozen=True)
class FileFacts:
    """What there is to know of one file. `path` is relative to the folder."""

    path: str
    size: int
    sha256: str
    mime: str


@dataclass(frozen=True)
class Listing:
    """The files of a folder, and those that cannot be asked about, with the reason."""

    paths: list[str]
    unreadable: dict[str, str]


@dataclass(frozen=True)
class Question:
    """Which file to look at."""

    folder: str
    path: str


@dataclass(frozen=True)
class Report:
    """The whole folder. `unreadable` holds a reason for each file that could not be read."""

    folder: str
    files: list[FileFacts]
    unreadable: dict[str, str]
    size: int
    mime_types: dict[str, int]
    duplicates: list[list[str]]


# --- activities -------------------------------------------------------------------------------------------------------


@app.activity
def list_files(folder: str) -> Listing:
    """All regular files below a folder, sorted. An activity, because what is there may change between two looks."""
    if not Path(folder).is_dir():
        raise NonRetryableError(f"there is no folder '{folder}'")
    found = [Path(parent, name) for parent, _, names in os.walk(folder) for name in names]
    files = [path.relative_to(folder) for path in found if path.is_file() and not path.is_symlink()]
    names = [os.fsencode(path) for path in sorted(files)]
    # A file name is bytes, what goes into a history is text.
    odd = {repr(name): "its name is no UTF-8" for name in names if not is_text(name)}
    return Listing([name.decode() for name in names if is_text(name)], odd)


def is_text(name: bytes) -> bool:
    """Whether a name can be told in text."""
    try:
        name.decode()
    except UnicodeDecodeError:
        return False
    return True


@app.activity(max_concurrent=16)
def examine(question: Question) -> FileFacts:
    """Read one file. A plain function: it runs in a thread, and hashing lets others run meanwhile."""
    path = Path(question.folder, question.path)
    with path.open("rb") as file:
        digest = hashlib.file_digest(file, "sha256").hexdigest()
        size = file.tell()
    time.sleep(float(os.environ.get("FILE_REPORT_STEP_S", "0")))
    mime, _ = MIME_TYPES.guess_type(path.name)
    return FileFacts(question.path, size, digest, mime or "application/octet-stream")


@dataclass(frozen=True)
class Draft:
    """A report, and the file it belongs into."""

    report: Report
    path: str


@app.activity
def write_report(draft: Draft) -> None:
    """Write the report. The same content at the same place: a second run does no harm."""
    write_file(Path(draft.path), msgspec.json.format(msgspec.json.encode(draft.report), indent=2) + b"\n")


# --- the orchestrator -------------------------------------------------------------------------------------------------


@app.orchestrator
async def report_on_folder(ctx: OrchestrationContext, request: ReportRequest) -> Report:
    """Fan out, fan in."""
    listing = await ctx.call_activity(list_files, request.folder)
    ctx.set_custom_status({"files": len(listing.paths)})

    # A call begins when it is made, not when it is awaited: this line starts all of them.
    calls = {path: ctx.call_activity(examine, Question(request.folder, path)) for path in listing.paths}

    files: list[FileFacts] = []
    unreadable = dict(listing.unreadable)
    for path, call in calls.items():
        # One file that cannot be read must not spoil the report. `ctx.when_all(calls.values())` would be the short
        # form: it raises the first failure, after all calls have ended.
        try:
            files.append(await call)
        except TaskFailedError as error:
            unreadable[path] = error.details.message

    report = summarize(request.folder, files, unreadable)
    await ctx.call_activity(write_report, Draft(report, request.report))
    return report


def summarize(folder: str, files: list[FileFacts], unreadable: dict[str, str]) -> Report:
    """The report of some files: pure arithmetic, which an orchestrator may do itself."""
    paths_of: dict[str, list[str]] = {}
    for file in files:
        paths_of.setdefault(file.sha256, []).append(file.path)
    return Report(
        folder=folder,
        files=files,
        unreadable=unreadable,
        size=sum(file.size for file in files),
        mime_types=dict(Counter(file.mime for file in files).most_common()),
        duplicates=[paths for paths in paths_of.values() if len(paths) > 1],
    )

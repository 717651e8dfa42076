"""Report on a folder as JSON, by default on the folder of the examples themselves."""

import argparse
import hashlib
import os
import sys
from pathlib import Path

from durably import Handle, InstanceAlreadyExistsError
from examples.command import at_least, command, run
from examples.file_report.app import Report, ReportRequest, app, report_on_folder


async def main(folder: Path, arguments: argparse.Namespace) -> bool:
    """Write the report and print it in short."""
    os.environ["FILE_REPORT_STEP_S"] = str(arguments.step)
    target: Path = arguments.report or folder / "report.json"
    request = ReportRequest(str(arguments.folder.resolve()), str(target.resolve()))

    async with app.host(f"sqlite:///{folder / 'hub.db'}") as host:
        instance_id = "report-" + hashlib.sha256(repr(request).encode()).hexdigest()[:12]
        try:
            # The default replaces a report that is done: the files may have changed since.
            handle = await host.client.start(report_on_folder, request, instance_id=instance_id)
        except InstanceAlreadyExistsError:
            handle = host.client.handle(instance_id, Report)  # one that was interrupted goes on
        report = await follow(handle)

    print(f"{len(report.files)} files, {report.size:,} bytes in {report.folder}")
    for mime, number in report.mime_types.items():
        print(f"  {number:4} {mime}")
    largest = sorted(report.files, key=lambda file: file.size, reverse=True)[:3]
    print("largest:", *(f"  {file.size:>9,}  {file.sha256[:12]}…  {file.path}" for file in largest), sep="\n")
    if report.duplicates:
        print("alike:", *(f"  {' = '.join(paths)}" for paths in report.duplicates[:5]), sep="\n")
    if report.unreadable:
        print("unreadable:", *(f"  {path}: {why}" for path, why in report.unreadable.items()), sep="\n")
    print(f"report: {request.report} ({Path(request.report).stat().st_size:,} bytes)")
    return True


async def follow(handle: Handle[Report]) -> Report:
    """The result; until it is there, look at the custom status from time to time, as a dashboard does."""
    shown = None
    while True:
        try:
            return await handle.result(timeout=0.1)
        except TimeoutError:
            status = await handle.status()
            if status and status.custom_status not in (None, shown):
                shown = status.custom_status
                print(f"{shown['files']} files found")


parser = command("file_report", "Fan-out/fan-in: size, SHA-256 and type of each file of a folder, as JSON.")
parser.add_argument(
    "folder", type=Path, nargs="?", default=Path(__file__).parents[1], help="the folder (the examples)"
)
parser.add_argument("--report", type=Path, help="where to write the JSON (report.json in --dir)")
parser.add_argument("--step", type=at_least(0), default=0, help="seconds each file takes at least (0)")

if __name__ == "__main__":
    sys.exit(run(parser, main))

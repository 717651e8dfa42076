"""Each example is run by its one command, on real files and databases; some are killed on the way, and go on."""

import hashlib
import json
import signal
from collections import Counter
from decimal import Decimal
from pathlib import Path

import pytest

from examples.flaky_service.service import open_office
from tests.examples.commands import ROOT, Example, lines_until

pytestmark = pytest.mark.slow_once

EXAMPLES = sorted(path.parent.name for path in (ROOT / "examples").glob("*/__main__.py"))


# --- onboarding -------------------------------------------------------------------------------------------------------


def test_onboarding_makes_users_and_mails_and_refuses_an_address_that_is_taken(tmp_path: Path) -> None:
    out = Example("onboarding", tmp_path).run("--step", "0")

    assert "linus@example.org  refused: the address linus@example.org is taken" in out
    assert_onboarded(Example("onboarding", tmp_path))


@pytest.mark.soak
def test_onboarding_killed_after_effects_that_nobody_had_recorded_does_nothing_twice(tmp_path: Path) -> None:
    onboarding = Example("onboarding", tmp_path)

    # The step has done its work and lingers before it returns: its result is not recorded.
    onboarding.kill_at("ada@example.org    create_user", "--step", "60")
    lines = onboarding.kill_at("ada@example.org    send_welcome", "--step", "0.1")
    assert "  ada@example.org    create_user  (again, after a crash)" in lines
    onboarding.run("--step", "0")

    assert_onboarded(onboarding)
    out = onboarding.run("--step", "60")
    assert "create_user" not in out  # all is done: nothing runs again
    assert_onboarded(onboarding)


def assert_onboarded(onboarding: Example) -> None:
    users = onboarding.query("users.db", "SELECT email, name, state FROM users ORDER BY email")
    assert users == [
        ("ada@example.org", "Ada", "active"),
        ("grace@example.org", "Grace", "active"),
        ("linus@example.org", "Linus", "active"),
    ]
    mails = [mail.read_text().splitlines()[0] for mail in onboarding.folder.glob("spool/*.eml")]
    assert sorted(mails) == ["To: ada@example.org", "To: grace@example.org"]
    ids = onboarding.query("users.db", "SELECT user_id FROM users WHERE user_id > 1")
    homes = [home.name for home in (onboarding.folder / "homes").iterdir()]
    assert sorted(homes) == sorted(str(user_id) for (user_id,) in ids)


# --- file report ------------------------------------------------------------------------------------------------------


def test_file_report_tells_size_hash_and_type_of_each_file_also_after_a_kill(tmp_path: Path) -> None:
    contents = {f"notes/{n:02}.txt": f"note {n}\n".encode() for n in range(20)}
    contents |= {"a.json": b"{}", "b.json": b"{}", "empty": b"", "z-gone.txt": b"not for long"}
    source = tmp_path / "source"
    (source / "notes").mkdir(parents=True)
    for name, content in contents.items():
        (source / name).write_bytes(content)
    example = Example("file_report", tmp_path / "work")

    example.kill_at("24 files found", str(source), "--step", "60")
    (source / "z-gone.txt").unlink()
    (source / "too-late.txt").touch()  # the listing is recorded, and is not made again
    out = example.run(str(source))

    del contents["z-gone.txt"]
    report = json.loads((tmp_path / "work" / "report.json").read_text())
    assert {file["path"]: (file["size"], file["sha256"]) for file in report["files"]} == {
        name: (len(content), hashlib.sha256(content).hexdigest()) for name, content in contents.items()
    }
    assert report["mime_types"] == {"text/plain": 20, "application/json": 2, "application/octet-stream": 1}
    assert report["duplicates"] == [["a.json", "b.json"]]
    assert report["size"] == sum(map(len, contents.values()))
    assert list(report["unreadable"]) == ["z-gone.txt"]
    assert "No such file" in report["unreadable"]["z-gone.txt"]
    assert "alike:\n  a.json = b.json\n" in out

    assert "24 files" in example.run(str(source))  # one that is done is made anew
    assert "too-late.txt" in (tmp_path / "work" / "report.json").read_text()


def test_file_report_of_a_folder_that_is_not_there_ends_with_one_line(tmp_path: Path) -> None:
    error = Example("file_report", tmp_path).run(str(tmp_path / "nowhere"), code=1)
    assert error.count("\n") == 1
    assert f"there is no folder '{tmp_path / 'nowhere'}'" in error


# --- expense approval -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("flag", "times", "row", "recipients"),
    [
        ("approve", ("60", "60"), ("approved", "Mia", None), ["manager", "Ada"]),
        ("reject", ("0", "60"), ("rejected", "Mia", "too much coffee"), ["manager", "manager", "Ada"]),
        (
            "ignore",
            ("0", "0.1"),
            ("escalated", None, "the manager did not answer"),
            ["manager", "manager", "director"],
        ),
    ],
)
def test_expense_approval_ends_as_the_humans_decide(
    tmp_path: Path, flag: str, times: tuple[str, str], row: tuple[str, ...], recipients: list[str]
) -> None:
    example = Example("expense_approval", tmp_path)
    out = example.run(f"--{flag}", "--remind-after", times[0], "--deadline", times[1])

    assert f"to-{flag}: {row[0]}" in out
    assert example.query("expenses.db", "SELECT state, decided_by, comment FROM expenses") == [row]
    mails = example.query("expenses.db", "SELECT recipient FROM mails ORDER BY rowid")
    assert [recipient for (recipient,) in mails] == recipients


def test_expense_approval_takes_the_decision_of_another_process(tmp_path: Path) -> None:
    example = Example("expense_approval", tmp_path)
    decide = Example("expense_approval.decide", tmp_path)

    def manager_has_mail() -> bool:
        return len(example.query("expenses.db", "SELECT 1 FROM mails")) > 0

    # The first decision is made while nobody serves the hub, and waits there; the second comes too late.
    example.kill_when(manager_has_mail, "--ignore", "--remind-after", "60", "--deadline", "60")
    assert "Cy has rejected to-ignore" in decide.run("to-ignore", "--reject", "--by", "Cy")
    example.run("--ignore")
    error = decide.run("to-ignore", "--approve", code=1)

    assert "it is Completed" in error
    assert example.query("expenses.db", "SELECT state, decided_by FROM expenses") == [("rejected", "Cy")]
    assert example.query("expenses.db", "SELECT count(*) FROM mails WHERE recipient = 'manager'") == [(1,)]


def test_expense_approval_takes_a_decision_while_it_waits(tmp_path: Path) -> None:
    example = Example("expense_approval", tmp_path)
    with example.started("--ignore", "--remind-after", "0", "--deadline", "60") as process:
        lines_until("to-ignore: submitted", process)
        Example("expense_approval.decide", tmp_path).run("to-ignore", "--approve")
        lines_until("to-ignore: approved by Bo", process)
        assert process.wait() == 0


# --- flaky service ----------------------------------------------------------------------------------------------------


def test_flaky_service_is_asked_as_often_as_the_policy_says_and_replaced_when_it_never_answers(
    tmp_path: Path,
) -> None:
    out = Example("flaky_service", tmp_path).run()

    log = [line.split()[2:] for line in (tmp_path / "access.log").read_text().splitlines()]
    answers = {path: [status for asked, status in log if asked == path] for path, _ in log}
    assert answers == {
        "/live/CHF": ["200"],
        "/live/EUR": ["503", "503", "200"],
        "/live/GBP": ["503"] * 4,
        "/yesterday/GBP": ["200"],
        "/live/XXX": ["404"],
    }
    assert "EUR: 1.0 (live)\n" in out
    assert "GBP: 0.8731 (yesterday) 503: out of coins, come back later\n" in out
    assert "XXX: - (nowhere) no such currency: XXX\n" in out


# --- monitor ----------------------------------------------------------------------------------------------------------


def test_monitor_tells_each_change_of_a_file_and_ends_on_its_event(tmp_path: Path) -> None:
    out = Example("monitor", tmp_path).run("--every", "0.02")

    alerts = [json.loads(path.read_text()) for path in sorted(tmp_path.glob("alerts/*.json"))]
    assert [alert["holds"] for alert in alerts] == [False, True, False, True]
    assert {alert["target"] for alert in alerts} == {str(tmp_path / "service.txt")}
    assert ", 4 changes; " in out
    assert "this monitor was stopped earlier" in Example("monitor", tmp_path).run()


def test_monitor_of_a_url_goes_on_after_a_kill_until_ctrl_c_raises_the_event(tmp_path: Path) -> None:
    monitor = Example("monitor", tmp_path)
    with open_office(tmp_path / "access.log") as office:
        watch = (f"{office.url}/live/CHF", "--text", "rate", "--every", "0.02")
        monitor.kill_at(": yes", *watch)
        with monitor.started(*watch) as process:
            lines_until(": yes", process)
            process.send_signal(signal.SIGINT)
            lines_until("1 changes; ", process)
            assert process.wait() == 0
        assert (tmp_path / "access.log").read_text().count(" 200\n") >= 2

    assert [path.name for path in (tmp_path / "alerts").iterdir()] == ["0001-holds.json"]


# --- provisioning -----------------------------------------------------------------------------------------------------


@pytest.mark.soak
def test_provisioning_of_1000_devices_killed_in_the_middle_says_which_failed_and_takes_up_those_alone(
    tmp_path: Path,
) -> None:
    provisioning = Example("provisioning", tmp_path)

    def calls() -> Counter[str]:
        return Counter((tmp_path / "gateway.log").read_text().splitlines())

    provisioning.kill_at(" of 1000")
    before = provisioning.query("inventory.db", "SELECT count(*) FROM devices")[0][0]
    assert 0 < before < 994
    out = provisioning.run()

    assert "994 devices are active, 6 failed" in out
    for serial in (120, 370, 620, 870):
        assert f"  device-{serial:05}: does not answer\n" in out
        assert calls()[f"device-{serial:05} -"] >= 4
    for serial in ("device-00399-x", "device-00799-x"):
        assert f"  {serial}: there is no firmware for its model\n" in out
        assert calls()[f"{serial} ok"] == calls()[f"{serial} -"] == 0
    for serial in range(7, 1_000, 50):  # those that sleep
        assert calls()[f"device-{serial:05} -"] >= 2
        assert calls()[f"device-{serial:05} ok"] >= 1

    of_first_runs = calls()
    (tmp_path / "offline.txt").write_text("device-00870\n")  # the others have been repaired
    out = provisioning.run()

    assert "run 2, for the 6 devices that failed in the one before\n3 devices are active, 3 failed" in out
    assert calls() - of_first_runs == {
        "device-00120 ok": 1,
        "device-00370 ok": 1,
        "device-00620 ok": 1,
        "device-00870 -": 4,
    }
    devices = dict(provisioning.query("inventory.db", "SELECT device_id, address FROM devices"))
    addresses = provisioning.query("inventory.db", "SELECT device_id FROM addresses")
    assert len(addresses) == len(set(addresses)) == 1_000
    assert len(devices) == len(set(devices.values())) == 997
    configs = [json.loads(path.read_text()) for path in tmp_path.glob("configs/*.json")]
    addresses_of = {config["device_id"]: config["address"] for config in configs}
    assert addresses_of.pop("device-00870")
    assert addresses_of == devices


# --- CSV import -------------------------------------------------------------------------------------------------------


def test_csv_import_killed_twice_books_each_record_once(tmp_path: Path) -> None:
    csv_import = Example("csv_import", tmp_path)
    size = ("--records", "400", "--page-size", "100", "--max-in-flight", "10")

    # Each booking is done and lingers: ten are in flight, and no eleventh begins.
    def ten_are_booked() -> bool:
        return len(csv_import.query("accounts.db", "SELECT 1 FROM bookings")) >= 10

    csv_import.kill_when(ten_are_booked, *size, "--record-time", "60")
    assert csv_import.query("accounts.db", "SELECT count(*) FROM bookings") == [(10,)]
    csv_import.kill_at(" done", *size, "--record-time", "0.05")
    out = csv_import.run(*size, "--record-time", "0")

    expected: Counter[str] = Counter()
    lines = (tmp_path / "payments.csv").read_text().splitlines()[1:]
    for line in lines:
        account, amount = line.split(",")
        if amount != "n/a":
            expected[account] += int(Decimal(amount) * 100)
    assert dict(csv_import.query("accounts.db", "SELECT account, cents FROM accounts")) == dict(expected)
    assert csv_import.query("accounts.db", "SELECT count(*), count(DISTINCT line) FROM bookings") == [
        (396, 396)
    ]
    assert csv_import.query("accounts.db", "SELECT line FROM rejects") == [(101,), (201,), (301,), (401,)]
    assert "396 records booked, 4 rejected" in out
    found = next(int(line.split()[0]) for line in out.splitlines() if "had been booked by a run" in line)
    assert 10 <= found <= 20  # the ten of the first kill, and what was in flight at the second


def test_csv_import_of_a_file_with_odd_lines_books_the_others(tmp_path: Path) -> None:
    file = tmp_path / "odd.csv"
    file.write_text("account,amount\na,1.50\n\na,-2\nb,inf\nb\nb,1e400\nb,0.005\n")
    csv_import = Example("csv_import", tmp_path / "work")

    assert "3 records booked, 3 rejected" in csv_import.run(str(file), "--page-size", "2")
    assert dict(csv_import.query("accounts.db", "SELECT account, cents FROM accounts")) == {"a": -50, "b": 0}
    assert csv_import.query("accounts.db", "SELECT line FROM rejects") == [(5,), (6,), (7,)]


# --- all of them ------------------------------------------------------------------------------------------------------


def test_each_example_is_in_the_index_with_its_command() -> None:
    index = (ROOT / "examples" / "README.md").read_text()
    for name in EXAMPLES:
        page = (ROOT / "examples" / name / "README.md").read_text()
        assert f"[{name}]({name}/README.md)" in index
        assert f"python -m examples.{name}" in page

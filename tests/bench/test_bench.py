"""The benchmark measures each workload on each hub, and prints lines that can be laid beside those of the peers."""

import json
import shlex
import sys
from pathlib import Path

import pytest

from bench import compare, http, machine, operating
from bench.__main__ import DEFAULT_N, main

pytestmark = pytest.mark.slow_once

ALL = {
    *("peer", "variant", "version", "workload", "n", "c", "rep", "python", "done", "wall_s", "ok"),
    *("cpu_s", "cpu_total_s", "peak_rss_mb", "peak_rss_total_mb", "procs", "calib", "calib_after"),
}
LATENCY = {"p50_ms", "p99_ms", "max_ms"}
CHAIN = {"inst_per_s", "act_per_s", "step_p50_ms", *LATENCY}
KEYS = {
    "W1": CHAIN,
    "W2": {"act_per_s"},
    "W3": CHAIN,
    "W4": LATENCY,
    "W5": {"signals_per_s", "send_s", "keys", *LATENCY},
    "W6": {"lost", "doubled", "start_s", "up_s", "raised_s", "engine_cpu_s", "engine_rss_mb", "inst_per_s"},
    "W8": {"waiting_rss_mb", "raise_to_done_s", "lost", "doubled", "up_s"},
    "QUERY": {"first_page_ms", "first_page_max_ms"},
    "QUEUE": {"messages_per_s", "send_s", *LATENCY},
    "PURGE": {"purged_per_s", "act_per_s_before", "act_per_s_meanwhile", "lost_share"},
    "W7": {"ms_per_step", "act_per_s", "step_p50_ms", "first_step_p50_ms", "last_step_p50_ms"},
    "CPU": {"us_per_step", "us_per_instance"},
    "KIT": {"inst_per_s", *LATENCY},
    "BARE": {"ms_per_step", "row_bytes", *LATENCY},
}
MEASURED = [
    (workload, hub)
    for workload in DEFAULT_N
    for hub in ("memory", "sqlite")
    if (workload, hub) not in {("W6", "memory"), ("W8", "memory")}
]


@pytest.fixture(autouse=True)
def no_calibration(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(machine, "SPINS", 100)
    monkeypatch.setattr(machine, "SYNCS", 1)
    monkeypatch.setattr(operating, "_MEASURED_S", 0.05)
    monkeypatch.setattr(operating, "_SETTLED_S", 0.05)


@pytest.mark.parametrize(("workload", "hub"), MEASURED)
def test_each_workload_prints_a_line_per_repetition(
    workload: str, hub: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    command = f"--workload {workload} --hub {hub} --n 6 --c 2 --reps 2 --json --no-warmup --max-fsync-ms 9999"
    assert main([*command.split(), "--dir", str(tmp_path)]) == 0

    lines = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
    assert [(line["workload"], line["variant"], line["rep"]) for line in lines] == [
        (workload, hub, 0),
        (workload, hub, 1),
    ]
    for line in lines:
        assert line["ok"], line
        assert ALL | KEYS[workload] <= line.keys()
        assert line["done"] == {"W2": 1, "W7": 1, "CPU": 12}.get(workload, 6)
        assert (line.get("lost", 0), line.get("doubled", 0)) == (0, 0)
    assert list(tmp_path.iterdir()) == []


def test_recovery_needs_a_hub_that_outlives_its_process(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        main(["--workload", "W6", "--hub", "memory"])
    assert "--hub sqlite" in capsys.readouterr().err


def test_a_comparison_becomes_a_table_with_ratios(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    def line(engine: str, rate: float, **more: object) -> str:
        figures = {"ok": True, "act_per_s": rate, "n": 9, "done": 9, "version": "1.2", "cpu_total_s": 0.5}
        return json.dumps(
            {"contender": engine, "case": "W1:9:100", "turn": 0, "workload": "W1", **figures, **more}
        )

    lines = [line("durably sqlite", 4000), line("durably sqlite", 2000), line("durably sqlite", 3000)]
    lines += [line("peer", 100), line("peer", 0, ok=False, error="out of luck"), line("yardstick", 6000)]
    source = tmp_path / "lines.jsonl"
    source.write_text("\n".join(lines))

    assert compare.main(["--from", str(source)]) == 0
    text = capsys.readouterr().out
    assert "| durably sqlite | 9 × 3 | 3,000 (2,000–4,000) |" in text
    assert "| peer (1.2) | 9 × 1 | 100 | – | – | – | 30 times as fast | 0.50 | – |" in text
    assert "activities/s ÷ those of the yardstick: 0.50" in text
    assert "peer, turn 0: out of luck" in text


def test_peers_are_commands_that_print_lines(tmp_path: Path) -> None:
    program = "import json, sys; print('noise'); print(json.dumps({'ok': True, 'n': int(sys.argv[1])})); sys.exit(3)"
    command = f"{shlex.quote(sys.executable)} -c {shlex.quote(program)} {{n}}"
    contender = compare.Contender.parse("peer@W1:5=" + command)
    cases = [compare.Case.parse(text) for text in ("W1:5:1:2", "W2:5:1")]
    kept = tmp_path / "kept.jsonl"

    records = compare.compare([contender], cases, rounds=1, reps=1, limit_s=30, directory=None, keep=kept)

    mark = {"contender": "peer", "case": "W1:5:1", "turn": 0}
    assert records == [{**mark, "ok": True, "n": 2}, {**mark, "problem": "exit 3"}]
    assert [json.loads(text) for text in kept.read_text().splitlines()] == records


def test_counters_are_compared_over_as_many_keys_as_the_case_says(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    program = "import json, sys; print(json.dumps({'ok': True, 'n': 6, 'signals_per_s': float(sys.argv[1])}))"
    command = f"{shlex.quote(sys.executable)} -c {shlex.quote(program)} {{keys}}"
    contender = compare.Contender.parse("durably@W5@3=" + command)
    cases = [compare.Case.parse(text) for text in ("W5@3:6:2", "W5@4:6:2")]
    kept = tmp_path / "kept.jsonl"

    compare.compare([contender], cases, rounds=1, reps=1, limit_s=30, directory=None, keep=kept)

    assert compare.main(["--from", str(kept)]) == 0
    text = capsys.readouterr().out
    assert "### W5: one-way signals to counter entities over 3 keys, n = 6, 2 in flight" in text
    assert "| durably | 6 × 1 | 3 |" in text
    assert "over 4 keys" not in text


def test_the_load_of_http_needs_its_program(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("PATH", "")
    assert http.main([]) == 1
    assert "wrk is missing" in capsys.readouterr().err


def test_a_load_of_http_becomes_figures(tmp_path: Path) -> None:
    wrk = (
        tmp_path / "wrk"
    )  # not everybody who runs tests has it: one that asks once, and says what it would say
    wrk.write_text(
        f"#!{sys.executable}\n"
        "import re, sys, urllib.request\n"
        "script = open(sys.argv[sys.argv.index('-s') + 1]).read()\n"
        'body = re.search(r"\\[==\\[(.*)\\]==\\]", script)[1].encode() or None\n'
        'head = {"x-functions-key": re.search(r\'-key"\\], .* = "([^"]+)"\', script)[1]}\n'
        "print(urllib.request.urlopen(urllib.request.Request(sys.argv[-1], body, head)).status)\n"
        'print(\'{"done": 2, "wall_us": 1000, "p50_us": 10, "p99_us": 1500, "max_us": 2000, "refused": 0, "lost": 1}\')\n'
    )
    wrk.chmod(0o755)
    with http.hosted(tmp_path, "asyncio") as target:
        for load in (http.START, http.STATUS):
            line = http.measure(str(wrk), target, load, 1, 1)
            assert (line["ok"], line["wrong"], line["req_per_s"], line["p99_ms"]) == (False, 1, 2000, 1.5)

"""Wrong arguments of ``durably exec`` are found before anything is started."""

import re
import sys

import pytest

from tests.integration.cli.programs import Folder, Run


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (
            ("shop.py", "step"),
            "no orchestrator 'step' in shop.py: did you mean 'steps'? Registered are: buy, steps, wait",
        ),
        (("shop.py", "zzz"), "no orchestrator 'zzz' in shop.py: registered are: buy, steps, wait"),
        (("shop.py:shop", "steps"), "'shop.py' has no attribute 'shop': its apps are: shop.py:app"),
        (("ship.py", "steps"), "does not exist: expected a Python file; did you mean shop.py?"),
        (("shop.py", "steps", "-i", "Ada"), """for text, quote it twice: --input '"Ada"'"""),
        (("shop.py", "steps", "-i", "NaN"), "NaN is not a JSON value"),
        (("shop.py", "steps", "-i", "@no.json"), "file 'no.json' cannot be read: "),
        (("shop.py", "steps", "-i", '{"a": 1}'), "it does not fit the input of 'steps': "),
        (("shop.py", "buy", "-i", '{"sku": 7}'), "it does not fit the input of 'buy': "),
        (("shop.py", "wait", "-i", "1"), "'wait' takes no input; leave it out"),
        (("shop.py", "wait", "--hub", "mysql://x"), "unknown scheme 'mysql'"),
        (("shop.py", "wait", "--hub", "memory://", "--id", "a/b"), "Instance id 'a/b' holds '/'"),
        (("shop.py", "wait", "--timeout", "0"), "0.0 is not in the range"),
        (
            ("shop.py", "wait", "--timeout", "nan"),
            "nan is not a number of seconds; leave it out to wait for ever",
        ),
        (
            ("shop.py", "wait", "--timeout", "inf"),
            "inf is not a number of seconds; leave it out to wait for ever",
        ),
        (
            ("shop.py", "wait", "--id", ""),
            "Instance id '' is not usable: expected a string that is not empty",
        ),
        (("shop.py", "steps"), "'steps' needs an input: "),
        (("shop.py", "steps", "-i", "null"), "'steps' needs an input: "),
        (("shop.py",), "Missing argument 'ORCHESTRATOR'"),
    ],
)
def test_wrong_arguments(folder: Folder, run: Run, arguments: tuple[str, ...], words: str):
    done = run("exec", *arguments)
    assert (done.code, done.out) == (2, "")
    assert words in " ".join(done.err.split())
    assert "Traceback" not in done.err
    assert not (folder.path / "durably.db").exists()


def test_an_option_of_the_engine_that_makes_no_sense(run: Run, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv("DURABLY_MAX_CONCURRENT_ACTIVITIES", "many")
    done = run("exec", "shop.py", "wait", "--hub", "memory://")
    assert done.code == 2
    assert "Environment variable DURABLY_MAX_CONCURRENT_ACTIVITIES is 'many': expected int" in done.err


@pytest.mark.parametrize("source", ["-", "@input.json"])
def test_the_input_may_come_from_a_file_or_stdin(
    folder: Folder, run: Run, source: str, monkeypatch: pytest.MonkeyPatch
):
    folder.write("input.json", '["a", "ö"]')
    with (folder.path / "input.json").open(encoding="utf-8") as stdin:
        monkeypatch.setattr(sys, "stdin", stdin)
        done = run("exec", "shop", "steps", "-q", "-i", source, "--hub", "memory://")
    assert (done.code, done.out) == (0, '[\n  "A",\n  "Ö"\n]\n')


def test_an_input_that_is_needed_may_be_left_out_for_an_instance_that_is_there(run: Run):
    missing = run("exec", "shop.py", "steps", "--id", "s1")
    assert (missing.code, missing.out) == (2, "")
    assert "'steps' needs an input: " in missing.err
    assert run("exec", "shop.py", "steps", "--id", "s1", "-i", '["a"]').code == 0
    assert run("exec", "shop.py", "steps", "--id", "s1").out == '[\n  "A"\n]\n'
    replaced = run("exec", "shop.py", "steps", "--id", "s1", "--on-existing", "replace")
    assert (replaced.code, replaced.out) == (2, "")


def test_the_id_may_be_left_out(run: Run):
    done = run("exec", "shop.py", "steps", "-i", "[]", "--hub", "memory://")
    assert (done.code, done.out) == (0, "[]\n")
    assert any(re.fullmatch(r"[0-9a-f]{12}", word) for word in done.err.split())

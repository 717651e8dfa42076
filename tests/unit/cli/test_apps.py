"""APP on the command line -> the App."""

import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from durably import App, RegistrationError
from durably.cli.apps import AppError, load_app, load_apps

ORDERS = """
from durably import App
app = App()
billing = App()
number = 7
@app.activity
def charge(n: int) -> int: return n
"""


@pytest.fixture(autouse=True)
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    modules, path = dict(sys.modules), list(sys.path)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", [entry for entry in sys.path if entry])
    monkeypatch.setattr(sys, "dont_write_bytecode", True)
    write(tmp_path / "orders_app.py", ORDERS)
    yield tmp_path
    sys.path[:] = path
    for name in set(sys.modules) - set(modules):
        del sys.modules[name]


def write(path: Path, text: str) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text, encoding="utf-8")


def refused(text: str) -> AppError:
    with pytest.raises(AppError) as caught:
        load_app(text)
    assert caught.value.exit_code == 2
    return caught.value


@pytest.mark.parametrize("text", ["orders_app.py", "./orders_app.py", "orders_app", "orders_app:app"])
def test_a_file_or_a_module_with_app_by_default(text: str):
    assert load_app(text).registry.names("activity") == ["charge"]


def test_a_file_anywhere_with_its_neighbours(folder: Path):
    write(folder / "elsewhere" / "neighbour.py", "answer = 42\n")
    write(
        folder / "elsewhere" / "main.py",
        "import neighbour\nfrom durably import App\nclass shop: app = App()\n",
    )
    assert isinstance(load_app(f"{folder}/elsewhere/main.py:shop.app"), App)


def test_a_file_of_a_package_is_imported_as_a_part_of_it(folder: Path):
    write(folder / "shop" / "__init__.py", "")
    write(folder / "shop" / "rates.py", "vat = 20\n")
    write(folder / "shop" / "main.py", "from durably import App\nfrom .rates import vat\napp = App()\n")
    assert load_app("shop/main.py") is load_app("shop.main")


def test_two_files_of_one_name_and_one_named_like_a_library(folder: Path):
    for place in ("a", "b"):
        write(folder / place / "app_.py", f"from durably import App\napp = App()\nplace = {place!r}\n")
    assert load_app("a/app_.py") is not load_app("b/app_.py")
    assert load_app("a/app_.py") is load_app("a/app_.py:app")
    write(folder / "wave.py", ORDERS)
    load_app("wave.py")
    assert "wave_of_user" in sys.modules


def test_several_apps_become_one(folder: Path):
    write(folder / "more.py", ORDERS.replace("charge", "refund"))
    assert load_apps(["orders_app.py", "more.py"]).registry.names("activity") == ["charge", "refund"]
    write(folder / "again.py", ORDERS)
    with pytest.raises(RegistrationError, match="charge"):
        load_apps(["orders_app.py", "again.py"])


def test_apps_with_different_converters_do_not_fit(folder: Path):
    write(
        folder / "other.py",
        "from durably import App, JsonConverter\nclass Mine(JsonConverter): pass\napp = App(converter=Mine())\n",
    )
    with pytest.raises(AppError, match=r"different converters \(JsonConverter, Mine\)"):
        load_apps(["orders_app.py", "other.py"])


def test_apps_share_one_http_policy(folder: Path):
    policy = "from durably import App, HttpPolicy\napp = App(http=HttpPolicy(ports=({},)))\n"
    write(folder / "first.py", policy.format(443))
    write(folder / "same.py", policy.format(443))
    write(folder / "none.py", "from durably import App\napp = App()\n")
    write(folder / "other.py", policy.format(444))
    together = load_apps(["none.py", "first.py", "same.py"])
    assert together.http is not None
    assert together.http.ports == (443,)
    with pytest.raises(AppError, match="different HTTP policies"):
        load_apps(["first.py", "none.py", "other.py"])


def test_a_file_that_is_not_there_with_what_may_be_meant(folder: Path):
    assert refused("order_app.py").message == (
        "App file 'order_app.py' does not exist: expected a Python file; did you mean orders_app.py?"
    )
    assert "does not exist: expected a Python file" in refused("no/where.py").message
    assert "is a folder" in refused(f"{folder}/").message


def test_a_module_that_is_not_there():
    message = refused("nowhere.to.be.found").message
    assert message.startswith("Module 'nowhere' is not installed and not in ")


@pytest.mark.parametrize("text", ["orders_app:", "orders_app.py:a b", ":app", "not-a-module"])
def test_what_is_neither_a_file_nor_a_module(text: str):
    assert "expected module:attribute or path/to/file.py:attribute" in refused(text).message


def test_a_missing_attribute_with_the_apps_there_are():
    assert refused("orders_app.py:shop").message == (
        "'orders_app.py' has no attribute 'shop': its apps are: orders_app.py:app, orders_app.py:billing"
    )


def test_an_attribute_that_is_no_app(folder: Path):
    assert "'number' in 'orders_app' is a int, not a durably.App" in refused("orders_app:number").message
    write(folder / "empty.py", "app = 1\n")
    assert "it has no App at all; expected app = App() at its top level" in refused("empty.py").message


def test_a_failed_import_shows_the_frames_of_the_user_only(folder: Path):
    write(folder / "inner.py", "def go():\n    return {}['key']\n")
    write(
        folder / "broken.py",
        "from inner import go\n\ntry:\n    go()\nexcept KeyError as e:\n    raise OSError('no') from e\n",
    )
    for text in ("broken.py", "broken"):
        error = refused(text)
        assert error.message == f"'{text}' could not be imported: OSError: no"
        assert [line.strip() for line in error.trace.splitlines() if line.lstrip().startswith("File ")] == [
            f'File "{folder}/broken.py", line 4, in <module>',
            f'File "{folder}/inner.py", line 2, in go',
            f'File "{folder}/broken.py", line 6, in <module>',
        ]


def test_a_failed_import_leaves_nothing_behind(folder: Path):
    write(folder / "broken.py", "1 / 0\n")
    refused("broken.py")
    assert "broken" not in sys.modules
    write(folder / "broken.py", ORDERS)
    load_app("broken.py")


def test_a_module_that_the_app_lacks(folder: Path):
    write(folder / "lacking.py", "import not_there\n")
    for text in ("lacking.py", "lacking"):
        error = refused(text)
        assert (
            error.message
            == f"'{text}' could not be imported: ModuleNotFoundError: No module named 'not_there'"
        )
        assert "line 1" in error.trace


def test_a_mistake_in_the_syntax_or_in_a_decorator(folder: Path):
    write(folder / "wrong.py", "def (:\n")
    assert "could not be imported: SyntaxError" in refused("wrong.py").message
    write(
        folder / "wrong2.py",
        "from durably import App\napp = App()\n@app.activity\nasync def f():\n    yield 1\n",
    )
    error = refused("wrong2.py")
    assert "RegistrationError: Function 'f' is an async generator" in error.message
    assert error.trace.count("File ") == 1


def test_a_script_that_ends_the_program(folder: Path):
    write(folder / "script.py", "import sys\nsys.exit(3)\n")
    assert "'script.py' ended the program (exit 3) while it was imported" in refused("script.py").message

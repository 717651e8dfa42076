import importlib
from importlib import metadata, resources


def test_the_package_imports_and_is_the_installed_one() -> None:
    assert importlib.import_module("durably").__name__ == metadata.metadata("durably")["Name"]


def test_the_package_ships_its_types() -> None:
    assert resources.files("durably").joinpath("py.typed").is_file()

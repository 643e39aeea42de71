"""ARCHITECTURE.md, README.md and the import contracts speak of what exists."""

from __future__ import annotations

import re
import tomllib
from importlib import import_module
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from coordinator.cli import app as coordinator_app
from site_node.cli import app as site_app

if TYPE_CHECKING:
    import typer

ROOT = Path(__file__).parents[1]
PAGE = (ROOT / "ARCHITECTURE.md").read_text()
PACKAGES = ("consent", "models", "site_node", "coordinator")
PAGES = (*ROOT.glob("*.md"), *(ROOT / "docs").glob("*.md"))
COMMAND = r"`(filmroom-(?:site|coordinator))((?: [a-z][a-z-]*)+)"
MAKE = r"(?:^|`)make ([a-z-]+)"
INVARIANTS = range(1, 8)


def _rows() -> dict[int, tuple[list[str], list[str]]]:
    """Return modules and tests of each invariant, as the table names them."""
    rows = re.findall(r"^\| (\d) \| [^|]+ \| ([^|]+) \| ([^|]+) \|$", PAGE, re.MULTILINE)
    return {int(number): (re.findall("`(.+?)`", left), re.findall("`(.+?)`", right)) for number, left, right in rows}


@pytest.mark.parametrize("number", INVARIANTS)
def test_an_invariant_names_a_module_and_a_test_that_exist(number: int) -> None:
    modules, tests = _rows()[number]

    assert modules
    assert tests
    assert [path for path in (*modules, *tests) if not (ROOT / path).exists()] == []
    assert [path for path in tests if "\ndef test_" not in (ROOT / path).read_text()] == []


def test_every_step_of_a_round_names_a_function_that_exists() -> None:
    steps = PAGE.partition("## One round\n")[2].partition("\n## ")[0]
    names = re.findall(r"`((?:consent|models|site_node|coordinator)\.[\w.]+)`", steps)

    assert len(re.findall(r"^\d\. ", steps, re.MULTILINE)) == 7
    assert [name for name in names if not _exists(name)] == []


def test_the_import_contracts_cover_every_package_and_every_module() -> None:
    contracts = tomllib.loads((ROOT / "pyproject.toml").read_text())["tool"]["importlinter"]["contracts"]
    layers = {name: c for c in contracts for name in c.get("containers", ())}

    assert set(PACKAGES) <= layers.keys()
    assert all(contract["exhaustive"] for contract in layers.values())


def test_every_command_that_the_pages_name_exists() -> None:
    verbs = {"filmroom-site": _verbs(site_app), "filmroom-coordinator": _verbs(coordinator_app)}
    found = [words for page in PAGES for words in re.findall(COMMAND, page.read_text())]

    assert {program for program, _ in found} == set(verbs)
    assert [" ".join(words) for words in found if words[1].strip() not in verbs[words[0]]] == []


def test_every_make_target_that_the_pages_name_exists() -> None:
    targets = set(re.findall(r"^([a-z-]+):", (ROOT / "Makefile").read_text(), re.MULTILINE))
    named = {target for page in PAGES for target in re.findall(MAKE, page.read_text(), re.MULTILINE)}

    assert {"demo", "test"} <= named <= targets


def _exists(dotted: str) -> bool:
    """Return whether `dotted` is a module, or a name within one."""
    parts = dotted.split(".")
    for length in range(len(parts), 0, -1):
        try:
            found: object = import_module(".".join(parts[:length]))
        except ModuleNotFoundError:
            continue
        for part in parts[length:]:
            if not hasattr(found, part):
                return False
            found = getattr(found, part)
        return True
    return False


def _verbs(app: typer.Typer, before: str = "") -> set[str]:
    """Return the commands of a command line as a person types them."""
    groups = {f"{before}{group.name}": group.typer_instance for group in app.registered_groups}
    own = {
        f"{before}{command.name or command.callback.__name__.replace('_', '-')}"
        for command in app.registered_commands
        if command.callback is not None
    }
    nested = (_verbs(group, f"{name} ") for name, group in groups.items() if group is not None)
    return own.union(*nested)

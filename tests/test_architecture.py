"""ARCHITECTURE.md, README.md and the import contracts speak of what exists."""

from __future__ import annotations

import ast
import re
import tomllib
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
    sections = re.findall(r"^## One (?:.|\n)+?(?=^## )", PAGE, re.MULTILINE)
    names = re.findall(r"`((?:consent|models|site_node|coordinator)\.[\w.]+)`", "".join(sections))

    assert len(re.findall(r"^\d\. ", sections[0], re.MULTILINE)) == 7
    assert [name for name in names if not _exists(name)] == []


def test_nothing_is_pinned_that_every_process_would_load() -> None:
    pinned = set(re.findall(r"^([\w-]+)==", (ROOT / "requirements.lock").read_text(), re.MULTILINE))

    # securesystemslib loads, where they are installed, the libraries of all signers that it knows.
    assert {"securesystemslib", "botocore"} <= pinned
    assert not pinned & {"boto3", "azure-identity", "google-cloud-kms", "hvac", "keylet", "sigstore"}


def test_the_import_contracts_cover_every_package_and_every_module() -> None:
    contracts = tomllib.loads((ROOT / "pyproject.toml").read_text())["tool"]["importlinter"]["contracts"]
    layers = {name: c for c in contracts for name in c.get("containers", ())}

    assert set(PACKAGES) <= set(layers)
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
    """Return whether `dotted` is a module, or a name within one; read, since to import them all takes long."""
    parts = dotted.split(".")
    for length in range(len(parts), 0, -1):
        place = ROOT.joinpath(*parts[:length])
        for path in (place.with_suffix(".py"), place / "__init__.py"):
            if path.exists():
                return _holds(ast.parse(path.read_text()).body, parts[length:])
    return False


def _holds(body: list[ast.stmt], names: list[str]) -> bool:
    if not names:
        return True
    for statement in body:
        if names[0] in _made_by(statement):
            return _holds(statement.body if isinstance(statement, ast.ClassDef) else [], names[1:])
    return False


def _made_by(statement: ast.stmt) -> set[str]:
    """Return the names that a statement of a module or a class gives to something."""
    match statement:
        case ast.FunctionDef(name=name) | ast.AsyncFunctionDef(name=name) | ast.ClassDef(name=name):
            return {name}
        case ast.Assign(targets=targets):
            return {target.id for target in targets if isinstance(target, ast.Name)}
        case ast.AnnAssign(target=ast.Name(id=name)):
            return {name}
        case ast.ImportFrom(names=aliases):
            return {alias.asname or alias.name for alias in aliases}
    return set()


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

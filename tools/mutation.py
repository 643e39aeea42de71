"""Changes the decision modules in small ways, one at a time, and shows which changes no test notices.

    python -m tools.mutation [MODULE ...]        (make mutants; takes minutes)

A mutant is one changed expression: a comparison, a connective, a negation, a constant, an outcome, a
branch, a quantifier. It is killed when a test fails, breaks or runs into the time limit. A survivor has
to be explained in docs/consent.md by its own words, as this program prints them; one that is not
explained there makes the exit code 1. Tests run in a forked process: first the rows of the tables, called
as they stand, then pytest with the properties; what mutates is never written to disk.
"""

from __future__ import annotations

import ast
import contextlib
import copy
import importlib
import importlib.abc
import importlib.util
import os
import re
import signal
import sys
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence
    from importlib.machinery import ModuleSpec
    from types import ModuleType

ROOT: Final = Path(__file__).parents[1]
EXPLAINED: Final = ROOT / "docs" / "consent.md"
MODULES: Final = (
    "consent.decision",
    "consent.rules",
    "consent.broad",
    "consent.basis",
    "consent.record",
    "consent.purpose",
)
TABLES: Final = (
    "test_decision_table.py",
    "test_broad.py",
    "test_pcf.py",
    "test_basis.py",
    "test_record.py",
    "test_purpose.py",
)
PROPERTIES: Final = (
    "test_decision_properties.py",
    "test_alike.py",
    "test_fhir.py",
    "test_basis.py",
    "test_purpose.py",
)
LIMIT_S: Final = 240

_COMPARISONS: Final[dict[type[ast.cmpop], type[ast.cmpop]]] = {
    ast.Lt: ast.LtE,
    ast.LtE: ast.Lt,
    ast.Gt: ast.GtE,
    ast.GtE: ast.Gt,
    ast.Eq: ast.NotEq,
    ast.NotEq: ast.Eq,
    ast.Is: ast.IsNot,
    ast.IsNot: ast.Is,
    ast.In: ast.NotIn,
    ast.NotIn: ast.In,
}
_ATTRIBUTES: Final = {
    "PERMIT": "DENY",
    "DENY": "PERMIT",
    "NO_CONSENT": "PERMIT",
    "REVIEW": "NO_CONSENT",
    "YES": "NO",
    "NO": "YES",
    "UNKNOWN": "YES",
    "issubset": "isdisjoint",
    "issuperset": "isdisjoint",
}
_NAMES: Final = {"any": "all", "all": "any", "min": "max", "max": "min"}
_CODE: Final = re.compile(r"[A-Za-z0-9.-]{1,24}")


@dataclass(frozen=True, slots=True)
class Mutant:
    """One change of a module: where, what, and the module as a whole after it."""

    module: str
    place: str
    before: str
    after: str
    source: str

    @property
    def words(self) -> str:
        """Name the change, whatever line it stands on."""
        return f"`{self.module}` `{self.place}`: `{self.before}` -> `{self.after}`"


def mutants(module: str, source: str) -> Iterator[Mutant]:
    """Yield every mutant of `source`; annotations, docstrings and messages are left alone."""
    tree = ast.parse(source)
    for index, (place, node) in enumerate(_places(tree)):
        for changed in _changes(node):
            whole = copy.deepcopy(tree)
            _, target = list(_places(whole))[index]
            before = _short(target)
            target.__class__ = changed.__class__
            target.__dict__.clear()
            target.__dict__.update(changed.__dict__)
            ast.fix_missing_locations(whole)
            yield Mutant(module, place, before, _short(target), ast.unparse(whole))


def _places(tree: ast.Module) -> list[tuple[str, ast.expr]]:
    """Return every expression that is evaluated, with the function or constant it belongs to."""
    found: list[tuple[str, ast.expr]] = []

    def visit(node: ast.AST, place: str) -> None:
        if isinstance(node, (ast.Import, ast.ImportFrom, ast.arguments, ast.JoinedStr)) or _is_for_readers(node):
            return
        if isinstance(node, (ast.FunctionDef, ast.ClassDef)):
            place = node.name
        if isinstance(node, (ast.Assign, ast.AnnAssign)) and not place:
            place = ast.unparse(node.targets[0] if isinstance(node, ast.Assign) else node.target)
        if isinstance(node, ast.expr):
            found.append((place or "module", node))
        for name, child in ast.iter_fields(node):
            if name in {"annotation", "returns", "decorator_list", "op", "ops"}:
                continue
            for one in child if isinstance(child, list) else [child]:
                if isinstance(one, ast.AST):
                    visit(one, place)

    visit(tree, "")
    return found


def _is_for_readers(node: ast.AST) -> bool:
    """Whether a statement is a docstring, or is there for readers and type checkers alone."""
    if isinstance(node, ast.Expr):
        return isinstance(node.value, ast.Constant)
    if isinstance(node, ast.If):
        return ast.unparse(node.test) == "TYPE_CHECKING"
    return isinstance(node, ast.Assign) and ast.unparse(node.targets[0]) == "__all__"


def _changes(node: ast.expr) -> Iterator[ast.expr]:
    yield from _other_logic(node)
    yield from _other_values(node)


def _other_logic(node: ast.expr) -> Iterator[ast.expr]:
    match node:
        case ast.Compare(ops=[op]) if type(op) in _COMPARISONS:
            yield ast.Compare(node.left, [_COMPARISONS[type(op)]()], node.comparators)
        case ast.BoolOp(op=op, values=values):
            yield ast.BoolOp(ast.Or() if isinstance(op, ast.And) else ast.And(), values)
            yield from values
        case ast.UnaryOp(op=ast.Not(), operand=operand):
            yield operand
        case ast.IfExp(body=body, orelse=orelse):
            yield body
            yield orelse
        case ast.BinOp(op=ast.Add(), left=left, right=right):
            yield ast.BinOp(left, ast.Sub(), right)


def _other_values(node: ast.expr) -> Iterator[ast.expr]:
    match node:
        case ast.Constant(value=bool(value)):
            yield ast.Constant(not value)
        case ast.Constant(value=int(number)):
            yield ast.Constant(number + 1)
        case ast.Constant(value=str(text)) if _CODE.fullmatch(text):
            yield ast.Constant(f"{text}X")
        case ast.Attribute(value=value, attr=attr, ctx=ast.Load()) if attr in _ATTRIBUTES:
            yield ast.Attribute(value, _ATTRIBUTES[attr], ast.Load())
        case ast.Name(id=name, ctx=ast.Load()) if name in _NAMES:
            yield ast.Name(_NAMES[name], ast.Load())


def _short(node: ast.AST) -> str:
    return " ".join(ast.unparse(node).split())


# ------------------------------------------------------------------ running


class _Loader(importlib.abc.MetaPathFinder, importlib.abc.Loader):
    """Imports one module from a text."""

    def __init__(self, mutant: Mutant) -> None:
        self._mutant = mutant

    def find_spec(self, fullname: str, _path: object = None, _target: object = None) -> ModuleSpec | None:
        return importlib.util.spec_from_loader(fullname, self) if fullname == self._mutant.module else None

    def exec_module(self, module: ModuleType) -> None:
        exec(compile(self._mutant.source, self._mutant.module, "exec"), module.__dict__)  # noqa: S102 -- what it is for


def survives(mutant: Mutant, run: Callable[[], int]) -> bool:
    """Return whether `run` returns 0 in a process of its own, with the mutant in place."""
    child = os.fork()
    if child == 0:
        code = 1
        with contextlib.suppress(BaseException):
            signal.alarm(LIMIT_S)
            nowhere = os.open(os.devnull, os.O_WRONLY)
            os.dup2(nowhere, 1)
            os.dup2(nowhere, 2)
            _forget("consent", "tests.consent")
            sys.meta_path.insert(0, _Loader(mutant))
            code = run()
        os._exit(code)
    _, status = os.waitpid(child, 0)
    return status == 0


def _forget(*packages: str) -> None:
    """Let what was imported of the packages be imported again, the mutant among it."""
    for name in [name for name in sys.modules if f"{name}.".startswith(tuple(f"{package}." for package in packages))]:
        del sys.modules[name]


def rows() -> int:
    """Call the tests of the tables as pytest would; return 0 or raise what one of them raises."""
    for name in TABLES:
        module = importlib.import_module(f"tests.consent.{name.removesuffix('.py')}")
        for test in [value for key, value in vars(module).items() if key.startswith("test_")]:
            if not hasattr(test, "hypothesis"):
                for arguments in _rows(getattr(test, "pytestmark", [])):
                    test(**arguments)
    return 0


def _rows(marks: list[Any]) -> Iterator[dict[str, object]]:
    """Yield the arguments of each call that parametrize asks for."""
    if not marks:
        yield {}
        return
    names, values = marks[0].args
    names = [name.strip() for name in names.split(",")] if isinstance(names, str) else names
    for rest in _rows(marks[1:]):
        for row in values:
            yield rest | dict(zip(names, row if len(names) > 1 else [row], strict=True))


def whole(tests: Sequence[str]) -> int:
    """Run pytest on the tests; return its exit code."""
    import pytest  # noqa: PLC0415 -- loaded before the fork by `main`

    paths = [str(ROOT / "tests" / "consent" / name) for name in tests]
    preloaded = "ignore::pytest.PytestAssertRewriteWarning"
    options = ["-x", "-q", "-W", preloaded, "-p", "no:cacheprovider", f"--rootdir={ROOT}"]
    return int(pytest.main([*options, *paths]))


def main(modules: Sequence[str]) -> int:
    """Print each survivor and the count; return 1 if one of them is not explained."""
    import hypothesis  # noqa: F401, PLC0415 -- once, not in every fork
    import pydantic  # noqa: F401, PLC0415
    import pytest  # noqa: F401, PLC0415

    unchanged = Mutant("consent.purpose", "", "", "", (ROOT / "consent" / "purpose.py").read_text())
    if not (survives(unchanged, rows) and survives(unchanged, partial(whole, PROPERTIES))):
        print("the tests fail without any change")
        return 1
    explained = EXPLAINED.read_text()
    made, unexplained, survivors = 0, 0, 0
    for module in modules or MODULES:
        path = ROOT / Path(*module.split(".")).with_suffix(".py")
        for mutant in mutants(module, path.read_text()):
            made += 1
            if not survives(mutant, rows) or not survives(mutant, partial(whole, PROPERTIES)):
                continue
            known = mutant.words in explained
            survivors += 1
            unexplained += not known
            print(f"{'explained' if known else 'SURVIVED '} {mutant.words}", flush=True)
    print(f"{made} mutants, {made - survivors} killed, {survivors} survived, {unexplained} of these not explained")
    return 1 if unexplained else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))

"""The tool that changes the decision makes the changes it says, and notices which are not noticed."""

from __future__ import annotations

import ast
from functools import partial

import pytest

from tools.mutation import MODULES, ROOT, Mutant, mutants, rows, survives, whole

SOURCE = '''
"""A docstring that is left alone."""
LIMIT: Final = 3


def allowed(age: int, permitted: bool) -> bool:
    """Say so."""
    return age >= LIMIT and not permitted
'''


def test_each_mutant_is_one_change_of_what_is_evaluated() -> None:
    made = [(mutant.place, mutant.before, mutant.after) for mutant in mutants("m", SOURCE)]

    assert made == [
        ("LIMIT", "3", "4"),
        ("allowed", "age >= LIMIT and (not permitted)", "age >= LIMIT or not permitted"),
        ("allowed", "age >= LIMIT and (not permitted)", "age >= LIMIT"),
        ("allowed", "age >= LIMIT and (not permitted)", "not permitted"),
        ("allowed", "age >= LIMIT", "age > LIMIT"),
        ("allowed", "not permitted", "permitted"),
    ]


@pytest.mark.slow
@pytest.mark.parametrize("module", MODULES)
def test_every_mutant_of_a_decision_module_differs_and_is_python(module: str) -> None:
    source = (ROOT / f"{module.replace('.', '/')}.py").read_text()
    plain = ast.unparse(ast.parse(source))

    for mutant in mutants(module, source):
        assert mutant.source != plain
        compile(mutant.source, module, "exec")


@pytest.mark.slow
def test_a_change_is_noticed_and_none_is_not() -> None:
    source = (ROOT / "consent" / "purpose.py").read_text()
    unchanged = Mutant("consent.purpose", "", "", "", source)
    changed = Mutant("consent.purpose", "", "", "", source.replace("return permitted in", "return permitted not in"))

    for run in (rows, partial(whole, ["test_purpose.py"])):
        assert survives(unchanged, run)
        assert not survives(changed, run)

"""What a worker leaves out is needed by no component a task can name."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from models.learning.frameworks import COMPILER, OPTIONAL

HERE = Path(__file__).parent
LEAN = "import sys; from models.learning.frameworks import load_frameworks; load_frameworks(); "


def run(program: str, *arguments: str) -> subprocess.CompletedProcess[str]:
    """Run a program in a process of its own, after the frameworks were loaded the lean way."""
    command = [sys.executable, "-c", LEAN + program, *arguments]
    return subprocess.run(command, capture_output=True, text=True, check=False)


@pytest.mark.slow
def test_every_component_builds_and_trains_without_what_is_left_out() -> None:
    tests = [str(HERE / name) for name in ("test_build.py", "test_train.py", "test_evaluate.py")]

    done = run("import pytest; sys.exit(pytest.main(['-q', '-p', 'no:cacheprovider', *sys.argv[1:]]))", *tests)

    assert done.returncode == 0, done.stdout[-3000:]


def test_neither_the_optional_packages_nor_the_compiler_are_loaded() -> None:
    done = run("print(*sorted(sys.modules))")

    loaded = done.stdout.split()
    assert "monai.networks.nets" in loaded
    assert not {name.partition(".")[0] for name in loaded} & set(OPTIONAL)
    assert [name for name in loaded if name.startswith(COMPILER)] == [COMPILER]


def test_an_optional_package_can_still_be_imported_afterwards() -> None:
    assert run("import psutil").returncode == 0

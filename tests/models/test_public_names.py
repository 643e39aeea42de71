"""What `models` offers, and what importing it costs."""

from __future__ import annotations

import subprocess
import sys

import models


def test_the_public_names_are_sorted_and_exist() -> None:
    constants = sorted(name for name in models.__all__ if name.isupper())
    classes = sorted(n for n in models.__all__ if not n.isupper() and n[0].isupper())
    functions = sorted(n for n in models.__all__ if n.islower())

    assert models.__all__ == [*constants, *classes, *functions]
    assert all(hasattr(models, name) for name in models.__all__)


def test_importing_the_package_imports_neither_pytorch_nor_monai() -> None:
    program = "import sys, models; sys.exit(bool({'torch', 'monai'} & sys.modules.keys()))"

    finished = subprocess.run([sys.executable, "-c", program], check=False)

    assert finished.returncode == 0

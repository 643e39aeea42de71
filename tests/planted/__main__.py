"""Write the corpus: `python -m tests.planted FOLDER --seed 1`."""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

from tests.planted.generate import generate


def main() -> None:
    """Write the corpus that the arguments ask for, and say what it holds."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--seed", type=int, default=1)
    arguments = parser.parse_args()
    keys = generate(arguments.folder, arguments.seed)
    planted = [one for key in keys for one in key.planted]
    places = len({one.place for key in keys for one in key.planted if not key.flood})
    sys.stdout.write(
        f"{len(keys)} files, {len(planted)} things said in {places} places (and everywhere in the flooded files)\n"
    )


if __name__ == "__main__":
    main()

"""Starts `filmroom-coordinator`: loads the program without collecting garbage, since while modules load there is none.

What is loaded is then set apart, so that a later collection looks only at what the program itself has made.
"""

from __future__ import annotations

import gc


def main() -> None:
    """Run the command line."""
    gc.disable()
    from coordinator import cli  # noqa: PLC0415 -- this is what must not be collected in

    gc.freeze()
    gc.enable()
    cli.main()


if __name__ == "__main__":
    main()

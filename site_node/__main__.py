"""Starts `filmroom-site`: loads the program without collecting garbage, since while modules load there is none.

What is loaded is then set apart, so that a later collection looks only at what the program itself has made.
"""

from __future__ import annotations

import gc

from models.memory import share_one_arena


def main() -> None:
    """Run the command line."""
    share_one_arena()
    gc.disable()
    from site_node import cli  # noqa: PLC0415 -- this is what must not be collected in

    gc.freeze()
    gc.enable()
    cli.main()


if __name__ == "__main__":
    main()

"""Starts `filmroom-coordinator`, after what must be settled before anything is loaded."""

from __future__ import annotations

from models.memory import loading, share_one_arena


def main() -> None:
    """Run the command line."""
    share_one_arena()
    with loading():
        from coordinator import cli  # noqa: PLC0415 -- this is what loads
    cli.main()


if __name__ == "__main__":
    main()

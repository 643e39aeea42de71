"""Lets something happen before any operation of a round: a statement, a commit, a file opened or removed, a clock read.

Between two of these a round only computes, so what may happen to it may happen there and nowhere else.
"""

from __future__ import annotations

import sys
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

from sqlalchemy import event

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

    import sqlalchemy as sa

_FILE_OPERATIONS = frozenset({"open", "os.remove", "os.mkdir", "os.rmdir", "os.rename", "os.truncate"})


class Interruptions:
    """Counts the operations of a site's process and calls `before` ahead of each with its number, from 1."""

    def __init__(self) -> None:
        self.number = 0
        self._before: Callable[[int], None] | None = None
        self._root = ""

    @contextmanager
    def watching(self, root: Path, before: Callable[[int], None]) -> Iterator[None]:
        """Watch the files below `root` and whatever calls `tick` until the block ends."""
        self.number, self._root, self._before = 0, f"{root}/", before
        _watched.append(self)
        try:
            yield
        finally:
            _watched.remove(self)
            self._before = None

    def tick(self) -> None:
        """Count one operation that is about to happen; what happens before it is not counted."""
        before = self._before
        if before is not None:
            self.number += 1
            self._before = None
            try:
                before(self.number)
            finally:
                self._before = before

    def watch(self, engine: sa.Engine) -> None:
        """Count every statement and commit of the engine."""
        event.listen(engine, "before_cursor_execute", lambda *_: self.tick())
        event.listen(engine, "commit", lambda _: self.tick())

    def on_file(self, path: object) -> None:
        """Count an operation on a file of the site."""
        if isinstance(path, str) and path.startswith(self._root):
            self.tick()


_watched: list[Interruptions] = []


def _audit(name: str, arguments: tuple[Any, ...]) -> None:
    if _watched and name in _FILE_OPERATIONS:
        path = arguments[0]
        for interruptions in tuple(_watched):
            interruptions.on_file(str(path) if hasattr(path, "__fspath__") else path)


sys.addaudithook(_audit)

"""Buckets in memory that keep locks as S3 does and fail as told, and a process that dies between any two steps.

For histories of thousands of steps. What real servers do is tested on real servers.
"""

from __future__ import annotations

import hashlib
import sys
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from site_node.archive.locked.locks import COMPLIANCE, Lock, Version
from site_node.errors import EndpointRefused, EndpointUnreachable

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from datetime import datetime
    from typing import BinaryIO


class Killed(BaseException):
    """The process is dead: nothing of it runs any more."""


@dataclass(slots=True)
class Life:
    """How many more steps the process lives; a step is a request, a commit, or a change of the file system."""

    left: int | None = None
    on_remove: Callable[[str], None] | None = None

    def step(self) -> None:
        """Take one step, or die; who is dead stays so."""
        if self.left is None:
            return
        if self.left == 0:
            raise Killed
        self.left -= 1


_living: Life | None = None
_STEPS = ("os.rename", "os.remove", "os.mkdir", "os.rmdir", "open")


def _audit(event: str, arguments: tuple[object, ...]) -> None:
    if _living is None or event not in _STEPS:
        return
    if event == "open" and not (isinstance(arguments[2], int) and arguments[2] & 3):
        return  # only reads
    _living.step()
    life = _living
    if event == "os.remove" and life.on_remove is not None:
        watch(None)  # looking is no step
        try:
            life.on_remove(str(arguments[0]))
        finally:
            watch(life)


def watch(life: Life | None) -> None:
    """Let the file system's changes be steps of a life; None stops it."""
    global _living  # noqa: PLW0603 -- an audit hook cannot be taken away, only made idle
    if not _hooked:
        sys.addaudithook(_audit)
        _hooked.append(True)
    _living = life


_hooked: list[bool] = []


@dataclass(slots=True)
class Stored:
    """One version of one object."""

    content: bytes
    until: datetime
    hold: bool
    number: int


@dataclass(slots=True)
class MemoryBucket:
    """A bucket; `fault` is how it behaves: down, cut (the answer to a put is lost), short (locks for too short)."""

    life: Life
    now: Callable[[], datetime]
    endpoint: str = "memory"
    name: str = "images"
    fault: str = ""
    objects: dict[str, list[Stored]] = field(default_factory=dict)

    def put(self, name: str, content: BinaryIO, size: int, sha256: bytes, until: datetime, *, hold: bool) -> str:
        """Store a new object under a lock."""
        self._answer()
        if self.objects.get(name):
            raise EndpointRefused("taken", "PreconditionFailed")
        taken = content.read(size)
        assert hashlib.sha256(taken).digest() == sha256
        kept = self.now() if self.fault == "short" else until
        self.objects.setdefault(name, []).append(Stored(taken, kept, hold, 1))
        self.life.step()
        if self.fault == "cut":
            raise EndpointUnreachable("the network was cut")
        return "1"

    def read(self, name: str, version: str) -> Iterator[bytes]:
        """Yield the bytes of one version."""
        self._answer()
        yield self._at(name, version).content

    def lock(self, name: str, version: str) -> Lock:
        """Return the lock of one version."""
        self._answer()
        stored = self._at(name, version)
        return Lock(COMPLIANCE, stored.until, stored.hold)

    def extend(self, name: str, version: str, until: datetime) -> None:
        """Move the date of one version's lock, never back."""
        self._answer()
        stored = self._at(name, version)
        if self.fault != "short":
            stored.until = max(stored.until, until)

    def set_hold(self, name: str, version: str, *, on: bool) -> None:
        """Put a legal hold on one version, or lift it."""
        self._answer()
        self._at(name, version).hold = on

    def versions(self, prefix: str = "") -> Iterator[Version]:
        """Yield every version below a prefix."""
        self._answer()
        for name, versions in sorted(self.objects.items()):
            if name.startswith(prefix):
                yield from (
                    Version(name, str(one.number), self.now(), len(one.content), is_marker=False) for one in versions
                )

    def _answer(self) -> None:
        self.life.step()
        if self.fault == "down":
            raise EndpointUnreachable("nobody answers")

    def _at(self, name: str, version: str) -> Stored:
        for stored in self.objects.get(name, ()):
            if str(stored.number) == version:
                return stored
        raise EndpointRefused("no such version", "NoSuchVersion")

"""How long one file may take: its reader is told to stop, and a process that does not hear that is ended."""

from __future__ import annotations

import faulthandler
import math
import os
import signal
import threading
import time
from contextlib import contextmanager
from functools import cache
from pathlib import Path
from typing import IO, TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterator
    from types import FrameType

_AGAIN_S = 1.0  # a library that swallowed it is told again
# Times the limit, after which a process is ended in the middle of a call of C: of the file that was the first since
# the end was put off, or twice of any after it. To put it off starts a thread, and most files take no time.
_DEAF = 3


class OutOfTime(BaseException):
    """A file has taken as long as one may; no error, so that no library takes it for one of its own."""


@contextmanager
def limited(seconds: float, *, deadly: bool) -> Iterator[None]:
    """Raise OutOfTime here once `seconds` have passed; with `deadly`, end a process that does not hear it.

    Only the main thread of a process can be told. The end of the process stands until `rest`.
    """
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    before = signal.signal(signal.SIGALRM, _raise)
    if deadly:
        _put_off(seconds)
    signal.setitimer(signal.ITIMER_REAL, seconds, _AGAIN_S)
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, before)


def rest() -> None:
    """Let a process that looks through nothing for now wait as long as it has to."""
    global _put_off_at  # noqa: PLW0603 -- a process has one end
    faulthandler.cancel_dump_traceback_later()
    _put_off_at = -math.inf


_put_off_at = -math.inf


def _put_off(seconds: float) -> None:
    global _put_off_at  # noqa: PLW0603 -- as above
    if time.monotonic() - _put_off_at > seconds:
        _put_off_at = time.monotonic()
        faulthandler.dump_traceback_later(_DEAF * seconds, exit=True, file=_nowhere())


def _raise(number: int, frame: FrameType | None) -> None:
    del number, frame
    raise OutOfTime


@cache
def _nowhere() -> IO[str]:
    return Path(os.devnull).open("w", encoding="ascii")

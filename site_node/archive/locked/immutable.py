"""The local fallback: copies on this machine's disk that are made immutable, and the capability to undo it given up.

Called `local`, never compliant: root of the machine lifts the attribute with one command. What it stops is a program
that runs as the node, and a slip of the hand.
Source: ioctl_iflags(2), capabilities(7), prctl(2).
"""

from __future__ import annotations

import array
import ctypes
import fcntl
import hashlib
import os
import shutil
from dataclasses import dataclass
from typing import TYPE_CHECKING

from site_node import away
from site_node.errors import ConfigurationError, LockedCopyInvalid

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

_GET_FLAGS, _SET_FLAGS = 0x80086601, 0x40086602  # FS_IOC_GETFLAGS, FS_IOC_SETFLAGS
_IMMUTABLE = 0x10  # FS_IMMUTABLE_FL
_CAP_LINUX_IMMUTABLE = 9
_PR_CAPBSET_DROP = 24
_CAPABILITY_VERSION_3 = 0x20080522
_CAPABILITY_WORDS = 6  # effective, permitted, inheritable; twice


@dataclass(frozen=True, slots=True)
class Copied:
    """How many copies are new, how many files are not what their copy is, and how many are away."""

    new: int
    differing: int
    away: int


def copy(source: Path, target: Path, heard: Callable[[int, int], None] = lambda _done, _total: None) -> Copied:
    """Copy every file of `source` into `target` and make each copy immutable.

    A copy that is there stays as it is, whatever its file is now; read back, each copy's digest is compared.
    Raises: ConfigurationError if the disk or the user cannot; OSError.
    """
    paths = [path for path in away.below(source) if not path.is_symlink()]
    here = [path for path in paths if path.is_file()]
    new = differing = 0
    for done, path in enumerate(here, start=1):
        try:
            new += _copy_one(path, target / path.relative_to(source))
        except LockedCopyInvalid:
            differing += 1
        heard(done, len(here))
    return Copied(new, differing, sum(away.is_away(path) for path in paths))


def is_immutable(path: Path) -> bool:
    """Return whether nobody may change, rename or delete a file, root included."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        return bool(_flags(descriptor) & _IMMUTABLE)
    finally:
        os.close(descriptor)


def set_immutable(path: Path, *, on: bool) -> None:
    """Set the attribute of a file, or lift it.

    Raises: ConfigurationError if the file system has no such attribute, or this process no right to it.
    """
    descriptor = os.open(path, os.O_RDONLY)
    try:
        flags = _flags(descriptor)
        wanted = flags | _IMMUTABLE if on else flags & ~_IMMUTABLE
        fcntl.ioctl(descriptor, _SET_FLAGS, array.array("L", [wanted]))
    except OSError as error:
        raise ConfigurationError(f"the attribute of immutable files cannot be set here: {error.strerror}") from error
    finally:
        os.close(descriptor)


def give_up_capability() -> bool:
    """Let neither this process nor any that it starts ever lift the attribute; return whether it could before.

    Raises: OSError if the kernel refuses.
    """
    libc = ctypes.CDLL(None, use_errno=True)
    header = (ctypes.c_uint32 * 2)(_CAPABILITY_VERSION_3, 0)
    sets = (ctypes.c_uint32 * _CAPABILITY_WORDS)()
    _call(libc.capget, header, sets)
    bit = 1 << _CAP_LINUX_IMMUTABLE
    had = bool(sets[1] & bit)
    if not had:
        return False
    # The bounding set first: with it a program that is started as root would have the capability again.
    _call(libc.prctl, _PR_CAPBSET_DROP, _CAP_LINUX_IMMUTABLE, 0, 0, 0)
    for word in range(3):
        sets[word] &= ~bit
    _call(libc.capset, header, sets)
    return True


def _call(function: Callable[..., int], *parameters: object) -> None:
    if function(*parameters) != 0:
        number = ctypes.get_errno()
        raise OSError(number, os.strerror(number))


def _flags(descriptor: int) -> int:
    found = array.array("L", [0])
    try:
        fcntl.ioctl(descriptor, _GET_FLAGS, found)
    except OSError as error:
        raise ConfigurationError(f"this file system has no immutable files: {error.strerror}") from error
    return found[0]


def _copy_one(source: Path, target: Path) -> bool:
    if not target.exists():
        target.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        part = target.with_name(f".{target.name}.part")
        opened = os.open(part, os.O_CREAT | os.O_TRUNC | os.O_WRONLY, 0o600)
        with source.open("rb") as content, os.fdopen(opened, "wb") as file:
            shutil.copyfileobj(content, file)
            file.flush()
            os.fsync(file.fileno())
        part.replace(target)
    if _sha256(source) != _sha256(target):
        raise LockedCopyInvalid("a local copy is not what its file is now: it stays as it was")
    if is_immutable(target):
        return False
    set_immutable(target, on=True)
    return True


def _sha256(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()

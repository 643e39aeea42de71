"""Many short patterns looked for in many bytes at once, at the speed of numpy.

A pattern begins with four bytes; the first two and the second two of every place are looked up in tables of all pairs
of bytes, and only the few places that pass are compared. Case is ignored in ASCII letters.
"""

from __future__ import annotations

import binascii
import re
import string
from functools import lru_cache
from typing import TYPE_CHECKING, NamedTuple

import numpy as np

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

    from numpy.typing import NDArray

_WINDOW = 1 << 20
_MARGIN = 256  # longer than any pattern
_LEAD = 4
_UID_RUN = re.compile(rb"[0-9.]{12,64}")
_BASE64 = np.array([chr(byte) in string.ascii_letters + string.digits + "+/" for byte in range(256)])
_HEX = np.array([chr(byte) in string.hexdigits for byte in range(256)])
_LEAST_BASE64, _LEAST_HEX = 12, 16  # characters of a run
# Repertoires of PS3.3 C.12.1.1.2 and others that text of a hospital may be in.
_CHARSETS = (
    "utf-8", "latin-1", "shift_jis", "iso2022_jp", "euc_jp", "euc_kr", "gb18030", "big5", "utf-16-le", "utf-16-be",
    "iso8859_2", "iso8859_3", "iso8859_4", "iso8859_5", "iso8859_6", "iso8859_7", "iso8859_8", "iso8859_9", "koi8_r",
    "cp1251", "cp1253",
)  # fmt: skip
_ESCAPE = re.compile(rb"\x1b[\x20-\x2f]+[\x30-\x7e]")
_DIGITS_AND_DOT = frozenset(b"0123456789.")
LETTERS = frozenset(b"abcdefghijklmnopqrstuvwxyz")
_LOWER = bytes(range(256)).lower()  # of ASCII letters alone
_NOTHING: frozenset[int] = frozenset()
_ALWAYS_LONG = 7  # bytes of a pattern that is believed inside a longer word too


class Pattern(NamedTuple):
    """Bytes in lower case, what they mean, and what must not stand beside them."""

    needle: bytes
    kind: str
    beside: frozenset[int] = _NOTHING


class Found(NamedTuple):
    """A pattern at a place."""

    at: int
    kind: str


def patterns(words: dict[str, str], raw: dict[str, str]) -> list[Pattern]:
    """Return what words look like in bytes: ASCII ones as they are, others in every repertoire."""
    found = [
        Pattern(
            word.encode(),
            kind,
            _DIGITS_AND_DOT if word.isdigit() else LETTERS if len(word) < _ALWAYS_LONG else _NOTHING,
        )
        for word, kind in words.items()
        if word.isascii() and len(word) >= _LEAD
    ]
    for text, kind in raw.items():
        found += [Pattern(needle, kind) for needle in _in_repertoires(text)]
    return found


@lru_cache(maxsize=4096)
def _in_repertoires(text: str) -> frozenset[bytes]:
    forms = set()
    for variant in {text, text.lower(), text.upper(), text.title()}:
        for charset in _CHARSETS:
            try:
                encoded = _ESCAPE.sub(b"", variant.encode(charset)).lower()
            except UnicodeEncodeError:
                continue
            if len(encoded) >= _LEAD:
                forms.add(encoded)
    return frozenset(forms)


def rewritten(head: memoryview) -> Iterator[bytes]:
    """Yield `head` as other writings have it: words of 16 bits swapped, UTF-16, and what runs of base64 and hex say."""
    if len(head) < _LEAD:
        return
    for start in (0, 1):
        count = (len(head) - start) // 2
        yield np.frombuffer(head, "u2", count, start).byteswap().tobytes()
    plain = bytes(head)
    yield plain.replace(b"\0", b"")
    runs = _runs(plain, _BASE64, _LEAST_BASE64)
    parts = [run[lead:][: (len(run) - lead) // 4 * 4] for run in runs for lead in range(4)]
    yield b"\0".join(map(binascii.a2b_base64, parts))
    yield b"\0".join([binascii.unhexlify(run[: len(run) // 2 * 2]) for run in _runs(plain, _HEX, _LEAST_HEX)])


def _runs(plain: bytes, alphabet: NDArray[np.bool_], least: int) -> list[bytes]:
    """Return what is written in an alphabet without a break, where it is at least so long."""
    inside = np.zeros(len(plain) + 2, np.int8)
    inside[1:-1] = alphabet[np.frombuffer(plain, np.uint8)]
    edges = np.flatnonzero(np.diff(inside))
    starts, stops = edges[::2], edges[1::2]
    long = stops - starts >= least
    return [plain[start:stop] for start, stop in zip(starts[long].tolist(), stops[long].tolist(), strict=True)]


class Scanner:
    """Looks for patterns and UIDs; built once per instance."""

    def __init__(self, wanted: Iterable[Pattern], uids: Iterable[str]) -> None:
        self._by_lead: dict[bytes, list[Pattern]] = {}
        for pattern in wanted:
            self._by_lead.setdefault(pattern.needle[:_LEAD], []).append(pattern)
        self._uids = {uid.encode() for uid in uids}
        self._uid_leads = {uid[:_LEAD] for uid in self._uids}
        leads = np.frombuffer(b"".join({*self._by_lead, *self._uid_leads}), "<u4")
        self._leads = np.sort(leads)
        self._first, self._second = np.zeros(65536, bool), np.zeros(65536, bool)
        self._first[leads & 0xFFFF] = True
        self._second[leads >> 16] = True

    def find(self, buffer: memoryview) -> Iterator[Found]:
        """Yield every place where something wanted stands."""
        for start in range(0, len(buffer), _WINDOW):
            window = buffer[start : start + _WINDOW + _MARGIN]
            for at in self._candidates(window):
                if at < _WINDOW:
                    kind = self._compare(buffer, start + at)
                    if kind:
                        yield Found(start + at, kind)

    def _candidates(self, window: memoryview) -> list[int]:
        """Return where four bytes stand with which something wanted begins, whatever their case."""
        places: list[int] = []
        if not len(self._leads):
            return places
        low = bytes(window).translate(_LOWER)
        for parity in (0, 1):
            count = (len(low) - parity) // 2
            if count < 2:  # noqa: PLR2004 -- two pairs of bytes
                continue
            pairs = np.frombuffer(low, "<u2", count, parity)
            at = np.flatnonzero(self._first[pairs[:-1]])
            at = at[self._second[pairs[at + 1]]]
            here = pairs[at].astype("<u4") | pairs[at + 1].astype("<u4") << 16
            found = np.minimum(np.searchsorted(self._leads, here), len(self._leads) - 1)
            places += (at[self._leads[found] == here] * 2 + parity).tolist()
        return places

    def _compare(self, buffer: memoryview, at: int) -> str:
        lead = bytes(buffer[at : at + _LEAD]).lower()
        wanted = self._by_lead.get(lead, ())
        is_uid = lead in self._uid_leads
        if not wanted and not is_uid:
            return ""
        here = bytes(buffer[at : at + _MARGIN]).lower()
        before = bytes(buffer[at - 1 : at]).lower() if at else b""
        for pattern in wanted:
            if here.startswith(pattern.needle):
                after = here[len(pattern.needle) : len(pattern.needle) + 1]
                if not (before and before[0] in pattern.beside) and not (after and after[0] in pattern.beside):
                    return pattern.kind
        if is_uid and not (before and before[0] in _DIGITS_AND_DOT):
            run = _UID_RUN.match(here)
            if run and run.group().rstrip(b".") in self._uids:
                return "uid"
        return ""

"""Search a file's bytes for things said, in every encoding we could think of, compressed streams included."""

from __future__ import annotations

import base64
import re
import zlib
from dataclasses import dataclass
from functools import lru_cache

import numpy as np

CHARSETS = (
    "utf-8", "latin-1", "utf-16-le", "utf-16-be", "iso2022_jp", "shift_jis", "euc_jp", "euc_kr", "gb18030", "big5",
    "iso8859_2", "iso8859_5", "koi8_r", "iso8859_7", "cp1251", "cp1253", "iso8859_9",
)  # fmt: skip
ZLIB = re.compile(rb"\x78[\x01\x5e\x9c\xda]|\x1f\x8b\x08")
MAX_INFLATED = 20_000_000
_MIN_INFLATED = 20
_SHORT = 5
_RANDOM = 30  # digits
ESCAPE = re.compile(rb"\x1b[\x20-\x2f]+[\x30-\x7e]")


@dataclass(frozen=True, slots=True)
class Bytes:
    """A file, ready to be searched: its bytes, every stream inflated, and both with words of 16 bits swapped.

    The swapped ones keep their case and say nothing of short tokens: grey values of noise are letters, and five of
    them are soon a name.
    `grams` are all runs of four bytes: what does not begin and end with such a run is not there.
    """

    plain: tuple[bytes, ...]
    swapped: tuple[bytes, ...]
    grams: frozenset[bytes]

    @classmethod
    def of(cls, content: bytes) -> Bytes:
        """Return the searchable parts of a file, in lower case."""
        parts = [content, *inflated(content)]
        plain = tuple(one.lower() for one in parts)
        swapped = tuple(part for one in parts for part in _swapped(one))
        grams = frozenset(part[i : i + 4] for part in (*plain, *swapped) for i in range(len(part) - 3))
        return cls(plain, swapped, grams)

    def say(self, token: str, kind: str) -> bool:
        """Return whether `token` stands anywhere."""
        simple = token.lower().encode()
        if kind in ("uid", "date"):
            pattern = _uid(token) if kind == "uid" else _date(token)
            return self._may_hold(simple) and any(pattern.search(part) for part in self.plain)
        if self._may_hold(simple) and any(simple in part for part in self.plain):
            return not token.isdigit() or any(_stands(simple, part) for part in self.plain)
        cases = {variant.encode() for variant in (token, token.lower(), token.upper(), token.title())}
        if len(simple) > _SHORT and any(
            self._may_hold(case) and any(case in part for part in self.swapped) for case in cases
        ):
            return True
        return any(self._may_hold(needle) and any(needle in part for part in self.plain) for needle in needles(token))

    def _may_hold(self, needle: bytes) -> bool:
        return needle[:4] in self.grams and needle[-4:] in self.grams

    def count_dates(self, token: str) -> int:
        """Return how often a date stands in the file as it is, and where it is inflated."""
        return sum(len(_date(token).findall(part)) for part in self.plain)


def _uid(token: str) -> re.Pattern[bytes]:
    return re.compile(rb"(?<![0-9.])" + re.escape(token.encode()) + rb"(?![0-9.])")


def _date(token: str) -> re.Pattern[bytes]:
    return re.compile(rb"(?<![0-9.])" + re.escape(token.encode()))


def _stands(digits: bytes, part: bytes) -> bool:
    """Return whether digits stand elsewhere than within the 39 of a random UID, which hold any eight now and then."""
    return any(len(run[0]) < _RANDOM for run in re.finditer(rb"[0-9]*" + digits + rb"[0-9]*", part))


def _swapped(content: bytes) -> list[bytes]:
    parts = []
    for start in (0, 1):
        even = content[start : start + (len(content) - start) // 2 * 2]
        parts.append(np.frombuffer(even, "u2").byteswap().tobytes())
    return parts


def inflated(content: bytes) -> list[bytes]:
    """Return every stream in `content` that inflates: zlib, gzip, and a deflated data set behind group 2."""
    streams = []
    if content[128:132] == b"DICM" and len(content) > 144:
        start = 144 + int.from_bytes(content[140:144], "little")
        streams.append(_inflate(content[start:], -zlib.MAX_WBITS))
    streams += [_inflate(content[match.start() :], zlib.MAX_WBITS | 32) for match in ZLIB.finditer(content)]
    return [stream for stream in streams if len(stream) > _MIN_INFLATED]


def _inflate(content: bytes, bits: int) -> bytes:
    try:
        return zlib.decompressobj(bits).decompress(content, MAX_INFLATED)
    except zlib.error:
        return b""


@lru_cache(maxsize=100_000)
def needles(token: str) -> frozenset[bytes]:
    """Return the forms of `token` as bytes, in lower case where the letter is ASCII."""
    forms: set[bytes] = set()
    for variant in {token, token.lower(), token.upper(), token.title()}:
        for charset in CHARSETS:
            try:
                encoded = ESCAPE.sub(b"", variant.encode(charset))
            except UnicodeEncodeError:
                continue
            if len(encoded) > 3:
                forms.add(encoded.lower())
        raw = variant.encode()
        forms.add(raw.hex().encode())
        forms.update(_base64(raw))
    return frozenset(forms)


def _base64(raw: bytes) -> list[bytes]:
    """Return what is certain of `raw` in base64, at each of the three places it can begin."""
    found = []
    for lead in range(3):
        text = base64.b64encode(b"\0" * lead + raw)
        inner = text[(0, 2, 3)[lead] : (lead + len(raw)) * 4 // 3]
        if len(inner) > 6:
            found.append(inner.lower())
    return found

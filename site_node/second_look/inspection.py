"""The second look: what the original said of persons is looked for in the output, in its text, bytes and pixels.

A hit says where and what kind of thing; it never says the value. What the output itself declares as retained by an
option of PS3.15 (dates, UIDs, device, institution) is not a hit.
"""

from __future__ import annotations

import re
import zlib
from itertools import pairwise
from typing import TYPE_CHECKING, NamedTuple

from site_node.errors import UnreadableInstance
from site_node.second_look import pixels, reading
from site_node.second_look.folding import fold
from site_node.second_look.said import Said, anywhere, collect
from site_node.second_look.scan import LETTERS, Pattern, Scanner, patterns, rewritten
from site_node.second_look.words import words

if TYPE_CHECKING:
    from collections.abc import Iterator

    from site_node.second_look.reading import File, Spoken

# PS3.16 CID 7050: what an output may declare, and the kind that is then no hit.
_RETAINED = {"113106": "date", "113110": "uid", "113109": "device", "113112": "place"}
_FREE_TEXT = frozenset(("AE", "CS", "LO", "LT", "PN", "SH", "ST", "UC", "UR", "UT", "UN", "DS", "IS"))
_PROSE = frozenset(("LO", "LT", "SH", "ST", "UC", "UT"))
# Attributes that this pass does not hold against an output: it says there what it did, or what stands for the patient.
_OWN_WORDS = frozenset(
    (
        "DeidentificationMethod",
        "DeidentificationMethodCodeSequence",
        "ImplementationVersionName",
        "ImplementationClassUID",
    )
)
_DAY = re.compile(
    r"(?<!\d)(?:(?P<y>(?:19|20)\d{2})[-./ ]?(?P<m>\d{1,2})[-./ ]?(?P<d>\d{1,2})|"
    r"(?P<a>\d{1,2})[-./ ](?P<b>\d{1,2})[-./ ](?P<z>(?:19|20)\d{2}))(?!\d)"
)
_MAIL = re.compile(r"[^\s@]{2,}@[^\s@]+\.[a-zA-Z]{2,}")
_STREAM = re.compile(rb"\x78[\x01\x5e\x9c\xda]|\x1f\x8b\x08")
_MAX_STREAMS = 256
_TAIL = 1 << 16  # bytes at the end of the pixels that are looked at in other writings too
_MAX_HEAD = 1 << 24  # bytes before the pixels that are
_MAX_HITS = 64


class Hit(NamedTuple):
    """Where in the output something of the original still stands, and what kind of thing; never the value."""

    place: str
    kind: str


def inspect(original: bytes | memoryview, output: bytes | memoryview, *, read_pixels: bool = False) -> tuple[Hit, ...]:
    """Return where the output still says what the original said of persons; empty if it is clean.

    A file that cannot be read is a hit by itself: what cannot be looked at is not clean.
    Raises: ConfigurationError if pixels are to be read and no reader is installed.
    """
    reader = pixels.reader() if read_pixels else None
    before, after = memoryview(original).cast("B"), memoryview(output).cast("B")
    place = "original"
    try:
        was = reading.read(before)
        said = collect(was.spoken)
        place = "output"
        now = reading.read(after)
        found = dict.fromkeys(_in_text(now.spoken, {one.path: one for one in was.spoken}, said))
        found |= dict.fromkeys(_in_bytes(after, now, said))
        if reader is not None:
            kinds = {kind for view in pixels.views(after) for kind in pixels.identifying(reader.read(view), said)}
            found |= dict.fromkeys(Hit("pixels", kind) for kind in sorted(kinds))
    except UnreadableInstance:
        return (Hit(place, "unreadable"),)
    retained = _retained(now.spoken)
    return tuple(hit for hit in found if hit.kind not in retained)[:_MAX_HITS]


def _retained(told: tuple[Spoken, ...]) -> frozenset[str]:
    """Return the kinds that the output declares to keep. Source: PS3.16 CID 7050."""
    codes = {
        value
        for one in told
        if "DeidentificationMethodCodeSequence" in one.parents and one.keyword == "CodeValue"
        for value in one.values
    }
    return frozenset(kind for code, kind in _RETAINED.items() if code in codes)


def _in_text(told: tuple[Spoken, ...], source: dict[str, Spoken], said: Said) -> Iterator[Hit]:
    """Yield what decoded attributes still say."""
    for one in told:
        if one.keyword in _OWN_WORDS or not _OWN_WORDS.isdisjoint(one.parents):
            continue
        if one.vr == "UI":
            if not said.uids.isdisjoint(one.values):
                yield Hit(one.path, "uid")
        elif one.vr in ("DA", "DT"):
            was = source.get(one.path)
            if was is not None and any(
                now[:8] == old[:8] and old[:8] in said.days for now, old in zip(one.values, was.values, strict=False)
            ):
                yield Hit(one.path, "date")
        elif one.vr in _FREE_TEXT:
            for value in one.values:
                yield from (Hit(one.path, kind) for kind in _in_value(one, value, source.get(one.path), said))


def _in_value(one: Spoken, value: str, was: Spoken | None, said: Said) -> Iterator[str]:
    found = words(value)
    if not said.alone.keys().isdisjoint(found):
        for word in found:
            if word in said.alone and (one.vr not in ("DS", "IS") or len(word) > 6):  # noqa: PLR2004 -- a number may be any number
                yield said.alone[word]
    if not said.pairs.isdisjoint(pairwise(found)) and not (was is None and all(word in said.weak for word in found)):
        yield "name"
    if not value.isascii() or not said.ends.isdisjoint(found):
        yield from _as_a_whole(found, value, said)
    if one.vr not in _PROSE:
        return
    if said.weak and was is not None and _names_anew(found, was, said):
        yield "name"
    if len(value) > 5 and any(day in said.days for day in _days(value)):  # noqa: PLR2004 -- the shortest date
        yield "date"
    if "@" in value and _MAIL.search(value):
        yield "address"


def _as_a_whole(found: tuple[str, ...], value: str, said: Said) -> Iterator[str]:
    """Yield the kinds of whole values in a text, and of words of scripts that write them together."""
    joined = " ".join(found)
    yield from (kind for phrase, kind in said.phrases.items() if phrase in joined)
    if not value.isascii():
        folded = fold(value)
        yield from (kind for word, kind in said.alone.items() if not word.isascii() and word in folded)


def _names_anew(found: tuple[str, ...], was: Spoken, said: Said) -> bool:
    """Return whether a word of radiology that is somebody's name stands more often than it stood as such a word.

    In "CT HEAD for HEAD, CORNELIUS" the first is a word, the second a name.
    """
    before = [word for value in was.values for word in words(value)]
    named = {i + shift for i, pair in enumerate(pairwise(before)) if pair in said.pairs for shift in (0, 1)}
    for word in said.weak.intersection(found):
        plain = sum(1 for i, other in enumerate(before) if other == word and i not in named)
        if word in before and found.count(word) > plain:
            return True
    return False


def _days(text: str) -> Iterator[str]:
    """Yield each day that a text may mean, as YYYYMMDD; days and months both ways round."""
    for match in _DAY.finditer(text):
        if match["y"]:
            yield f"{match['y']}{match['m']:0>2}{match['d']:0>2}"
        else:
            yield f"{match['z']}{match['b']:0>2}{match['a']:0>2}"
            yield f"{match['z']}{match['a']:0>2}{match['b']:0>2}"


def _in_bytes(output: memoryview, file: File, said: Said) -> Iterator[Hit]:
    """Yield what stands in any byte: private and unknown values, overlays, comments of compressed frames, preamble."""
    wanted = patterns({word: kind for word, kind in said.alone.items() if anywhere(word)}, said.raw)
    wanted += [
        Pattern(f"{one}{glue}{other}".encode(), "name", LETTERS)
        for one, other in said.pairs
        if (one in said.weak or other in said.weak) and one.isascii() and other.isascii()
        for glue in ("^", " ", ", ", "_")
    ]
    wanted += [Pattern(day.encode(), "date", frozenset(b"0123456789.")) for day in said.days]
    scanner = Scanner(wanted, said.uids)
    for found in scanner.find(output):
        keyword, vr = file.place(found.at)
        # Dates of attributes are judged as attributes: a moved date may be another's true one.
        if found.kind != "date" or vr not in ("DA", "DT", "TM", "SQ", "UI"):
            yield Hit(f"bytes of {keyword}", found.kind)
    start, stop = file.pixels
    for part in (output[:start], output[max(stop - _TAIL, start) :]):
        for other in rewritten(part[:_MAX_HEAD]):
            yield from (
                Hit("bytes, written otherwise", found.kind)
                for found in scanner.find(memoryview(other))
                if found.kind not in ("date", "uid")
            )
    for window in _hidden(output, file):
        yield from (
            Hit("bytes of a compressed stream", found.kind)
            for found in scanner.find(memoryview(window))
            if found.kind != "date"
        )


def _hidden(output: memoryview, file: File) -> Iterator[bytes]:
    """Yield what inflates: a deflated data set, and streams in documents and other bulk before the pixels."""
    if file.deflated:
        yield from reading.inflated(output, file.extents[-1].start)
        return
    for count, match in enumerate(_STREAM.finditer(output[: file.pixels[0]])):
        if count >= _MAX_STREAMS:
            return
        yield from reading.inflate(output[match.start() :], zlib.MAX_WBITS | 32)

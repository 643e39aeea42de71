"""One file looked through: its findings, what could not be looked into, and a coarse picture of telling pixels.

Values stay here: what is returned names kinds, rules, masked places and keyed digests.
"""

from __future__ import annotations

import hashlib
import re
import struct
import zlib
from dataclasses import dataclass, field, replace
from io import BytesIO
from typing import TYPE_CHECKING

from PIL import Image, ImageDraw

from site_node.deidentify import burned_in
from site_node.errors import UnreadableInstance
from site_node.second_look.folding import fold
from site_node.second_look.pixels import UNREADABLE
from site_node.stray.detection import VERSION, Detector, masked
from site_node.stray.dictionary import Dictionary
from site_node.stray.digests import Keyer
from site_node.stray.finding import Finding, Kind, risk_of
from site_node.stray.opening import look
from site_node.stray.pieces import DAMAGED, Budget, Here, LeftOut, Limits, Piece, Refused, View
from site_node.stray.texts import decoded, parted
from site_node.stray.time_limit import OutOfTime, limited

if TYPE_CHECKING:
    from collections.abc import Iterable

    from site_node.deidentify.burned_in import Text
    from site_node.stray.dictionary import Table
    from site_node.stray.finding import Match
    from site_node.stray.pieces import Part

MOST = 256  # findings of one file that are kept
TOO_LONG = "takes too long to look through"
_MAX_FAULTS = 64
_MAX_DISTINCT = 1 << 16  # findings that are held at once; one that is graver than all before is held always
# What a library raises for a file that it cannot follow.
_FAULTS = (*UNREADABLE, AssertionError, MemoryError, UnreadableInstance, struct.error, zlib.error)
_WORD = re.compile(r"[^\W_]+")
_SHORT = re.compile(r"(?<![\w ])\W*\b(ID|NAME)\b\s*[:.#]", re.IGNORECASE)
_APART = re.compile(r"[_.\-/\\+]")
_COARSE = 28  # blocks along the longer side of the picture that is kept: no letter and no face is left of it
_SHOWN = 280
_MIN_WORD, _MIN_NAME, _MIN_WITHIN, _MAX_WITHIN = 4, 2, 5, 99
_MAX_PLACE, _MAX_LABEL = 200, 200
_LINE = 0.6


@dataclass(frozen=True, slots=True)
class Settings:
    """What a process needs to look through files; `pictures` is `none`, `suspect` or `all`.

    A file is looked through for `most_s` seconds at most; if `deadly`, a process that cannot be stopped is ended.
    """

    key: bytes = field(repr=False)
    known: Table
    pictures: str = "suspect"
    limits: Limits = field(default_factory=Limits)
    most_s: float = 600.0
    deadly: bool = False

    @property
    def rule(self) -> str:
        """What a search by these rules, for these patients, is called; a file searched by another may hide more."""
        return f"{VERSION}.{self.known.digest}.{self.pictures}"


@dataclass(frozen=True, slots=True)
class Report:
    """What one file says of persons; `more` counts findings beyond those kept, `persons` known patients.

    `faults` are places that could not be looked into, `left_out` what nobody wanted to be looked into. `unread`: its
    bytes could not be had, and may be the next time.
    """

    shown: str
    findings: tuple[Finding, ...] = ()
    faults: tuple[tuple[str, str], ...] = ()
    more: int = 0
    persons: int = 0
    content: str = ""
    picture: bytes | None = None
    left_out: tuple[str, ...] = ()
    unread: bool = False


class Inspector:
    """Looks through files, one after the other."""

    def __init__(self, settings: Settings) -> None:
        self._settings = settings
        self._keyer = Keyer(settings.key)
        self._detector = Detector(Dictionary(self._keyer, settings.known))

    def inspect(self, content: memoryview, key: str, said: tuple[tuple[str, str], ...] = ()) -> Report:
        """Return what a file says of persons, its path included, and `said` of it beside: labels and texts."""
        return _Look(self._settings, self._keyer, self._detector).file(content, key, said)

    def shown(self, path: str) -> str:
        """Return a path, masked where it identifies."""
        return masked(path, self._detector.find(_APART.sub(" ", path)))


class _Look:
    """One pass over one file."""

    def __init__(self, settings: Settings, keyer: Keyer, detector: Detector) -> None:
        self._settings, self._keyer, self._detector = settings, keyer, detector
        self._first: dict[tuple[str, str, str], tuple[Match, tuple[str, ...]]] = {}
        self._count: dict[tuple[str, str, str], int] = {}
        self._words: set[str] = set()
        self._persons: set[int] = set()
        self._faults: dict[tuple[tuple[str, ...], str], None] = {}
        self._left_out: dict[str, None] = {}
        self._picture: bytes | None = None
        self._more = 0
        self._gravest = 0

    def file(self, content: memoryview, key: str, said: tuple[tuple[str, str], ...]) -> Report:
        self._take(Piece(("path",), _APART.sub(" ", key)))
        here = Here((), key.rpartition("/")[2], Budget(self._settings.limits), look, self._settings.pictures)
        try:
            with limited(self._settings.most_s, deadly=self._settings.deadly):
                self._parts((Piece(("metadata", label), text, label) for label, text in said), here)
                self._parts(look(content, here), here)
        except Refused as refusal:
            self._faults[(), str(refusal)] = None
        except OutOfTime:
            self._faults[(), TOO_LONG] = None
        except _FAULTS as error:
            self._faults[(), f"{DAMAGED} ({type(error).__name__})"] = None
        return self.report(content, key)

    def _parts(self, parts: Iterable[Part], here: Here) -> None:
        for part in parts:
            if isinstance(part, Piece):
                self._take(part)
                # What JSON, XML and tables hold in base64 is a file in a file.
                if raw := decoded(part.text):
                    at = replace(here, trail=part.trail)
                    self._parts(at.within("base64", raw), replace(at, depth=here.depth + 1))
            elif isinstance(part, View):
                self._see(part)
            elif isinstance(part, LeftOut):
                self._left_out[part.what] = None
            elif len(self._faults) < _MAX_FAULTS:
                self._faults[part.trail, part.reason] = None

    def _take(self, piece: Piece) -> list[Match]:
        label = piece.label[-_MAX_LABEL:]
        found = [match for part in parted(piece.text) for match in self._detector.find(part, label, piece.sort)]
        for match in found:
            if match.person:
                self._persons.add(match.person)
            key = (match.kind.value, match.rule, self._keyer.token(match.kind.value, match.value))
            risk = risk_of(match.kind, match.confidence)
            if key not in self._first and len(self._first) >= _MAX_DISTINCT and risk <= self._gravest:
                self._more += 1
                continue
            self._gravest = max(self._gravest, risk)
            self._count[key] = self._count.get(key, 0) + 1
            self._first.setdefault(key, (match, piece.trail))
            least = _MIN_NAME if match.kind in (Kind.NAME, Kind.STAFF) else _MIN_WORD
            self._words.update(word for word in _WORD.findall(fold(match.value)) if len(word) >= least)
        return found

    def _see(self, view: View) -> None:
        reader = burned_in.reader()
        texts = [text for text in reader.read(view.pixels, reader.find(view.pixels)) if text.words]
        telling = [text for text in texts if self._take(Piece(view.trail, _meant(text.words)))]
        # A name and its label, or its two parts, often stand in boxes of their own.
        for line in _lines(texts):
            if len(line) > 1 and self._take(Piece(view.trail, _meant(" ".join(text.words for text in line)))):
                telling += line
        if telling and self._picture is None:
            self._picture = _coarse(view, telling)

    def report(self, content: memoryview, key: str) -> Report:
        # The gravest, and of those alike the ones that stand first.
        found = sorted(
            self._first.items(),
            key=lambda one: (-risk_of(one[1][0].kind, one[1][0].confidence), -one[1][0].confidence, one[1][0].kind),
        )
        findings = tuple(
            Finding(match.kind, match.rule, match.confidence, self._place(trail), key[2], self._count[key])
            for key, (match, trail) in found[:MOST]
        )
        sha256 = hashlib.sha256(content).hexdigest() if found else ""
        return Report(
            self._hidden(masked(key, self._detector.find(_APART.sub(" ", key)))),
            findings,
            tuple((self._place(trail), reason) for trail, reason in self._faults),
            self._more + len(found) - len(findings),
            len(self._persons),
            self._keyer.token("content", sha256) if found else "",
            self._picture,
            tuple(self._left_out),
        )

    def _place(self, trail: tuple[str, ...]) -> str:
        """Return a place without anything that identifies, whoever named it."""
        steps = (self._hidden(masked(step, self._detector.find(_APART.sub(" ", step)))) for step in trail)
        return " > ".join(steps)[:_MAX_PLACE] or "file"

    def _hidden(self, text: str) -> str:
        """Return `text` without the words of any value that was found in the file."""
        if not self._words:
            return text
        return _WORD.sub(lambda match: "▒▒▒" if self._tells(fold(match[0])) else match[0], text)

    def _tells(self, word: str) -> bool:
        """Return whether a word is one of a value that was found, or has a longer one within: IM77304412, huberanna."""
        if word in self._words or len(word) > _MAX_WITHIN:
            return True
        parts = (word[i:j] for i in range(len(word)) for j in range(i + _MIN_WITHIN, len(word) + 1))
        return any(part in self._words for part in parts)


def _meant(words: str) -> str:
    """Return words of a picture with the short labels of machines written out: there an ID is a patient's."""
    return _SHORT.sub(r"Patient \1:", words)


def _lines(texts: list[Text]) -> list[list[Text]]:
    """Return texts that stand beside each other, from left to right."""
    lines: list[list[Text]] = []
    for text in sorted(texts, key=lambda one: (one.box.top, one.box.left)):
        for line in lines:
            last = line[-1].box
            height = min(last.bottom, text.box.bottom) - max(last.top, text.box.top)
            if height > _LINE * min(last.bottom - last.top, text.box.bottom - text.box.top):
                line.append(text)
                break
        else:
            lines.append([text])
    return [sorted(line, key=lambda one: one.box.left) for line in lines]


def _coarse(view: View, texts: list[Text]) -> bytes:
    """Return a picture of blocks with the places of text outlined: where it stands can be seen, not what it says."""
    image = Image.fromarray(view.pixels).convert("RGB")
    scale = _COARSE / max(image.size)
    small = image.resize(
        (max(1, round(image.width * scale)), max(1, round(image.height * scale))), Image.Resampling.BOX
    )
    factor = _SHOWN / max(image.size)
    shown = small.resize(
        (max(1, round(image.width * factor)), max(1, round(image.height * factor))), Image.Resampling.NEAREST
    )
    pen = ImageDraw.Draw(shown)
    for text in texts:
        box = text.box
        pen.rectangle(
            [round(edge * factor) for edge in (box.left, box.top, box.right, box.bottom)], outline=(213, 94, 0), width=2
        )
    out = BytesIO()
    shown.save(out, "png", optimize=True)
    return out.getvalue()

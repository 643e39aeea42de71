"""One instance, from the bytes that came in to the bytes that may stay: header, picture, document.

Joins the parts and decides little itself: profile.py says what an attribute becomes, pixels.py what of a picture has
to go, faces.py whether a head may be in view. Reads and writes no file.
"""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, replace
from io import BytesIO
from time import monotonic
from typing import TYPE_CHECKING

from pydicom import dcmread, uid

from site_node.deidentify import blanking, cda, document, faces, kinds, pixels, stream, tags, visible_light
from site_node.deidentify.burned_in import Reader
from site_node.deidentify.dates import Shift
from site_node.deidentify.headers import DOCUMENT_LEFT_OUT, declare, decoded, deidentify, original_date, patient_key
from site_node.deidentify.kinds import Kind
from site_node.deidentify.picture import picture, refusal
from site_node.deidentify.profile import Dates, Option, Profile
from site_node.deidentify.pseudonym import Known
from site_node.deidentify.stream import Element, Part10, Pixels, dictionary_vr, text
from site_node.deidentify.text import clean
from site_node.errors import UnreadableInstance

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from pydicom.dataset import Dataset

    from site_node.deidentify.blanking import Blanked
    from site_node.deidentify.headers import Cleaned
    from site_node.deidentify.identities import Identities
    from site_node.deidentify.picture import Box, Picture
    from site_node.deidentify.profile import Options
    from site_node.deidentify.pseudonym import Pseudonymiser

# A head in one section of a series: what becomes of it is decided when all sections are there.
FACE = "face-possible"
_SMALLEST_WITH_TEXT = 12  # pixels: two letters of five pixels, and what parts them
_MOST_LOOKED_AT = 32  # frames of a film in which faces are looked for
MAY_CARRY_TEXT = "may-carry-burned-in-text"
_FACES = "face-"  # how every reason that speaks of a face begins
_PIXEL_DATA = (0x7FE00010, 0x7FE00008, 0x7FE00009)
_MODALITY = 0x00080060
_REFERENCED_SERIES = 0x00081115
_DOCUMENT_LENGTH = 0x00420015
_NO = "NO"
PIPELINE = "1"  # the version of what this package does with an instance; raised with every change of it


@dataclass(frozen=True, slots=True)
class Decision:
    """What a person, or the look at a whole series, decided about an instance.

    `boxes` are blanked on every frame in place of the proposed ones; `faces` are blanked besides, frame by frame;
    `accept` are the reasons that no longer hold the instance; `claim` is what may be said of recognisable features.
    """

    boxes: tuple[Box, ...] | None = None
    faces: Mapping[int, tuple[Box, ...]] | None = None
    accept: frozenset[str] = frozenset()
    claim: str | None = None

    def clears(self, reason: str) -> bool:
        """Return whether `reason` no longer holds the instance; one of a face stands for all of a face."""
        return reason in self.accept or (reason == FACE and any(each.startswith(_FACES) for each in self.accept))


@dataclass(frozen=True, slots=True)
class About:
    """What an instance is called from now on: pseudonyms and the modality."""

    patient: str
    StudyInstanceUID: str
    SeriesInstanceUID: str
    SOPInstanceUID: str
    SOPClassUID: str
    Modality: str


@dataclass(frozen=True, slots=True)
class Accepted:
    """The de-identified file; `chunks` are read once, and may raise UnreadableInstance."""

    chunks: Iterator[bytes | memoryview]
    about: About
    study_date: str | None  # the true one, ISO
    references_series: str | None
    originals: tuple[Known, ...]
    boxes: tuple[Box, ...]  # blanked on some frame
    may_show_text: bool
    notes: tuple[str, ...]  # what else was done, and what text stays by policy; never a value


@dataclass(frozen=True, slots=True)
class Held:
    """A person has to look first; `boxes` are those proposed to be blanked."""

    reason: str
    about: About
    boxes: tuple[Box, ...] = ()


@dataclass(frozen=True, slots=True)
class _Text:
    """What a picture says: to be blanked, to be seen by a person first, kept by policy; and whether to look again."""

    boxes: tuple[Box, ...] = ()
    doubtful: tuple[Box, ...] = ()
    notes: tuple[str, ...] = ()
    look_again: bool = False


class Cleaner:
    """De-identifies one instance after the other; the models are loaded once, with the first picture."""

    def __init__(self, options: Options, pseudonymiser: Pseudonymiser) -> None:
        self._profile = Profile.of(options)
        self._pseudonymiser = pseudonymiser
        self._reader: Reader | None = None

    def clean(self, content: memoryview, decision: Decision) -> Accepted | Held:
        """Return the instance de-identified, or why a person has to look first.

        Raises: UnreadableInstance with a reason that names attributes, never values.
        Source: PS3.15 Annex E.
        """
        source = stream.read(content)
        cleaned = deidentify(source, self._profile, self._pseudonymiser)
        about = _about(cleaned.part10)
        if DOCUMENT_LEFT_OUT in cleaned.notes:
            return self._document(source, cleaned, about, decision)
        element = pixel_element(source)
        if element is None:
            return self._accepted(source, cleaned.part10, about)
        if (unseen := refusal(source.transfer_syntax)) is not None:
            # A person who accepts it has seen it by other means.
            return self._accepted(source, cleaned.part10, about) if decision.clears(unseen) else Held(unseen, about)
        shown, ds = pixels_of(source)
        text = self._text(ds, shown, cleaned, decision)
        if text.doubtful and not decision.clears(pixels.BURNED_IN_DOUBTFUL):
            return Held(pixels.BURNED_IN_DOUBTFUL, about, (*text.boxes, *text.doubtful))
        if (reason := self._objection(ds, shown)) is not None and not decision.clears(reason):
            return Held(reason, about, text.boxes)
        part10 = self._declared(cleaned.part10, ds, decision)
        accepted = self._painted(source, part10, about, shown, element, text, decision)
        return replace(accepted, notes=(*sorted(cleaned.notes), *text.notes, *accepted.notes))

    def _document(self, source: Part10, cleaned: Cleaned, about: About, decision: Decision) -> Accepted | Held:
        """Return an encapsulated document rebuilt from what may be kept. Source: PS3.3 A.45, A.85."""
        element = source.elements[tags.DOCUMENT]
        data = b"" if isinstance(element.value, list) else bytes(element.value)
        rebuilt = document.rebuild(
            about.SOPClassUID,
            data,
            self._document_tools(source, cleaned.identities),
            may_show_head=faces.may_show_face(header(source)),
        )
        if isinstance(rebuilt, document.Held) and not decision.clears(rebuilt.reason):
            return Held(rebuilt.reason, about)
        kept = data if isinstance(rebuilt, document.Held) else rebuilt.data
        length = len(kept).to_bytes(4, "big" if cleaned.part10.big_endian else "little")
        new = (Element(tags.DOCUMENT, "OB", kept), Element(_DOCUMENT_LENGTH, "UL", length))
        elements = cleaned.part10.elements | {each.tag: each for each in new}
        part10 = replace(cleaned.part10, elements=dict(sorted(elements.items())))
        pages = about.SOPClassUID == uid.EncapsulatedPDFStorage and isinstance(rebuilt, document.Rebuilt)
        if pages and Option.CLEAN_PIXEL_DATA in self._profile.chosen:
            part10 = declare(part10, done={Option.CLEAN_PIXEL_DATA}, burned_in=False, recognizable=None)
        return self._accepted(source, part10, about, may_show_text=pages)

    def _document_tools(self, source: Part10, identities: Identities) -> document.Tools:
        shift, pseudonymiser = Shift.of(self._pseudonymiser, patient_key(source)), self._pseudonymiser
        moves = self._profile.options.dates is Dates.MODIFIED
        return document.Tools(
            blank_page=lambda view, words: pixels.blank_page(view, words, identities, self._sight()),
            text=cda.Tools(
                clean=lambda text: clean(text, identities),
                date=lambda moment: (shift.moment(moment) or "") if moves else "",
                uid=pseudonymiser.uid,
            ),
            now=monotonic,
        )

    def _sight(self) -> Reader:
        if self._reader is None:
            self._reader = Reader()
        return self._reader

    def _objection(self, ds: Dataset, shown: Picture) -> str | None:
        """Return why the picture may not be used as it is, under these options."""
        if Option.CLEAN_PIXEL_DATA not in self._profile.chosen and kinds.may_carry_text(ds):
            return MAY_CARRY_TEXT
        photograph = visible_light.screen(ds)
        if isinstance(photograph, visible_light.Held) and photograph.reason != visible_light.NOT_A_PHOTOGRAPH:
            return photograph.reason
        if isinstance(photograph, visible_light.Clear) and photograph.look and _faces(shown):
            return visible_light.FACE
        return FACE if kinds.kind(ds) is Kind.SECTION and faces.may_show_face(ds) else None

    def _text(self, ds: Dataset, shown: Picture, cleaned: Cleaned, decision: Decision) -> _Text:
        """Return what the picture says; a person's boxes go before what is found."""
        may_carry = kinds.may_carry_text(ds)
        if decision.boxes is not None:
            return _Text(decision.boxes, look_again=may_carry or bool(decision.boxes))
        if Option.CLEAN_PIXEL_DATA not in self._profile.chosen or not _can_show_text(ds, shown):
            return _Text()
        found = pixels.assess(ds, shown, cleaned.identities, self._sight())
        sorts = Counter(one.sort.value for one in found.kept)
        notes = tuple(f"text-kept: {count} {sort}" for sort, count in sorted(sorts.items()))
        return _Text(found.boxes, found.doubtful, notes, may_carry or bool(found.blanks or found.kept))

    def _declared(self, part10: Part10, ds: Dataset, decision: Decision) -> Part10:
        """Return `part10` saying what was done to its pixels, and no more."""
        if kinds.kind(ds) is Kind.LABELS:
            return part10  # nobody looked for text or faces in it
        done = self._profile.chosen & {Option.CLEAN_PIXEL_DATA}
        claim = decision.claim or faces.claim(ds)
        if claim == _NO:
            done |= self._profile.chosen & {Option.CLEAN_RECOGNIZABLE_VISUAL_FEATURES}
        return declare(
            part10,
            done=done,
            burned_in=False if Option.CLEAN_PIXEL_DATA in done else None,
            recognizable=None if claim is None else claim != _NO,
        )

    def _painted(
        self,
        source: Part10,
        part10: Part10,
        about: About,
        shown: Picture,
        element: Element,
        text: _Text,
        decision: Decision,
    ) -> Accepted:
        """Return the file with text and faces blanked; without any, with the pixels as they lie."""
        per_frame = {index: (*text.boxes, *(decision.faces or {}).get(index, ())) for index in range(shown.frames)}
        touched = {index: some for index, some in per_frame.items() if some}
        made = blanking.blank(shown, touched) if touched else blanking.strip(shown)
        if made is None:
            return self._accepted(source, part10, about, boxes=text.boxes, may_show_text=text.look_again)
        streamed = Pixels(element.tag, made.vr or element.vr, made.length, made.chunks)
        changed = _changed(part10, made)
        return self._accepted(
            source, changed, about, streamed, boxes=text.boxes, may_show_text=text.look_again, notes=made.notes
        )

    def _accepted(
        self,
        source: Part10,
        part10: Part10,
        about: About,
        streamed: Pixels | None = None,
        *,
        boxes: tuple[Box, ...] = (),
        may_show_text: bool = False,
        notes: tuple[str, ...] = (),
    ) -> Accepted:
        return Accepted(
            chunks=stream.write(part10, streamed),
            about=about,
            study_date=original_date(source),
            references_series=_referenced_series(part10),
            originals=tuple(_originals(source, about)),
            boxes=boxes,
            may_show_text=may_show_text,
            notes=notes,
        )


def _can_show_text(ds: Dataset, shown: Picture) -> bool:
    return kinds.kind(ds) is not Kind.LABELS and min(shown.rows, shown.columns) >= _SMALLEST_WITH_TEXT


def _faces(shown: Picture) -> bool:
    """Return whether a face is found on any frame; of a film, on some spread over it."""
    step = max(1, shown.frames // _MOST_LOOKED_AT)
    return any(visible_light.faces(shown.view(index)) for index in range(0, shown.frames, step))


def header(source: Part10) -> Dataset:
    """Return the data set without pixels, as pydicom reads it; nothing is decoded yet."""
    kept = {tag: element for tag, element in source.elements.items() if tag not in tags.PIXELS}
    return dcmread(BytesIO(b"".join(stream.write(replace(source, elements=kept)))), force=True)


def pixel_element(source: Part10) -> Element | None:
    """Return the element of the pixels, if there is one. Source: PS3.3 C.7.6.3, C.7.6.24, C.7.6.25."""
    return next((source.elements[tag] for tag in _PIXEL_DATA if tag in source.elements), None)


def pixels_of(source: Part10) -> tuple[Picture, Dataset]:
    """Return the pixels of a file and its header.

    Raises: UnreadableInstance naming the attribute.
    """
    element, ds = pixel_element(source), header(source)
    if element is None or isinstance(element.value, list):
        raise UnreadableInstance("PixelData: absent")
    stored = memoryview(element.value)
    return picture(ds, stored, transfer_syntax=source.transfer_syntax, words=element.vr == "OW"), ds


def _about(part10: Part10) -> About:
    """Return the names of a de-identified file."""
    ds = part10.elements
    names = (tags.PATIENT_ID, tags.STUDY, tags.SERIES, tags.SOP_INSTANCE, tags.SOP_CLASS, _MODALITY)
    return About(*(text(ds, tag) for tag in names))


def _originals(source: Part10, about: About) -> Iterator[Known]:
    """Yield who stands behind the pseudonyms of a file."""
    ds = source.elements
    rows = (
        ("patient", about.patient, decoded(ds, tags.PATIENT_ID)),
        ("study", about.StudyInstanceUID, text(ds, tags.STUDY)),
        ("series", about.SeriesInstanceUID, text(ds, tags.SERIES)),
        ("instance", about.SOPInstanceUID, text(ds, tags.SOP_INSTANCE)),
    )
    yield from (Known(*row) for row in rows if row[1] and row[2])


def _referenced_series(part10: Part10) -> str | None:
    """Return the one series that a segmentation labels (PS3.3 C.8.20.2), or None."""
    element = part10.elements.get(_REFERENCED_SERIES)
    if text(part10.elements, _MODALITY) != "SEG" or element is None or not isinstance(element.value, list):
        return None
    series = [text(item, tags.SERIES) for item in element.value]
    return series[0] if len(series) == 1 else None


def _changed(part10: Part10, made: Blanked) -> Part10:
    """Return `part10` with what its new pixels ask of the header."""
    elements, meta = dict(part10.elements), dict(part10.meta)
    for tag, value in made.changes.items():
        if value is None:
            elements.pop(tag, None)
        elif tag != tags.META_SYNTAX:
            vr = dictionary_vr(tag)
            raw = (
                value.to_bytes(2, "big" if part10.big_endian else "little")
                if isinstance(value, int)
                else value.encode()
            )
            elements[tag] = Element(tag, vr, raw)
    meta[tags.META_SYNTAX] = Element(tags.META_SYNTAX, "UI", made.transfer_syntax.encode())
    return replace(part10, elements=dict(sorted(elements.items())), meta=meta, transfer_syntax=made.transfer_syntax)

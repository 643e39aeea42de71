"""Plant identities in every base, write the files, and keep the answer key."""

from __future__ import annotations

import base64
import io
import warnings
from typing import TYPE_CHECKING

import numpy as np
from pydicom._dicom_dict import DicomDictionary
from pydicom.datadict import dictionary_VR, tag_for_keyword
from pydicom.dataelem import DataElement, RawDataElement
from pydicom.dataset import Dataset
from pydicom.multival import MultiValue
from pydicom.tag import Tag
from pydicom.uid import UID, ExplicitVRBigEndian, ImplicitVRLittleEndian

from tests.planted import burned, codestreams, documents
from tests.planted.bases import BASES, Base
from tests.planted.broken import write_broken
from tests.planted.key import Burned, FileKey, Planted, save, walk
from tests.planted.people import HARMLESS, Inventor, Person, Said, ascii_fold
from tests.planted.places import NESTED, TOP

if TYPE_CHECKING:
    from collections.abc import Collection
    from pathlib import Path

    from pydicom.tag import BaseTag

PATIENTS = 14
SHARE = 0.75  # of the places, in each file
TEXT_VRS = frozenset(
    ("PN", "LO", "SH", "LT", "ST", "UT", "UC", "AE", "UR", "CS", "AS", "DA", "TM", "DT", "UI", "IS", "DS", "OB", "UN")
)
LIMITS = {"SH": 16, "CS": 16, "AE": 16, "IS": 12, "DS": 16, "AS": 4}
# What a file needs to be read as what it is, and what says how its numbers are read.
FRAME = frozenset((
    "SpecificCharacterSet", "SOPClassUID", "SOPInstanceUID", "StudyInstanceUID", "SeriesInstanceUID", "Modality",
    "PatientName", "PatientID", "PatientBirthDate", "PixelData", "PhotometricInterpretation", "NumberOfFrames",
    "ImageType", "TimezoneOffsetFromUTC", "TransferSyntaxUID", "DigitalSignaturesSequence", "SmallestValidPixelValue",
    "LossyImageCompression", "PixelDataProviderURL", "EncapsulatedDocument", "MIMETypeOfEncapsulatedDocument",
    "PatientAge", "CodingSchemeDesignator", "CodeValue", "BurnedInAnnotation", "ConversionType", "ValueType",
))  # fmt: skip
# Images that text is drawn into.
BURNED = frozenset(("us-rgb", "sc-screen", "xa", "dx", "cr", "mg"))
PRIVATE = (
    ("SIEMENS MR HEADER", 0x0019, 0x0C, "IS", "1000"),
    ("Philips Imaging DD 001", 0x2001, 0x03, "FL", 700.0),
    ("GEMS_PARM_01", 0x0043, 0x27, "SH", "/1.5"),
)
MAKERS = {"coded": "number", "machine_basic": "number"}
SYLLABLES = (
    "bra",
    "kov",
    "el",
    "tun",
    "mar",
    "dis",
    "gor",
    "vin",
    "ska",
    "pol",
    "ren",
    "zub",
    "hol",
    "fen",
    "qui",
    "lan",
    "dro",
    "mir",
    "tas",
    "yev",
)


class Planter:
    """Plants in one file and writes down what it did."""

    def __init__(self, ds: Dataset, base: Base, person: Person, inventor: Inventor) -> None:
        self.ds, self.base, self.person, self.invent = ds, base, person, inventor
        self.key = FileKey(f"{base.name}.dcm", base.name, bool(base.flood), str(person.charset))
        self.meta: list[Said] = []

    def note(self, place: str, said: Said, at: str = "") -> None:
        """Write down that `said` stands at `place`."""
        if said.whole and len(said.tokens) > 1:
            family, given = said.tokens[:2]
            forms = tuple(
                glue.join(pair)
                for pair in ((family, given), (given, family))
                for glue in ("^", " ", ", ", "_", "-", ".")
            )
            self.key.planted.append(Planted(place, said.kind, (*forms, *said.tokens[2:], given), said.tokens, at))
        elif said.whole:
            # A word alone says nothing where it does not stand for the person.
            self.key.planted.append(Planted(place, said.kind, said.tokens[1:], said.tokens, at))
        else:
            self.key.planted.append(Planted(place, said.kind, said.tokens, said.tokens if at else (), at))

    def say(self, kind: str) -> Said:
        """Return something said, of a kind in places.py."""
        made = getattr(self.invent, MAKERS.get(kind, kind))()
        if not isinstance(made, Said):
            raise TypeError(kind)
        return made

    def put(self, ds: Dataset, keyword: str, kind: str, path: str = "") -> None:
        """Set an attribute to something said, where the dictionary knows the attribute and its value can be text."""
        tag = tag_for_keyword(keyword)
        if tag is None or (keyword in FRAME and not path):
            return
        vr = dictionary_VR(tag)
        said = self.say(kind)
        if vr == "SQ":
            return
        if vr.startswith("O") or vr == "UN":
            data = said.text.encode().ljust(64)
            ds[tag] = DataElement(tag, "OW" if vr == "OB or OW" else vr, data)
        else:
            text = said.text[: LIMITS.get(vr, 10000)]
            if not all(token.lower() in text.lower() for token in said.tokens):
                said = self.invent.number() if vr not in ("DA", "TM", "DT", "UI") else said
                text = said.text[:16]
            ds[tag] = DataElement(tag, vr, text)
        self.note(f"{path}{keyword}", said, f"{self._at(path)}{int(tag):08X}" if not path else "")

    @staticmethod
    def _at(path: str) -> str:
        return path

    def patient(self) -> None:
        """Say who the patient is, as the modules of patient and study do."""
        ds, person = self.ds, self.person
        if self.base.name == "dicomdir":
            return
        if person.charset:
            ds.SpecificCharacterSet = person.charset
        elif "SpecificCharacterSet" in ds:
            del ds.SpecificCharacterSet
        ds.PatientName, ds.PatientID, ds.PatientBirthDate = person.pn, person.patient_id, person.birth_date
        ds.PatientAge = "094Y"
        self.note("PatientName", person.said(person.pn.split("=")[0]), "00100010")
        for script in person.scripts:
            self.note("PatientName in its script", Said(script, (script,)))
        self.note("PatientID", Said(person.patient_id, (person.patient_id,)), "00100020")
        self.note("PatientBirthDate", Said(person.birth_date, (person.birth_date,), "date"), "00100030")
        self.key.planted.append(Planted("PatientAge over 89", "basic", (), ("094Y",), "00101010"))

    def families(self) -> None:
        """Plant the attributes of each family, and of the sequences."""
        rng = self.invent.rng
        for kind, keywords in TOP.items():
            for keyword in keywords:
                if rng.random() < SHARE:
                    self.put(self.ds, keyword, kind)
        for path, contents in NESTED:
            if rng.random() < SHARE and (path[0] != "DirectoryRecordSequence" or self.base.name == "dicomdir"):
                self._nested(path, contents)

    def _nested(self, path: tuple[str, ...], contents: dict[str, str]) -> None:
        ds = self.ds
        for keyword in path:
            if tag_for_keyword(keyword) is None:
                return
            if not ds.get(keyword):
                setattr(ds, keyword, [Dataset()])
            ds = ds[keyword].value[-1]
        for keyword, kind in contents.items():
            self.put(ds, keyword, kind, ".".join(path) + ".")

    def descriptors(self) -> None:
        """Say the patient's name, number or a date amid words that must be kept; and such words alone."""
        person, rng = self.person, self.invent.rng
        name = (ascii_fold(person.given), ascii_fold(person.family))
        if not all(name) or not person.charset or person.charset in ("ISO_IR 144", "ISO_IR 192"):
            name = (person.given, person.family)
        given, family = name
        spoken = Person(family, given, person.pn, person.charset, (), person.patient_id, person.birth_date, person.word)
        day = self.invent.day().text
        says = {
            "StudyDescription": f"{{}} for {given.upper()} {family.upper()}",
            "SeriesDescription": f"{{}} {person.patient_id}",
            "ProtocolName": f"{{}} {family}, {given}",
            "ImageComments": f"{{}} of Mr. {family} on {day[:4]}-{day[4:6]}-{day[6:]}",
            "RequestedProcedureDescription": f"{{}} [{family}^{given}]",
        }
        order = rng.permutation(len(HARMLESS))
        for index, (keyword, form) in enumerate(says.items()):
            text, words = HARMLESS[int(order[index])]
            if any(word.lower() in (family.lower(), given.lower()) for word in text.split()):
                text, words = HARMLESS[4]
            tag = Tag(tag_for_keyword(keyword) or 0)
            whole = form.format(text)[:64] if dictionary_VR(tag) == "LO" else form.format(text)
            self.ds[tag] = DataElement(tag, dictionary_VR(tag), whole)
            self.forget(f"{int(tag):08X}")
            said = spoken.said(whole)
            tokens = (*said.tokens, *([person.patient_id] if person.patient_id in whole else []))
            self.note(f"{keyword} amid words", Said(whole, tokens, whole=person.word), f"{int(tag):08X}")
            if keyword == "ImageComments":
                self.key.planted.append(Planted("a date in a comment", "basic", (f"{day[:4]}-{day[4:6]}-{day[6:]}",)))
            self.key.harmless.append((f"{int(tag):08X}", words))
        text, words = HARMLESS[int(order[6])]
        if not any(word.lower() in (family.lower(), given.lower()) for word in text.split()):
            self.ds.PerformedProcedureStepDescription = text
            self.forget("00400254")
            self.key.harmless.append(("00400254", words))
        study = str(self.ds.get("StudyInstanceUID", "") or self.invent.uid().text)
        self.ds.StudyComments = f"from {study}"
        self.forget("00324000")
        self.note("a UID in a comment", Said(study, (study,), "uid"))

    def forget(self, at: str) -> None:
        """Take back what was planted at a path that is written over."""
        self.key.planted = [one for one in self.key.planted if one.at != at]

    def uids(self, study: str, series: str, instance: str) -> None:
        """Give the instance its identity."""
        self.ds.StudyInstanceUID, self.ds.SeriesInstanceUID, self.ds.SOPInstanceUID = study, series, instance
        self.ds.file_meta.MediaStorageSOPInstanceUID = UID(instance)
        if "SOPClassUID" in self.ds:
            self.ds.file_meta.MediaStorageSOPClassUID = self.ds.SOPClassUID

    def private(self) -> None:
        """Plant private blocks at the top and at depth, and private values that the standard calls safe."""
        ds = self.ds
        for creator in ("ACME PRIVATE 1", self.invent.label().text):
            said, name, more = self.invent.label(), self.invent.stranger(), self.invent.number()
            block = ds.private_block(0x0071, creator, create=True)
            block.add_new(0x01, "LO", said.text)
            block.add_new(0x02, "PN", name.text)
            block.add_new(0x03, "UN", more.text.encode().ljust(20))
            item = Dataset()
            deep = item.private_block(0x0071, creator, create=True)
            nested = self.invent.label()
            deep.add_new(0x01, "LT", nested.text)
            item.PatientName = self.invent.stranger().text
            self.note("a name in a private sequence", Said("", (str(item.PatientName).split("^")[0],)))
            block.add_new(0x04, "SQ", [item])
            for place, one in (
                ("private text", said),
                ("private name", name),
                ("private unknown", more),
                ("private at depth", nested),
            ):
                self.note(place, one)
        if ds.get("ContributingEquipmentSequence"):
            said = self.invent.label()
            ds.ContributingEquipmentSequence[0].private_block(0x0073, "ACME PRIVATE 2", create=True).add_new(
                0x01, "SH", said.text[:16]
            )
            if all(token.lower() in said.text[:16].lower() for token in said.tokens):
                self.note("private in a public sequence", said)
        for creator, group, low, vr, value in PRIVATE:
            ds.private_block(group, creator, create=True).add_new(low, vr, value)
            self.key.private_kept.append((group, low, creator))
        said = self.invent.label()
        ds.private_block(0x0019, "SIEMENS MR HEADER").add_new(0x09, "LO", said.text)
        self.note("private, creator known, element not", said)

    def unknown(self) -> None:
        """Plant public elements that no dictionary lists, and text in overlays, curves and padding."""
        ds = self.ds
        for tag, vr in ((0x00081FF1, "LO"), (0x00211FF0, "UN"), (0x40101FF2, "ST")):
            said = self.invent.label()
            ds[tag] = DataElement(tag, vr, said.text.encode().ljust(32) if vr == "UN" else said.text)
            self.note(f"an unknown public {vr}", said)
        sequence = self.invent.stranger()
        item = Dataset()
        item.PatientName = sequence.text
        ds[0x00081FF4] = DataElement(0x00081FF4, "SQ", [item])
        self.note("a name in an unknown public sequence", sequence)
        for group in (0x6002, 0x6004):
            self._overlay(group)
        self._curve()
        padding = self.invent.comment()
        ds[0xFFFCFFFC] = DataElement(
            0xFFFCFFFC, "OB", padding.text.encode().ljust(len(padding.text) + len(padding.text) % 2)
        )
        self.note("trailing padding", padding)

    def _overlay(self, group: int) -> None:
        ds, label = self.ds, self.invent.label()
        data = self.invent.comment()
        elements = (
            (0x10, "US", 16), (0x11, "US", 128), (0x22, "LO", label.text), (0x40, "CS", "G"), (0x50, "SS", [1, 1]),
            (0x100, "US", 1), (0x102, "US", 0), (0x1500, "LO", label.text),
            (0x3000, "OW", data.text.encode()[:256].ljust(256)),
        )  # fmt: skip
        for element, vr, value in elements:
            tag = Tag(group, element)
            ds[tag] = DataElement(tag, vr, value)
        self.note("overlay description and label", label)
        self.note("overlay data", data)

    def _curve(self) -> None:
        ds, label, data = self.ds, self.invent.label(), self.invent.comment()
        for element, vr, value in (
            (0x05, "US", 1), (0x10, "US", 10), (0x20, "CS", "TAC"), (0x22, "LO", label.text), (0x103, "US", 0),
            (0x2500, "LO", label.text), (0x3000, "OW", data.text.encode()[:256].ljust(256)),
        ):  # fmt: skip
            tag = Tag(0x5000, element)
            ds[tag] = DataElement(tag, vr, value)
        self.note("curve label", label)
        self.note("curve data", data)

    def abused(self) -> None:
        """Write names into fields of codes, numbers and ages."""
        ds = self.ds
        for keyword in (
            "ScanOptions",
            "Exposure",
            "PatientSize",
            "PatientWeight",
            "NumberOfAverages",
            "PatientSex",
            "AnatomicalOrientationType",
        ):
            tag = Tag(tag_for_keyword(keyword) or 0)
            if tag in ds and self.invent.rng.random() < 0.5:
                continue
            family, _ = self.invent.name()
            text = family.upper()[:12]
            raw = text.encode().ljust(len(text) + len(text) % 2)
            vr = dictionary_VR(tag)
            syntax = ds.file_meta.TransferSyntaxUID
            implicit, little = syntax == ImplicitVRLittleEndian, syntax != ExplicitVRBigEndian
            ds[tag] = RawDataElement(tag, None if implicit else vr, len(raw), raw, 0, implicit, little)
            self.forget(f"{int(tag):08X}")
            self.note(f"a name in {vr} {keyword}", Said(text, (text,)))

    def group2(self) -> None:
        """Plant what file meta information can say."""
        meta = self.ds.file_meta
        for keyword in (
            "SourceApplicationEntityTitle",
            "SendingApplicationEntityTitle",
            "ReceivingApplicationEntityTitle",
        ):
            said = self.invent.title()
            setattr(meta, keyword, said.text)
            self.note(f"group 2 {keyword}", said)
        said = self.invent.link()
        meta.SourcePresentationAddress = said.text
        self.note("group 2 SourcePresentationAddress", said)
        said, uid = self.invent.comment(), self.invent.uid()
        meta.PrivateInformationCreatorUID = UID(uid.text)
        meta.PrivateInformation = said.text.encode().ljust(len(said.text) + len(said.text) % 2)
        self.note("group 2 private information", said)
        self.note("group 2 PrivateInformationCreatorUID", uid)

    def pixels(self) -> None:
        """Put text behind the pixels, or into comments of compressed frames."""
        ds = self.ds
        if "PixelData" not in ds:
            return
        behind, application = self.invent.comment(), self.invent.comment()
        if ds.file_meta.TransferSyntaxUID.is_encapsulated:
            how = codestreams.comment(ds, behind.text, application.text)
            if how == "jpeg-com":
                self.note("JPEG application data", application)
            self.note(f"compressed frame: {how}", behind)
        else:
            ds.PixelData += behind.text.encode().ljust(len(behind.text) + len(behind.text) % 2)
            self.note("behind the pixels", behind)

    def burn(self) -> None:
        """Draw text into pixels that are stored as they are: in every frame, or in one of a cine."""
        ds = self.ds
        if self.base.name not in BURNED:
            return
        depth = int(ds.BitsAllocated)
        stored = ds.pixel_array.copy()
        many = int(ds.get("NumberOfFrames") or 1) > 1
        frames = stored if many else stored[None]
        only = 1 if many else None
        seen = (frames[only or 0] >> (0 if depth == 8 else int(ds.BitsStored) - 8)).astype(np.uint8)
        shown, drawn = burned.plant(seen, self.invent.rng)
        changed = shown != seen
        frames[only or 0][changed] = shown[changed].astype(stored.dtype) << (
            0 if depth == 8 else int(ds.BitsStored) - 8
        )
        ds.PixelData = stored.tobytes()
        for one in drawn:
            ink = base64.b64encode(np.packbits(one.letters > 0).tobytes()).decode()
            identifying = one.kind == burned.IDENTITY
            self.key.burned.append(Burned(*one.box, one.words, identifying, ink, only))

    def document(self) -> None:
        """Write encapsulated documents that say the patient's name."""
        one, two, number = self.invent.name(), self.invent.name(), self.invent.digits(8)
        if self.base.name == "pdf":
            self.ds.EncapsulatedDocument = documents.pdf(
                [f"Patient {one[1]} {one[0]}", f"Chart {number}", "CT HEAD without contrast"], two[0]
            )
            self.note("PDF page", Said("", (one[0], number)))
            self.note("PDF author", Said("", (two[0],)))
        if self.base.name == "cda":
            self.ds.EncapsulatedDocument = documents.cda(
                *one, number, f"Seen by {two[1]} {two[0]}", "CT HEAD without contrast"
            )
            self.note("CDA patient", Said("", (one[0], number)))
            self.note("CDA text", Said("", (two[0],)))
        data = self.ds.get("EncapsulatedDocument")
        if data is not None:
            self.ds.EncapsulatedDocument = data + b"\0" * (len(data) % 2)
            self.ds.EncapsulatedDocumentLength = len(data)

    def flood(self) -> None:
        """Say something in every attribute of the dictionary that can hold text, and in an item of every sequence."""
        for number, entry in DicomDictionary.items():
            vr, keyword, tag = entry[0], entry[4], Tag(number)
            if (
                not keyword
                or keyword in FRAME
                or tag in self.ds
                or tag.group in (0, 2, 4)
                or tag.element == 0
                or tag.group == 0xFFFE
            ):
                continue
            if vr == "SQ":
                self._flood_item(tag, keyword)
            elif vr in TEXT_VRS:
                self._flood_value(tag, vr, keyword)

    def _flood_value(self, tag: BaseTag, vr: str, keyword: str) -> None:
        said = {"DA": self.invent.day, "TM": self.invent.time, "DT": self.invent.moment, "UI": self.invent.uid}.get(
            vr, self._flood_said
        )()
        if vr == "AS":
            return
        text = said.text.upper() if vr in ("CS", "IS", "DS") else said.text
        raw = text[: LIMITS.get(vr, 1000)].encode()
        raw = raw.ljust(len(raw) + len(raw) % 2, b"\0" if vr == "UI" else b" ")
        tokens = tuple(token for token in said.tokens if token.lower().encode() in raw.lower())
        if tokens:
            self.ds[tag] = RawDataElement(tag, vr, len(raw), raw, 0, False, True)  # noqa: FBT003 -- pydicom takes them by position
            self.note(f"flood {vr} {keyword}", Said(text, tokens, said.kind))

    def _flood_item(self, tag: BaseTag, keyword: str) -> None:
        item = Dataset()
        name, meaning, text = (self._flood_said() for _ in range(3))
        item.PersonName, item.CodeMeaning, item.TextValue = name.text, meaning.text, text.text
        self.ds[tag] = DataElement(tag, "SQ", [item])
        for what, said in (("PersonName", name), ("CodeMeaning", meaning), ("TextValue", text)):
            self.note(f"flood {keyword}.{what}", said)

    def _flood_said(self) -> Said:
        if self.base.flood == "patient" and self.person.charset in ("", "ISO_IR 100"):
            given, family = self.person.given, self.person.family
            forms = (f"{given} {family}", f"{family}^{given}", f"{family}, {given}")
            return self.person.said(forms[int(self.invent.rng.integers(3))])
        while True:
            token = "".join(SYLLABLES[int(i)] for i in self.invent.rng.integers(0, len(SYLLABLES), 4))
            if token not in self.invent.used:
                self.invent.used.add(token)
                return Said(token.capitalize(), (token,))

    def automatic(self) -> None:
        """Write down every UID and date that the file says beyond what was planted."""
        known = {one for planted in self.key.planted for one in planted.bytes_of}
        for path, element in list(walk(self.ds)):
            if element.VR not in ("UI", "DA", "DT") or not element.value:
                continue
            for value in element.value if isinstance(element.value, MultiValue) else [element.value]:
                text = str(value).strip()
                if element.VR == "UI" and (text.startswith("1.2.840.10008.") or len(text) < 12):
                    continue
                token = text if element.VR == "UI" else text[:8]
                if token not in known and len(token) >= 8:
                    known.add(token)
                    kind = "uid" if element.VR == "UI" else "date"
                    self.key.planted.append(
                        Planted(
                            f"{'private ' if int(path[-8:][:4], 16) % 2 else ''}{element.keyword or path[-8:]}",
                            kind,
                            (token,),
                        )
                    )


def generate(folder: Path, seed: int, only: Collection[str] = ()) -> list[FileKey]:
    """Write the corpus and its key into `folder`, or those files of it; the same seed writes the same."""
    rng = np.random.default_rng(seed)
    inventor = Inventor(seed, rng)
    people = inventor.people(PATIENTS)
    files = folder / "files"
    files.mkdir(parents=True, exist_ok=True)
    keys = []
    studies = {person.patient_id: inventor.uid().text for person in people}
    instances: dict[str, tuple[str, str, str]] = {}
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # much of what is planted is not valid, on purpose
        for index, base in enumerate(base for base in BASES if not only or base.name in only):
            person = people[index % len(people)]
            planter = _plant(base, person, inventor, studies[person.patient_id], instances)
            (files / planter.key.name).write_bytes(_written(planter))
            keys.append(planter.key)
    save(folder / "key.json", seed, keys)
    write_broken(folder / "broken", rng)
    return keys


def _plant(
    base: Base, person: Person, inventor: Inventor, study: str, instances: dict[str, tuple[str, str, str]]
) -> Planter:
    inventor.next_file()
    ds = base.make()
    planter = Planter(ds, base, person, inventor)
    planter.patient()
    if base.name != "dicomdir":
        series, instance = inventor.uid().text, inventor.uid().text
        planter.uids(study, series, instance)
        _point_at_images(ds, instances)
        instances[base.name] = (str(ds.get("SOPClassUID", "")), series, instance)
    if base.flood:
        planter.flood()
    else:
        planter.families()
        planter.descriptors()
        planter.unknown()
        planter.private()
    planter.group2()
    planter.document()
    planter.burn()
    planter.pixels()
    if not base.flood:
        planter.abused()
    planter.automatic()
    return planter


def _point_at_images(ds: Dataset, instances: dict[str, tuple[str, str, str]]) -> None:
    """Let what refers to images refer to those of this corpus."""
    kinds = {"DOC": "", "KO": "ct", "PR": "dx", "SEG": "ct", "RTSTRUCT": "ct", "SR": "mr"}
    target = instances.get(kinds.get(str(ds.get("Modality", "")), ""))
    if target is None:
        return
    for _, element in list(walk(ds)):
        if element.keyword in (
            "ReferencedSOPSequence",
            "ReferencedImageSequence",
            "SourceImageSequence",
            "ContourImageSequence",
        ):
            for item in element.value:
                item.ReferencedSOPClassUID, item.ReferencedSOPInstanceUID = target[0], target[2]


def _written(planter: Planter) -> bytes:
    ds = planter.ds
    said = planter.invent.comment()
    ds.preamble = said.text.encode()[:128].ljust(128, b"\0")
    planter.note("preamble", Said("", tuple(token for token in said.tokens if token.encode() in ds.preamble)))
    file = io.BytesIO()
    ds.save_as(file, enforce_file_format=True, overwrite=True)
    return file.getvalue()

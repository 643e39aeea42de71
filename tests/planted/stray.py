"""Files of every kind that say who a patient is, and as many that only look so: for the search for stray identities.

`python -m tests.planted.stray FOLDER [SEED]` writes them, with the key beside. Persons and sentences are those of
`tests.planted.sentences`, which were written for another purpose; labels are drawn from three languages.
"""

from __future__ import annotations

import bz2
import csv
import gzip
import io
import json
import random
import re
import sqlite3
import sys
import tarfile
import warnings
import zipfile
from contextlib import closing
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING
from xml.sax.saxutils import escape

import numpy as np
from PIL import Image, ImageDraw, ImageFont, PngImagePlugin
from pydicom.dataset import Dataset, FileMetaDataset
from pydicom.uid import ExplicitVRLittleEndian, MRImageStorage, SecondaryCaptureImageStorage, generate_uid

from tests.planted import sentences
from tests.planted.documents import pdf
from tests.planted.people import ascii_fold

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from tests.planted.sentences import Person

LABELS = (
    ("last_name", "first_name", "date_of_birth", "mrn", "phone", "street_address"),
    ("Nachname", "Vorname", "Geburtsdatum", "Patienten-ID", "Telefon", "Anschrift"),
    ("nom", "prenom", "date de naissance", "patient id", "telephone", "adresse"),
)
KINDS = ("name", "name", "birth-date", "identifier", "contact", "address")
# What each slot of a sentence says; those of staff, places and days of visits are not counted.
SLOTS = {
    **dict.fromkeys(("family", "FAMILY", "given", "GIVEN"), "name"),
    **dict.fromkeys(("mrn", "accession"), "identifier"),
    "born": "birth-date",
    **dict.fromkeys(("phone", "mail"), "contact"),
    "street": "address",
}
_TEMPLATES = tuple(
    template
    for templates in (sentences._COMMENTS, sentences._STRUCTURED, sentences._REPORTS)  # noqa: SLF001 -- of the same tests
    for template in templates
    if {"family", "mrn", "born"} & {slot for slot, _ in sentences._SLOT.findall(template)}  # noqa: SLF001
)


@dataclass(frozen=True, slots=True)
class Content:
    """What a file is to say: labelled values, and sentences; `title` is what a file may be called."""

    record: tuple[tuple[str, str], ...]
    lines: tuple[str, ...]
    title: str


@dataclass(frozen=True, slots=True)
class Key:
    """What was planted in a file: its kinds, whether its person is known; none in a file that only looks so."""

    path: str
    format: str
    kinds: tuple[str, ...]
    known: bool


def of_person(person: Person, rng: random.Random) -> tuple[Content, dict[str, tuple[str, ...]]]:
    """Return what files say of a person, and the kinds in its record, its lines and its title."""
    values = (person.family, person.given, f"{person.born:%Y-%m-%d}", person.mrn, person.phone, person.street)
    chosen = [sentences._planted(template, person) for template in rng.sample(_TEMPLATES, 3)]  # noqa: SLF001
    lines = tuple(line for said, _ in chosen for line in said.split("\n"))
    told = tuple(dict.fromkeys(SLOTS[slot] for _, slots in chosen for slot, _ in slots if slot in SLOTS))
    record = tuple(zip(rng.choice(LABELS), values, strict=True))
    content = Content(record, lines, f"{person.family}_{person.given}_CT".replace(" ", "_"))
    return content, {"record": tuple(dict.fromkeys(KINDS)), "lines": told, "title": ("name",)}


def of_nobody(rng: random.Random, seed: int) -> Content:
    """Return what files say of machines, methods and diseases that looks like a person's."""
    number, day = (
        rng.randrange(10**8),
        f"{rng.randrange(2005, 2024)}-{rng.randrange(1, 13):02}-{rng.randrange(1, 29):02}",
    )
    record = (
        ("device_serial_number", f"SN{number:08}"),
        ("part_number", f"{rng.randrange(100, 999)}-{rng.randrange(10, 99)}-{rng.randrange(1000, 9999)}"),
        ("software_date", day),
        ("series_instance_uid", f"2.25.{rng.randrange(10**38)}"),
        ("protocol", rng.choice(("Parkinson DaTSCAN", "MR BRAIN WHITE MATTER", "Hodgkin staging", "AX T2 FLAIR"))),
        (
            "model_name",
            rng.choice(("MAGNETOM Prisma", "Discovery CT750 HD", "Ingenia Ambition X", "Karl Storz IMAGE1 S")),
        ),
        ("patient_id", "P" + "".join(rng.choices("ABCDEFGHIJKLMNOPQRSTUVWXYZ234567", k=20))),
        ("patient_name", rng.choice(("ANONYMOUS", f"sub-{rng.randrange(999):03}", "ACR PHANTOM"))),
    )
    lines = (
        *sentences.clean_sentences(4, seed),
        f"Gantry serial {number:08}, part no. {rng.randrange(100, 999)}-45-6789, software VB20A of {day}",
        f"Order {day.replace('-', '')}-{rng.randrange(99999):05}, reconstruction kernel B30f, 512x512, 120 kVp",
        rng.choice(
            ("Karl Storz endoscope, Carl Zeiss optics", "Charcot-Marie-Tooth disease", "Hewlett Packard workstation")
        ),
        "Questions: support@vendor.example; manual 4500-1234-567 rev. 12",
    )
    return Content(record, lines, rng.choice((f"CT_HEAD_{number}", f"series_{number}_T2", "QA_phantom_Siemens")))


def plain(content: Content) -> bytes:
    """Return a report as text."""
    return "\n".join((*(f"{label}: {value}" for label, value in content.record), *content.lines)).encode()


def _lines(content: Content) -> bytes:
    return "\n".join(content.lines).encode()


def _log(content: Content) -> bytes:
    noise = [
        f"2024-03-0{i % 9 + 1} 10:0{i % 6}:11 INFO worker-{i} read 1.2.840.10008.{i} in {i * 37} ms" for i in range(200)
    ]
    noise[100:100] = [f"2024-03-05 10:00:12 WARN import: {line}" for line in content.lines]
    return "\n".join(noise).encode()


def _csv(content: Content) -> bytes:
    out = io.StringIO()
    writer = csv.writer(out, delimiter=";")
    writer.writerow([*(label for label, _ in content.record), "finding"])
    writer.writerow([*(value for _, value in content.record), "no fracture"])
    return out.getvalue().encode()


def _sheet(content: Content) -> bytes:
    words = [*(label for label, _ in content.record), *(value for _, value in content.record)]
    shared = "".join(f"<si><t>{escape(word)}</t></si>" for word in words)
    count, main = len(content.record), 'xmlns="http://schemas.openxmlformats.org/spreadsheetml/2006/main"'
    rows = "".join(
        f'<row r="{row + 1}">'
        + "".join(f'<c r="{chr(65 + i)}{row + 1}" t="s"><v>{row * count + i}</v></c>' for i in range(count))
        + "</row>"
        for row in (0, 1)
    )
    return _zipped(
        {
            "[Content_Types].xml": b"<Types/>",
            "xl/workbook.xml": f"<workbook {main}/>".encode(),
            "xl/sharedStrings.xml": f"<sst {main}>{shared}</sst>".encode(),
            "xl/worksheets/sheet1.xml": f"<worksheet {main}><sheetData>{rows}</sheetData></worksheet>".encode(),
        }
    )


def _docx(content: Content) -> bytes:
    def paragraph(line: str) -> str:
        # Word parts a line wherever its spelling checker was at work.
        runs = re.findall(r"\S+\s*", line)
        return "<w:p>" + "".join(f"<w:r><w:t>{escape(run)}</w:t></w:r>" for run in runs) + "</w:p>"

    body = "".join(map(paragraph, content.lines))
    document = f'<w:document xmlns:w="http://schemas.openxmlformats.org/wordprocessingml/2006/main"><w:body>{body}</w:body></w:document>'
    return _zipped({"[Content_Types].xml": b"<Types/>", "word/document.xml": document.encode()})


def _odt(content: Content) -> bytes:
    body = "".join(f"<text:p>{escape(line)}</text:p>" for line in content.lines)
    document = (
        f'<office:document xmlns:office="urn:o" xmlns:text="urn:t"><office:body>{body}</office:body></office:document>'
    )
    return _zipped({"mimetype": b"application/vnd.oasis.opendocument.text", "content.xml": document.encode()})


def _rtf(content: Content) -> bytes:
    def coded(line: str) -> str:
        return "".join(letter if letter.isascii() else f"\\u{ord(letter)}?" for letter in line)

    return ("{\\rtf1\\ansi{\\b " + "\\par\n".join(map(coded, content.lines)) + "}}").encode()


def _tree(content: Content) -> bytes:
    return json.dumps({"version": 3, "entry": [dict(content.record)], "notes": list(content.lines)}).encode()


def _fhir(content: Content) -> bytes:
    said = [value for _, value in content.record]
    patient = {
        "resourceType": "Patient",
        "identifier": [{"system": "urn:oid:1.2.3", "value": said[3]}],
        "name": [{"family": said[0], "given": [said[1]]}],
        "telecom": [{"system": "phone", "value": said[4]}],
        "birthDate": said[2],
        "address": [{"line": [said[5]]}],
    }
    return json.dumps(patient).encode()


def _each_line(content: Content) -> bytes:
    return "\n".join(json.dumps(one) for one in (dict(content.record), {"text": " ".join(content.lines)})).encode()


def _xml(content: Content) -> bytes:
    tags = [(re.sub(r"\W", "_", label), escape(value)) for label, value in content.record]
    fields = "".join(f"<{tag}>{value}</{tag}>" for tag, value in tags)
    return f'<?xml version="1.0"?><export><row>{fields}</row></export>'.encode()


def _cda(content: Content) -> bytes:
    said = [escape(value) for _, value in content.record]
    born = said[2].replace("-", "")
    return (
        '<?xml version="1.0"?><ClinicalDocument xmlns="urn:hl7-org:v3"><recordTarget><patientRole>'
        f'<id root="1.2.3" extension="{said[3]}"/><addr><streetAddressLine>{said[5]}</streetAddressLine></addr>'
        f'<telecom value="tel:{said[4]}"/><patient><name><given>{said[1]}</given><family>{said[0]}</family></name>'
        f'<birthTime value="{born}"/></patient></patientRole></recordTarget></ClinicalDocument>'
    ).encode()


def _html(content: Content) -> bytes:
    rows = "".join(f"<tr><th>{escape(label)}</th><td>{escape(value)}</td></tr>" for label, value in content.record)
    return f"<!doctype html><html><body><table>{rows}</table><p>Report</p></body></html>".encode()


def _database(content: Content) -> bytes:
    with closing(sqlite3.connect(":memory:")) as made:
        columns = ", ".join(f'"{label}" TEXT' for label, _ in content.record)
        made.execute(f"CREATE TABLE orders (number INTEGER PRIMARY KEY, {columns})")
        places = ", ".join("?" for _ in content.record)
        made.execute(f"INSERT INTO orders VALUES (1, {places})", [value for _, value in content.record])  # noqa: S608
        made.commit()
        return made.serialize()


def _tensors(content: Content) -> bytes:
    header = {
        "__metadata__": {"format": "pt", "notes": " | ".join(content.lines)},
        "weight": {"dtype": "F32", "shape": [64, 64], "data_offsets": [0, 16384]},
    }
    raw = json.dumps(header).encode()
    return len(raw).to_bytes(8, "little") + raw + np.random.default_rng(1).random((64, 64), np.float32).tobytes()


def _nifti(content: Content) -> bytes:
    said = dict(content.record)
    header = bytearray(348)
    header[:4] = (348).to_bytes(4, "little")
    title = f"{content.record[0][1]}^{content.record[1][1]}" if len(said) == len(KINDS) else said["protocol"]
    header[148:228] = ascii_fold(title).encode()[:80].ljust(80, b"\0")
    header[344:348] = b"n+1\0"
    return bytes(header) + bytes(4) + np.random.default_rng(2).integers(0, 4096, 4096, dtype=np.int16).tobytes()


def _wide(content: Content) -> bytes:
    return (
        b"\xd0\xcf\x11\xe0"
        + bytes(500)
        + b"\0\0".join(line.encode("utf-16-le") for line in _labelled(content))
        + bytes(500)
    )


def _labelled(content: Content) -> list[str]:
    return [f"{label.replace('_', ' ')}: {value}" for label, value in content.record]


def _zipped(members: dict[str, bytes]) -> bytes:
    out = io.BytesIO()
    with zipfile.ZipFile(out, "w", zipfile.ZIP_DEFLATED) as made:
        for name, raw in members.items():
            made.writestr(name, raw)
    return out.getvalue()


def _tar(name: str, raw: bytes) -> bytes:
    out = io.BytesIO()
    with tarfile.open(fileobj=out, mode="w") as made:
        member = tarfile.TarInfo(name)
        member.size = len(raw)
        made.addfile(member, io.BytesIO(raw))
    return out.getvalue()


def _nested(content: Content) -> bytes:
    return _zipped({"backup/day.tar.gz": gzip.compress(_tar("export/list.zip", _zipped({"list.csv": _csv(content)})))})


def _drawn(lines: list[str], mode: str = "L") -> Image.Image:
    image = Image.new(mode, (700, 420), 20 if mode == "L" else (20, 20, 30))
    pen = ImageDraw.Draw(image)
    pen.ellipse((220, 130, 480, 400), fill=90 if mode == "L" else (90, 80, 70))
    for number, line in enumerate(lines):
        pen.text(
            (12, 10 + 26 * number), line, fill=235 if mode == "L" else (235, 235, 235), font=ImageFont.load_default(18)
        )
    return image


def _screen(content: Content) -> list[str]:
    """Return what a machine writes into a picture: few words, upper case, as 7 bits have them."""
    if len(content.record) == len(KINDS):
        said = [value for _, value in content.record]
        return [ascii_fold(f"{said[0]}, {said[1]}").upper(), f"ID: {said[3]}", f"DOB: {said[2]}"]
    return ["CT HEAD W/O CONTRAST", "120 kVp  300 mAs", "R   512x512   5.0 mm", ascii_fold(content.record[5][1])]


def _with_exif(content: Content) -> bytes:
    out = io.BytesIO()
    exif = Image.Exif()
    exif[0x010E], exif[0x013B] = ascii_fold(" ".join(content.lines[1:])), "Scanner"
    exif[0x9C9C] = content.lines[0].encode("utf-16-le")
    _drawn([]).save(out, "jpeg", exif=exif)
    return out.getvalue()


def _with_xmp(content: Content) -> bytes:
    out = io.BytesIO()
    said = escape(" ".join(content.lines))
    xmp = f"<x:xmpmeta xmlns:x='adobe:ns:meta/'><rdf:li xmlns:rdf='r'>{said}</rdf:li></x:xmpmeta>"
    _drawn([]).save(out, "jpeg", xmp=xmp.encode())
    return out.getvalue()


def _with_comment(content: Content) -> bytes:
    out = io.BytesIO()
    _drawn([]).save(out, "jpeg", comment=" ".join(content.lines).encode())
    return out.getvalue()


def _png(content: Content) -> bytes:
    out, said = io.BytesIO(), PngImagePlugin.PngInfo()
    for label, value in content.record:
        said.add_itxt(label, value, zip=True)
    _drawn([]).save(out, "png", pnginfo=said)
    return out.getvalue()


def _tiff(content: Content) -> bytes:
    out = io.BytesIO()
    _drawn([]).save(out, "tiff", description=ascii_fold("|".join(_labelled(content))))
    return out.getvalue()


def _photo(content: Content) -> bytes:
    out = io.BytesIO()
    _drawn(_screen(content), "RGB").save(out, "png")
    return out.getvalue()


def _scanned(content: Content) -> bytes:
    out = io.BytesIO()
    _drawn(_screen(content)).save(out, "pdf")
    return out.getvalue()


def _pdf(content: Content) -> bytes:
    lines = [re.sub(r"([()\\])", r"\\\1", ascii_fold(line)) for line in content.lines]
    return pdf(lines, "Scanner")


def _instance(**attributes: object) -> Dataset:
    ds = Dataset()
    ds.file_meta = FileMetaDataset()
    ds.file_meta.TransferSyntaxUID = ExplicitVRLittleEndian
    ds.file_meta.MediaStorageSOPClassUID = MRImageStorage
    ds.file_meta.MediaStorageSOPInstanceUID = generate_uid()
    told: dict[str, object] = {
        "SpecificCharacterSet": "ISO_IR 192", "SOPClassUID": MRImageStorage, "Modality": "MR", "StudyDate": "20200229",
        "SOPInstanceUID": ds.file_meta.MediaStorageSOPInstanceUID, "StudyInstanceUID": generate_uid(),
        "SeriesInstanceUID": generate_uid(), "Manufacturer": "SIEMENS", "PatientName": "ANONYMOUS",
        "PatientID": "sub-001",
        "Rows": 32, "Columns": 32, "SamplesPerPixel": 1, "PhotometricInterpretation": "MONOCHROME2", "BitsAllocated": 8,
        "BitsStored": 8, "HighBit": 7, "PixelRepresentation": 0, "PixelData": bytes(1024),
    }  # fmt: skip
    for keyword, value in (told | attributes).items():
        setattr(ds, keyword, value)
    ds["PixelData"].VR = "OB"
    return ds


def _written(ds: Dataset, preamble: bytes = b"") -> bytes:
    out = io.BytesIO()
    if preamble:
        ds.preamble = preamble[:128].ljust(128, b"\0")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        ds.save_as(out, enforce_file_format=True)
    return out.getvalue()


def _header(content: Content) -> bytes:
    said = [value for _, value in content.record]
    if len(said) != len(KINDS):
        return _written(
            _instance(DeviceSerialNumber=said[0], SoftwareVersions=said[2], ProtocolName=said[4], PatientID=said[6],
                      ManufacturerModelName=said[5], PatientName=said[7], ImageComments=content.lines[0][:60])
        )  # fmt: skip
    return _written(
        _instance(PatientName=f"{said[0]}^{said[1]}", PatientBirthDate=said[2].replace("-", ""), PatientID=said[3],
                  PatientTelephoneNumbers=said[4][:16], PatientAddress=said[5])
    )  # fmt: skip


def _comments(content: Content) -> bytes:
    return _written(_instance(ImageComments="\r\n".join(content.lines), StudyDescription=content.lines[0][:64]))


def _private(content: Content) -> bytes:
    ds = _instance()
    block = ds.private_block(0x0029, "SIEMENS CSA HEADER", create=True)
    block.add_new(0x10, "OB", b"SV10\4\3\2\1" + "\0\0".join(_labelled(content)).encode() + b"\0")
    return _written(ds)


def _deep(content: Content) -> bytes:
    inner = Dataset()
    inner.TextValue = "\n".join(content.lines)
    for _ in range(4):
        outer = Dataset()
        outer.ContentSequence = [inner]
        inner = outer
    return _written(_instance(ContentSequence=[inner]))


def _before(content: Content) -> bytes:
    said = ascii_fold("; ".join(_screen(content))).encode()
    return _written(_instance(), said)


def _behind(content: Content) -> bytes:
    return _written(_instance()) + plain(content)


def _burned(content: Content) -> bytes:
    pixels = np.asarray(_drawn(_screen(content)))
    ds = _instance(SOPClassUID=SecondaryCaptureImageStorage, Modality="OT", ConversionType="WSD", Rows=420, Columns=700)
    ds.PixelData = pixels.tobytes()
    return _written(ds)


def _overlay(content: Content) -> bytes:
    plane = np.asarray(_drawn(_screen(content))) > 200
    ds = _instance(Modality="CR", Rows=420, Columns=700, PixelData=bytes(420 * 700))
    for number, vr, value in (
        (0x10, "US", 420), (0x11, "US", 700), (0x40, "CS", "G"), (0x50, "SS", [1, 1]), (0x100, "US", 1),
        (0x102, "US", 0),
        (0x3000, "OW", np.packbits(plane.ravel(), bitorder="little").tobytes()),
    ):  # fmt: skip
        ds.add_new(0x60000000 | number, vr, value)
    return _written(ds)


# The kind of file, what of a content it says, how its name ends, and who writes it.
FORMATS: dict[str, tuple[str, str, Callable[[Content], bytes]]] = {
    "DICOM attributes": ("record", ".dcm", _header),
    "DICOM comments": ("lines", ".dcm", _comments),
    "DICOM private bytes": ("record", ".dcm", _private),
    "DICOM nested": ("lines", ".dcm", _deep),
    "DICOM preamble": ("screen", ".dcm", _before),
    "DICOM behind the pixels": ("both", ".dcm", _behind),
    "DICOM pixels": ("screen", ".dcm", _burned),
    "DICOM overlay": ("screen", ".dcm", _overlay),
    "JPEG EXIF": ("lines", ".jpg", _with_exif),
    "JPEG XMP": ("lines", ".jpg", _with_xmp),
    "JPEG comment": ("lines", ".jpg", _with_comment),
    "PNG fields": ("record", ".png", _png),
    "TIFF fields": ("record", ".tif", _tiff),
    "photograph": ("screen", ".png", _photo),
    "PDF": ("lines", ".pdf", _pdf),
    "PDF scanned": ("screen", ".pdf", _scanned),
    "CSV": ("record", ".csv", _csv),
    "text": ("both", ".txt", plain),
    "text without labels": ("lines", ".txt", _lines),
    "log": ("lines", ".log", _log),
    "JSON": ("both", ".json", _tree),
    "FHIR JSON": ("record", ".json", _fhir),
    "NDJSON": ("both", ".ndjson", _each_line),
    "XML": ("record", ".xml", _xml),
    "CDA": ("record", ".xml", _cda),
    "HTML": ("record", ".html", _html),
    "XLSX": ("record", ".xlsx", _sheet),
    "DOCX": ("lines", ".docx", _docx),
    "ODT": ("lines", ".odt", _odt),
    "RTF": ("lines", ".rtf", _rtf),
    "OLE (old office)": ("record", ".doc", _wide),
    "SQLite": ("record", ".db", _database),
    "safetensors": ("lines", ".safetensors", _tensors),
    "NIfTI": ("names", ".nii", _nifti),
    "gzip": ("both", ".txt.gz", lambda content: gzip.compress(plain(content))),
    "bzip2": ("both", ".txt.bz2", lambda content: bz2.compress(plain(content))),
    "tar": ("both", ".tar", lambda content: _tar("report.txt", plain(content))),
    "zip in tar in gzip in zip": ("record", ".zip", _nested),
    "file name": ("title", ".bin", lambda _: bytes(64)),
}
_SCREEN, _NAMES = ("name", "identifier", "birth-date"), ("name",)
_ONLY_PERSONS = frozenset(("FHIR JSON", "CDA"))  # their fields are a patient's, whoever it is


def generate(folder: Path, seed: int, each: int = 4) -> tuple[list[Key], list[Person]]:
    """Write `each` files of each kind with a person and as many without; return the key and those who are known.

    Every second person is one of the hospital's own.
    """
    rng = random.Random(seed)  # noqa: S311 -- made-up files
    keys = []
    made = iter(sentences.people(len(FORMATS) * each, seed))
    known = []
    for name, (says, ending, write) in FORMATS.items():
        for number in range(each):
            person, own = next(made), number % 2 == 0
            known += [person] if own else []
            content, kinds = of_person(person, rng)
            told = {
                "both": tuple(dict.fromkeys((*kinds["record"], *kinds["lines"]))),
                "screen": _SCREEN, "names": _NAMES, **kinds,
            }[says]  # fmt: skip
            title = content.title if says == "title" else f"{_slug(name)}-{number}"
            keys.append(_put(folder, f"with/{title}{ending}", write(content), name, told, known=own))
            if name not in _ONLY_PERSONS:
                nobody = of_nobody(rng, seed * 1000 + number)
                title = f"{nobody.title}_{number}" if says == "title" else f"{_slug(name)}-{number}"
                keys.append(_put(folder, f"without/{title}{ending}", write(nobody), name, (), known=False))
    return keys, known


def _slug(name: str) -> str:
    return re.sub(r"\W+", "-", name.lower()).strip("-")


def _put(folder: Path, path: str, raw: bytes, name: str, kinds: tuple[str, ...], *, known: bool) -> Key:
    target = folder / path
    target.parent.mkdir(parents=True, exist_ok=True)
    target.write_bytes(raw)
    return Key(path, name, kinds, known)


def write_known(path: Path, known: list[Person]) -> None:
    """Write the list that a hospital has of its patients."""
    with path.open("w", newline="") as out:
        writer = csv.writer(out)
        writer.writerow(("last_name", "first_name", "date_of_birth", "mrn", "accession_number"))
        writer.writerows((one.family, one.given, one.born, one.mrn, one.accession) for one in known)


def _documents(keys: list[Key]) -> Iterator[dict[str, object]]:
    yield from map(asdict, keys)


def main() -> None:
    """Write the files and the key."""
    folder, seed = Path(sys.argv[1]), int(sys.argv[2]) if len(sys.argv) > 2 else 1
    keys, known = generate(folder / "files", seed)
    (folder / "key.json").write_text(json.dumps(list(_documents(keys)), indent=1))
    write_known(folder / "known.csv", known)
    sys.stdout.write(f"{len(keys)} files\n")


if __name__ == "__main__":
    main()

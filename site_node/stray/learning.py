"""Who the hospital's own patients are: read from folders of its DICOM files and from CSV, and kept as digests alone."""

from __future__ import annotations

import csv
from contextlib import suppress
from datetime import date
from typing import TYPE_CHECKING

from site_node.errors import ConfigurationError, UnreadableInstance
from site_node.second_look import reading
from site_node.stray.days import birth_days
from site_node.stray.dicom import is_dicom
from site_node.stray.dictionary import Patient, entries
from site_node.stray.finding import Kind
from site_node.stray.labels import announces, normal, plausible
from site_node.stray.texts import ELSE_LATIN, encoding

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from site_node.second_look.reading import Spoken
    from site_node.stray.digests import Entry, Keyer

_HEAD = 1 << 14
_NAMES = ("PatientName", "OtherPatientNames", "PatientBirthName")
_NUMBERS = ("OtherPatientIDs", "PatientID")
_FAMILY, _GIVEN = (
    ("last", "family", "sur", "nach", "cognome", "apellido", "nom", "achter"),
    ("first", "given", "fore", "vor", "prenom", "nombre", "voor"),
)
_DELIMITERS = ",;\t|"


def patients(source: Path) -> Iterator[Patient]:
    """Yield the patients of a folder of DICOM files and CSV files, or of one file.

    Raises: ConfigurationError if there is nothing of the name, or a list cannot be read to its end.
    """
    if source.is_file():
        yield from _of(source)
    elif source.is_dir():
        for path in sorted(source.rglob("*")):
            if path.is_file() and not path.is_symlink():
                yield from _of(path)
    else:
        raise ConfigurationError(f"{source} is neither a folder nor a file")


def said_of_patient(content: memoryview, keyer: Keyer) -> Iterator[Entry]:
    """Yield what a DICOM file says of its patient, as digests; nothing of what is none."""
    if is_dicom(bytes(content[:_HEAD])):
        # Who cannot be read is nobody's patient here: the file is not taken in either.
        with suppress(UnreadableInstance):
            yield from entries(patient(reading.read(content).spoken), keyer)


def _of(path: Path) -> Iterator[Patient]:
    with path.open("rb") as file:
        head = file.read(_HEAD)
    if is_dicom(head):
        # The whole file, since a header may be longer and pixels end it properly.
        with suppress(UnreadableInstance):
            yield patient(reading.read(memoryview(path.read_bytes())).spoken)
    elif path.suffix.lower() in (".csv", ".tsv"):
        yield from _listed(path)


def patient(spoken: tuple[Spoken, ...]) -> Patient:
    """Return the patient of an instance."""
    names = tuple(
        value for one in spoken if one.keyword in _NAMES for value in one.values if plausible(Kind.NAME, value)
    )
    ids = [
        value for one in spoken if one.keyword in _NUMBERS for value in one.values if plausible(Kind.IDENTIFIER, value)
    ]
    own = next((one.values[0] for one in spoken if one.keyword == "PatientID" and not one.parents), "")
    days = [day for one in spoken if one.keyword == "PatientBirthDate" for _, _, day in birth_days(one.values[0])]
    born = date.fromisoformat(days[0]) if days else None
    return Patient(own, names, born, tuple(ids))


def _listed(path: Path) -> Iterator[Patient]:
    """Yield the patients of a list, by the names of its columns."""
    with path.open("rb") as file:
        coded = encoding(memoryview(file.read(_HEAD))) or "utf-8"
    with path.open(encoding=coded, errors=ELSE_LATIN, newline="") as text:
        first = text.readline()
        text.seek(0)
        rows = csv.DictReader(text, delimiter=max(_DELIMITERS, key=first.count))
        try:
            for row in rows:
                yield _row({str(column): str(value or "") for column, value in row.items()})
        except csv.Error as error:
            raise ConfigurationError(f"{path}: line {rows.line_num}: {error}") from error


def _row(row: dict[str, str]) -> Patient:
    kinds = {column: announces(column) for column in row}
    said = {column: value.strip() for column, value in row.items() if value.strip()}
    family = [
        value for column, value in said.items() if kinds[column] is Kind.NAME and normal(column).startswith(_FAMILY)
    ]
    given = [
        value for column, value in said.items() if kinds[column] is Kind.NAME and normal(column).startswith(_GIVEN)
    ]
    whole = [value for column, value in said.items() if kinds[column] is Kind.NAME or normal(column) == "name"]
    names = (f"{' '.join(family)}^{' '.join(given)}",) if family and given else tuple(whole)
    numbers = [value for column, value in said.items() if kinds[column] is Kind.IDENTIFIER]
    days = [
        day for column, value in said.items() if kinds[column] is Kind.BIRTH_DATE for _, _, day in birth_days(value)
    ]
    born = date.fromisoformat(days[0]) if days else None
    return Patient(numbers[0] if numbers else "", names, born, tuple(numbers[1:]))

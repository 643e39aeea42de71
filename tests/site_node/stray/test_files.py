"""Files of every kind are taken apart, and what would cost too much is told and not unpacked."""

from __future__ import annotations

import gzip
import io
import random
import zipfile
from typing import TYPE_CHECKING

import pytest

from site_node.stray.dictionary import Table
from site_node.stray.finding import Risk
from site_node.stray.inspection import Inspector, Settings
from site_node.stray.pieces import BOMB, ENCRYPTED, TOO_DEEP, TOO_MANY, Limits
from tests.planted import sentences
from tests.planted.stray import FORMATS, of_nobody, of_person
from tests.site_node.second_look.files import NAME, cleaned, original, written

if TYPE_CHECKING:
    from site_node.stray.inspection import Report

KEY = bytes(range(32))
INSPECTOR = Inspector(Settings(KEY, Table.of(()), "none"))
# What is drawn is looked at in a test of its own, for it takes seconds; a bare title says too little here.
DRAWN = {"DICOM pixels", "DICOM overlay", "photograph", "PDF scanned"}
QUICK = sorted(set(FORMATS) - DRAWN - {"DICOM preamble", "NIfTI", "file name"})


def _report(raw: bytes, key: str = "file", limits: Limits | None = None) -> Report:
    inspector = Inspector(Settings(KEY, Table.of(()), "none", limits)) if limits else INSPECTOR
    return inspector.inspect(memoryview(raw), key)


def _grave(report: Report) -> bool:
    return any(one.risk >= Risk.MEDIUM for one in report.findings)


@pytest.mark.parametrize("name", QUICK)
def test_an_identity_is_found_in_every_kind_of_file(name: str) -> None:
    _, ending, write = FORMATS[name]
    (person,) = sentences.people(1, 3)
    content, _ = of_person(person, random.Random(3))  # noqa: S311 -- made-up files

    report = _report(write(content), f"file{ending}")

    assert _grave(report)
    assert not report.faults


@pytest.mark.parametrize("name", sorted(set(FORMATS) - DRAWN - {"FHIR JSON", "CDA"}))
def test_what_only_looks_like_an_identity_is_let_be_in_every_kind_of_file(name: str) -> None:
    _, ending, write = FORMATS[name]

    report = _report(write(of_nobody(random.Random(5), 5)), f"file{ending}")  # noqa: S311 -- made-up files

    assert not _grave(report)
    assert not report.faults


def test_text_in_pixels_is_found_and_its_picture_cannot_be_read() -> None:
    (person,) = sentences.people(1, 3)
    content, _ = of_person(person, random.Random(3))  # noqa: S311 -- made-up files

    report = Inspector(Settings(KEY, Table.of(()), "suspect")).inspect(
        memoryview(FORMATS["DICOM pixels"][2](content)), "a"
    )

    assert any(one.place.startswith("pixels") for one in report.findings)
    assert report.picture is not None
    assert INSPECTOR.inspect(memoryview(report.picture), "a.png").findings == ()


def test_no_value_stands_in_a_report() -> None:
    report = _report(written(original()), f"{NAME}_Dorothea/{NAME}.dcm")

    assert report.findings
    assert NAME.lower() not in repr(report).lower()
    assert "77304412" not in repr(report)


def test_a_deidentified_file_of_ours_is_clean() -> None:
    pseudonym = "PABCDEFGHIJKLMNOPQRST"

    assert _report(written(cleaned(PatientName=pseudonym, PatientID=pseudonym))).findings == ()


def _zipped(raw: bytes, name: str = "a") -> bytes:
    out = io.BytesIO()
    with zipfile.ZipFile(out, "w", zipfile.ZIP_DEFLATED) as made:
        made.writestr(name, raw)
    return out.getvalue()


@pytest.mark.parametrize("pack", [gzip.compress, _zipped])
def test_a_bomb_is_told_and_not_unpacked(pack: object) -> None:
    assert callable(pack)
    limits = Limits(floor=1 << 16, ratio=10)

    report = _report(pack(bytes(1 << 22)), limits=limits)

    assert [reason for _, reason in report.faults] == [BOMB]


def test_the_members_of_all_archives_in_a_file_share_one_budget() -> None:
    many = io.BytesIO()
    with zipfile.ZipFile(many, "w") as made:
        for number in range(12):
            made.writestr(str(number), _zipped(bytes(1000)))

    assert TOO_MANY in {reason for _, reason in _report(many.getvalue(), limits=Limits(members=15)).faults}
    assert BOMB in {reason for _, reason in _report(many.getvalue(), limits=Limits(total=5000)).faults}


def test_archives_are_followed_as_deep_as_was_agreed() -> None:
    raw = b"Patient: Huber, Anna"
    for _ in range(4):
        raw = _zipped(raw)

    assert _grave(_report(raw))
    shallow = _report(raw, limits=Limits(depth=2))
    assert not shallow.findings
    assert [reason for _, reason in shallow.faults] == [TOO_DEEP]


def test_an_encrypted_member_is_told() -> None:
    raw = bytearray(_zipped(b"Patient: Huber, Anna"))
    raw[6] |= 1  # APPNOTE 4.4.4: bit 0 of the flags, here and in the directory
    raw[raw.index(b"PK\x01\x02") + 8] |= 1

    assert [reason for _, reason in _report(bytes(raw)).faults] == [ENCRYPTED]


def test_xml_that_declares_entities_is_looked_at_as_text() -> None:
    raw = b'<?xml version="1.0"?><!DOCTYPE a [<!ENTITY b "x">]><a><patientName>Huber, Anna</patientName>&b;</a>'

    report = _report(raw, "a.xml")

    assert "entities" in report.faults[0][1]
    assert _grave(report)


@pytest.mark.parametrize(
    "magic", [b"%PDF-1.7 ", b"\x89PNG\r\n\x1a\n", b"PK\x03\x04", b"SQLite format 3\0", b"\x1f\x8b\x08\0"]
)
def test_a_damaged_file_is_told(magic: bytes) -> None:
    assert _report(magic + bytes(range(256)) * 4).faults

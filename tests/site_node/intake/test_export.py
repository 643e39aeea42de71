"""A folder de-identified into another: pseudonymous names, one line for each file, a kill harmless."""

from __future__ import annotations

import csv
import hashlib
from typing import TYPE_CHECKING

import pytest
from pydicom import dcmread

from site_node.deidentify.profile import Dates, Options
from site_node.deidentify.pseudonym import Known, Pseudonymiser
from site_node.errors import ConfigurationError
from site_node.intake.export import REPORT, export
from tests.site_node.dicom_files import KEY, NAME, PATIENT_ID, file_bytes, mr_slice

if TYPE_CHECKING:
    from pathlib import Path

    from site_node.intake.folder import IngestSummary

PSEUDONYMISER = Pseudonymiser(KEY)


def run(inbox: Path, target: Path, options: Options | None = None) -> IngestSummary:
    return export(inbox, target, options or Options(), PSEUDONYMISER, list, processes=1)


def rows(target: Path) -> list[dict[str, str]]:
    return list(csv.DictReader((target / REPORT).read_text().splitlines()))


def fill(inbox: Path) -> None:
    for number in range(3):
        (inbox / f"{NAME}{number}").write_bytes(file_bytes(mr_slice(number)))
    (inbox / "other").write_bytes(NAME.encode())


def test_every_file_has_a_line_and_no_line_an_identity(inbox: Path, tmp_path: Path) -> None:
    fill(inbox)

    summary = run(inbox, tmp_path / "out")

    digests = {hashlib.sha256(path.read_bytes()).hexdigest() for path in inbox.iterdir()}
    assert (summary.accepted, summary.quarantined) == (3, 1)
    assert {row["source_sha256"] for row in rows(tmp_path / "out")} == digests
    everything = b"".join(path.read_bytes() for path in (tmp_path / "out").rglob("*") if path.is_file())
    names = " ".join(str(path) for path in (tmp_path / "out").rglob("*"))
    assert not any(needle.encode() in everything or needle in names for needle in (NAME, PATIENT_ID))


def test_what_the_report_has_is_not_done_again_and_a_half_line_is(inbox: Path, tmp_path: Path) -> None:
    fill(inbox)
    target = tmp_path / "out"
    run(inbox, target)
    whole = sorted((target / REPORT).read_text().splitlines())
    report = (target / REPORT).read_bytes()
    (target / REPORT).write_bytes(report[: report.rfind(b"\n", 0, -1) + 9])  # killed in its last line

    summary = run(inbox, target)

    assert (summary.already_known, summary.files) == (3, 4)
    assert sorted((target / REPORT).read_text().splitlines()) == whole


def test_two_keys_make_two_patients_of_one(inbox: Path, tmp_path: Path) -> None:
    fill(inbox)
    run(inbox, tmp_path / "one")
    export(inbox, tmp_path / "two", Options(), Pseudonymiser(bytes(32)), list, processes=1)

    found = [{dcmread(path).PatientID for path in (tmp_path / name).rglob("*.dcm")} for name in ("one", "two")]

    assert [len(patients) for patients in found] == [1, 1]
    assert found[0] != found[1]


def test_options_are_those_given(inbox: Path, tmp_path: Path) -> None:
    fill(inbox)

    run(inbox, tmp_path / "out", Options(dates=Dates.REMOVE))

    for path in (tmp_path / "out").rglob("*.dcm"):
        ds = dcmread(path)
        assert ds.LongitudinalTemporalInformationModified == "REMOVED"
        assert not ds.get("StudyDate")


def test_who_stands_behind_a_pseudonym_is_kept_for_those_who_may_ask(inbox: Path, tmp_path: Path) -> None:
    fill(inbox)
    kept: list[Known] = []

    export(inbox, tmp_path / "out", Options(), PSEUDONYMISER, kept.extend, processes=1)

    assert Known("patient", PSEUDONYMISER.patient(PATIENT_ID), PATIENT_ID) in kept


def test_a_second_file_with_the_uid_of_another_does_not_take_its_place(inbox: Path, tmp_path: Path) -> None:
    first, second = mr_slice(0), mr_slice(0)
    second.PixelData = bytes(len(second.PixelData))
    target = tmp_path / "out"
    for name, ds in (("a", first), ("b", second)):
        (inbox / name).write_bytes(file_bytes(ds))

    together = run(inbox, target)
    kept = {path: path.read_bytes() for path in target.rglob("*.dcm")}
    second.PixelData = b"\1" * len(second.PixelData)
    (inbox / "c").write_bytes(file_bytes(second))
    later = run(inbox, target)

    assert (together.accepted, together.reasons) == (1, {"duplicate-instance-uid": 1})
    assert (later.already_known, later.reasons) == (2, {"duplicate-instance-uid": 1})
    assert {path: path.read_bytes() for path in target.rglob("*.dcm")} == kept


def test_the_target_does_not_lie_in_the_folder(inbox: Path) -> None:
    with pytest.raises(ConfigurationError, match="inside the folder"):
        run(inbox, inbox / "out")

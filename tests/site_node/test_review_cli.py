"""`review`, `keys` and `reidentify` as a person uses them: exit codes, JSON, and a patient's value only where asked."""

from __future__ import annotations

import hashlib
import json
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
import sqlalchemy as sa
from PIL import Image
from pydicom import dcmread
from typer.testing import CliRunner

from site_node import reidentification, review, terminal
from site_node.app import create_site, open_site
from site_node.cli import app
from site_node.deidentify.picture import Box
from site_node.deidentify.pseudonym import Known, Pseudonymiser
from site_node.errors import ConfigurationError
from site_node.store import disposition, instance
from tests.site_node.dicom_files import KEY, NAME, PATIENT_ID, SERIES_UID, file_bytes, mr_slice, pixels, sop_uid

if TYPE_CHECKING:
    from pathlib import Path

    from click.testing import Result

AT = datetime(2026, 6, 1, 12, tzinfo=UTC)
ORIGINAL = file_bytes(mr_slice())
SOURCE = hashlib.sha256(ORIGINAL).hexdigest()
SERIES, SOP = (Pseudonymiser(KEY).uid(uid) for uid in (SERIES_UID, sop_uid(0)))
BOXES = ((1, 1, 3, 4), (5, 0, 8, 6))


@pytest.fixture
def home(root: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Return the folder of a site with one held instance, in which there is nothing to hold it for any longer."""
    monkeypatch.setattr(terminal.out, "width", 240)
    create_site(root, "north")
    (root / "identity" / "pseudonym.key").write_bytes(KEY)
    (root / "review").mkdir()
    (root / "review" / SOURCE).write_bytes(ORIGINAL)
    site = open_site(root)
    values = {"outcome": "held", "reason": "text-not-readable", "kept_as": f"review/{SOURCE}"}
    with site.store.begin() as db:
        db.execute(sa.insert(disposition).values(source_sha256=SOURCE, recorded_at=AT.isoformat(), **values))
        review.treated(db, SOURCE, "1.0", [Box(*box) for box in BOXES], SeriesInstanceUID=SERIES, Modality="MR")
    return root


def run(home: Path, *words: str | Path, code: int = 0, said: str = "") -> Result:
    done = CliRunner().invoke(app, ["--home", str(home), *map(str, words)], input=said)
    assert done.exit_code == code, f"{done.output}\n{done.exception!r}"
    return done


def answer(home: Path, *words: str | Path) -> Any:
    return json.loads(run(home, *words, "--json").stdout)


def test_a_held_instance_is_listed_shown_and_accepted(home: Path) -> None:
    (listed,) = answer(home, "review", "list")
    shown = answer(home, "review", "show", SOURCE[:12])
    (decision,) = answer(home, "review", "accept", SOURCE[:12], "--by", "anna")

    assert (listed["source_sha256"], listed["reason"], listed["decisions"]) == (SOURCE, "text-not-readable", 0)
    assert shown["boxes"] == [list(box) for box in BOXES]
    assert (decision["outcome"], decision["boxes"]) == ("accepted", [list(box) for box in BOXES])
    assert answer(home, "review", "list") == []
    refused = run(home, "review", "reject", SOURCE, "--reason", "too-late", "--by", "bert", code=3)
    assert "reopen it first" in refused.stderr


def test_what_is_printed_has_no_value_of_the_patient(home: Path, tmp_path: Path) -> None:
    said = [
        run(home, "review", "list").output,
        run(home, "review", "show", SOURCE, "--picture", tmp_path / "a.png").output,
        run(home, "review", "redraw", SERIES, "--box", "0,0,2,2", "--by", "anna").output,
        run(home, "review", "sample", "--count", "1").output,
        run(home, "review", "drawn").output,
        run(home, "review", "audit", SOP, "--verdict", "clean", "--by", "bert").output,
        run(home, "review", "statistics").output,
        run(home, "ledger").output,
    ]

    assert not [line for line in said if NAME in line or PATIENT_ID in line or "1.2.826" in line]


def test_the_picture_is_new_and_the_hospital_s_own(home: Path, tmp_path: Path) -> None:
    target = tmp_path / "a.png"

    run(home, "review", "show", SOURCE, "--picture", target)

    with Image.open(target) as picture:
        assert picture.size == (6, 8)
    assert target.stat().st_mode & 0o777 == 0o600
    assert isinstance(run(home, "review", "show", SOURCE, "--picture", target, code=1).exception, FileExistsError)
    missing = run(home, "review", "show", SOURCE, "--picture", tmp_path / "b.png", "--frame", "2", code=1)
    assert isinstance(missing.exception, ConfigurationError)
    assert not (tmp_path / "b.png").exists()


def test_a_redraw_says_its_boxes_or_that_there_are_none(home: Path) -> None:
    for words in ([], ["--box", "1,2,3"], ["--box", "a,b,c,d"], ["--nothing", "--box", "0,0,1,1"]):
        run(home, "review", "redraw", SOURCE, "--by", "anna", *words, code=2)

    (decision,) = answer(home, "review", "redraw", SOURCE, "--by", "anna", "--box", "0,0,1,2", "--box", "4,4,5,6")

    assert (decision["outcome"], decision["boxes"]) == ("accepted", [[0, 0, 1, 2], [4, 4, 5, 6]])
    with open_site(home).store.connect() as db:
        written = dcmread(home / db.execute(sa.select(instance.c.path)).scalar_one())
    changed = {(int(row), int(column)) for row, column in np.argwhere(written.pixel_array != pixels())}
    assert changed == {(0, 1), (4, 4), (4, 5)}  # the first corner is black already


def test_a_leak_comes_out_and_goes_in_again_with_its_original(home: Path, tmp_path: Path) -> None:
    run(home, "review", "accept", SERIES, "--by", "anna")
    assert answer(home, "review", "sample", "--fraction", "1", "--seed", "s")["drawn"] == [SOP]
    path = home / answer(home, "review", "drawn")[0]["path"]
    assert path.exists()

    run(home, "review", "audit", SOP, "--verdict", "leak", "--place", "pixels", "--series", "--by", "bert")

    assert not path.exists()
    (everything, *_) = answer(home, "review", "statistics")
    assert (everything["leaks"], everything["audited"]) == (1, 1)
    run(home, "review", "accept", SOURCE, "--by", "anna", code=3)
    (tmp_path / "original.dcm").write_bytes(ORIGINAL)
    run(home, "review", "redraw", SOURCE, "--nothing", "--by", "anna", "--original", tmp_path / "original.dcm")
    assert path.exists()
    run(home, "review", "audit", SOP, "--verdict", "clean", "--by", "bert", code=3)
    run(home, "review", "reopen", SOURCE, "--reason", "look-again", "--by", "anna")
    assert len(answer(home, "review", "show", SOURCE)["decisions"]) == 4


def test_a_project_s_key_is_made_rotated_and_destroyed_when_that_is_meant(home: Path) -> None:
    first = answer(home, "keys", "create", "lung", "--by", "anna")["key_id"]
    second = answer(home, "keys", "rotate", "lung", "--by", "anna")["key_id"]
    run(home, "keys", "destroy", "lung", "--by", "anna", code=1, said="n\n")
    assert [key["state"] for key in answer(home, "keys", "list")] == ["retired", "current"]

    run(home, "keys", "destroy", "lung", "--by", "anna", "--generation", "1", said="y\n")
    gone = answer(home, "keys", "destroy", "lung", "--by", "anna", "--yes")

    assert gone == {"destroyed": [second]}
    assert [key["state"] for key in answer(home, "keys", "list")] == ["destroyed", "destroyed"]
    assert first in run(home, "keys", "list").stdout
    assert list((home / "identity" / "projects").iterdir()) == []


def test_an_identity_is_told_to_who_asked_once_another_approved(home: Path, tmp_path: Path) -> None:
    site = open_site(home)
    key = reidentification.open_identity_key(site.store, site.config.identity_key, home)
    pseudonym = site.pseudonymiser.patient(PATIENT_ID)
    with site.store.begin() as db:
        vault = reidentification.Vault(key, site.pseudonymiser)
        known = [Known("patient", pseudonym, PATIENT_ID), Known("study", "2.25.5", "1.2.5")]
        reidentification.remember(db, vault, known)

    number = answer(home, "reidentify", "request", pseudonym, "--reason", "nodule", "--by", "anna")["number"]
    run(home, "reidentify", "approve", str(number), "--by", "anna", code=3)
    run(home, "reidentify", "show", str(number), "--by", "anna", code=3)
    assert answer(home, "reidentify", "approve", str(number), "--by", "bert")["state"] == "approved"
    told = answer(home, "reidentify", "show", str(number), "--by", "anna")
    run(home, "reidentify", "show", str(number), "--by", "anna", code=3)

    assert told == {"kind": "patient", "pseudonym": pseudonym, "original": PATIENT_ID}
    others = run(home, "ledger").output + run(home, "reidentify", "list").output
    assert PATIENT_ID not in others
    assert "reidentification:shown" in others

    table = answer(home, "reidentify", "request-map", "--reason", "scoring", "--by", "anna")["number"]
    run(home, "reidentify", "map", str(table), tmp_path / "map.csv", "--by", "anna", code=3)
    run(home, "reidentify", "approve", str(table), "--by", "bert")
    run(home, "reidentify", "map", str(table), tmp_path / "map.csv", "--by", "anna")
    assert (tmp_path / "map.csv").read_text().split() == ["id_old,id_new", f"{PATIENT_ID},{pseudonym}"]
    assert (tmp_path / "map.csv").stat().st_mode & 0o777 == 0o600


def test_a_site_whose_pseudonym_key_others_could_read_does_not_open(home: Path) -> None:
    (home / "identity" / "pseudonym.key").chmod(0o644)

    assert "open to others" in str(run(home, "review", "list", code=1).exception)

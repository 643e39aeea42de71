"""One changed image is an alarm; what hospitals do is none."""

from __future__ import annotations

import os
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from benchmarks.attacks import ATTACKS, BENIGN, is_compressed, to_jpeg_ls
from site_node.archive.anomaly import Finding, Kind, Watch, is_alarm
from site_node.archive.index import open_index
from site_node.archive.staging import Staging
from tests.site_node.archive.conftest import fill, slice_bytes

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    import sqlalchemy as sa

MASS = 20
NEED_A_PROCESS = {"cut off", "header merge of JPEG-LS", "to HTJ2K", "to JPEG 2000"}  # to decode, as two others do


@dataclass
class Ward:
    """A folder of originals, what is staged of it, and what was told."""

    originals: Path
    index: sa.Engine
    staging: Staging
    told: list[Finding] = field(default_factory=list)

    def stage(self) -> tuple[Finding, ...]:
        """Stage as a snapshot does and return what it found."""
        return self.staging.update({"originals": self.originals}, self.watch()).findings

    def look(self) -> None:
        """Look quickly."""
        self.staging.look({"originals": self.originals}, self.watch())

    def watch(self) -> Watch:
        """Return what hears of findings that alarm."""
        return Watch(MASS, self._hear)

    def _hear(self, found: Sequence[Finding]) -> None:
        self.told += found

    @property
    def victim(self) -> Path:
        """The file that is changed."""
        return self.originals / "study-0" / "0.dcm"


@pytest.fixture
def ward(tmp_path: Path) -> Ward:
    """Return four images and a text, none of them staged."""
    originals = tmp_path / "originals"
    fill(originals)
    index = open_index(tmp_path / "archive" / "index.db")
    return Ward(originals, index, Staging(tmp_path / "archive" / "staging", index))


def begin(ward: Ward, name: str, changes: dict[str, object]) -> None:
    if is_compressed(changes[name]):  # type: ignore[arg-type] # one of the two tables of changes
        to_jpeg_ls(ward.victim)
    assert ward.stage() == ()
    ward.staging.accept("first")


def cases(names: Iterable[str]) -> list[object]:
    return [pytest.param(name, marks=pytest.mark.slow) if name in NEED_A_PROCESS else name for name in names]


@pytest.mark.parametrize("name", cases(ATTACKS))
def test_each_attack_on_one_file_is_an_alarm(name: str, ward: Ward) -> None:
    begin(ward, name, dict(ATTACKS))

    ATTACKS[name](ward.victim)

    found = ward.stage()
    assert [finding.path for finding in found] == ["originals/study-0/0.dcm"]
    assert found[0].kind in {Kind.CHANGED, Kind.UNREADABLE}
    assert set(found) <= set(ward.told)
    assert ward.stage() == found  # and stays one, although the file is now known
    ward.index.dispose()


@pytest.mark.parametrize("name", cases(BENIGN))
def test_what_hospitals_do_to_every_file_is_no_alarm(name: str, ward: Ward) -> None:
    begin(ward, name, dict(BENIGN))

    for path in [ward.victim] if is_compressed(BENIGN[name]) else sorted(ward.originals.glob("*/*.dcm")):
        BENIGN[name](path)

    ward.look()
    assert ward.stage() == ()
    assert ward.told == []
    ward.index.dispose()


def test_new_images_and_one_deleted_image_are_no_alarm(ward: Ward) -> None:
    begin(ward, "touched", dict(BENIGN))
    (ward.originals / "new.dcm").write_bytes(slice_bytes(1, 7))
    ward.victim.unlink()

    assert ward.stage() == ()
    assert ward.told == []


def test_most_images_gone_is_an_alarm_at_the_first_look(ward: Ward) -> None:
    begin(ward, "touched", dict(BENIGN))
    for path in sorted(ward.originals.glob("*/*.dcm"))[:3]:
        path.unlink()

    ward.look()

    assert [finding.kind for finding in ward.told] == [Kind.MISSING] * 3


def test_an_encrypted_file_is_seen_before_any_pixels_are_read(ward: Ward) -> None:
    begin(ward, "touched", dict(BENIGN))
    ATTACKS["encrypted and renamed"](ward.victim)

    ward.look()

    assert ward.told == [Finding(Kind.UNREADABLE, "originals/study-0/0.dcm")]


def test_an_image_of_which_another_copy_is_whole_is_not_lost(ward: Ward) -> None:
    (ward.originals / "copy.dcm").write_bytes(ward.victim.read_bytes())
    begin(ward, "touched", dict(BENIGN))
    ward.victim.unlink()

    assert ward.stage() == ()


def test_images_that_are_put_back_end_the_findings(ward: Ward) -> None:
    begin(ward, "touched", dict(BENIGN))
    whole = ward.victim.read_bytes()
    ATTACKS["all encrypted"](ward.victim)
    assert ward.stage()

    ward.victim.write_bytes(whole)

    assert ward.stage() == ()


def test_an_image_whose_name_is_no_utf_8_is_watched_like_every_other(ward: Ward) -> None:
    named = Path(os.fsdecode(os.fsencode(ward.originals) + b"/M\xfcller.dcm"))
    ward.victim.rename(named)
    begin(ward, "touched", dict(BENIGN))

    ATTACKS["pixels zeroed"](named)

    found = ward.stage()
    assert [(finding.kind, os.fsencode(finding.path)) for finding in found] == [
        (Kind.CHANGED, b"originals/M\xfcller.dcm")
    ]


def test_what_the_site_makes_of_images_is_not_judged(ward: Ward, tmp_path: Path) -> None:
    own = tmp_path / "deidentified"
    own.mkdir()
    (own / "a.dcm").write_bytes(slice_bytes(0, 5))
    roots = {"originals": ward.originals, "deidentified": own}
    ward.staging.update(roots, ward.watch())
    ward.staging.accept("first")
    os.truncate(own / "a.dcm", 200)

    assert ward.staging.update(roots, ward.watch()).findings == ()


@pytest.mark.parametrize(
    ("kinds", "known", "alarm"),
    [
        ([], 100, False),
        ([Kind.CHANGED], 100, True),
        ([Kind.UNREADABLE], 100, True),
        ([Kind.MISSING] * 19, 100, False),
        ([Kind.MISSING] * 20, 100, True),
        ([Kind.MISSING], 1, False),
        ([Kind.MISSING] * 2, 4, False),
        ([Kind.MISSING] * 3, 4, True),
    ],
)
def test_the_first_changed_image_alarms_and_missing_ones_in_mass(kinds: list[Kind], known: int, *, alarm: bool) -> None:
    assert is_alarm([Finding(kind, "a") for kind in kinds], known, MASS) is alarm

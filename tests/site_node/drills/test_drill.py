"""A drill passes over a whole backup alone: each damage is told, and nothing unproved is called safe.

Real restic and a real Orthanc. There is no coordinator here, which each drill tells too: see the scenarios.
"""

from __future__ import annotations

import os
import shutil
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import TYPE_CHECKING

import imagecodecs
import psutil
import pytest
from pydicom.data import get_testdata_file

from site_node import alarms
from site_node.archive import anomaly
from site_node.archive.lists import MANIFEST, digest_of
from site_node.archive.repository import GOOD
from site_node.drills import record
from site_node.drills.report import Mode
from site_node.drills.restoring import NOT_OURS
from tests.site_node.drills.conftest import UNREACHABLE, Drilled, drills_of

if TYPE_CHECKING:
    from collections.abc import Callable

    from site_node.drills.schedule import Last

pytestmark = pytest.mark.skipif(
    shutil.which("restic") is None or not Path("/usr/sbin/Orthanc").exists(), reason="needs restic and orthanc"
)


def packs(drilled: Drilled) -> list[Path]:
    """Return the packs of the repository, the largest last."""
    data = drilled.place.home.root.parent / "repo" / "data"
    return sorted((path for path in data.rglob("*") if path.is_file()), key=lambda path: path.stat().st_size)


def backup(drilled: Drilled) -> str:
    """Take a good snapshot of the staging folder as it lies there, on no record; return its id."""
    repository = drilled.place.archive.repository
    made = repository.backup(drilled.place.archive.staging, GOOD, lambda _part: None, lambda _words: None)
    return next(one.id for one in repository.snapshots() if one.id.startswith(made))


def snapshot_again(drilled: Drilled) -> None:
    """Take a snapshot of the staging folder as it lies there, and put it on the record as a good one."""
    archive, made = drilled.place.archive, backup(drilled)
    with drilled.place.store.begin() as db:
        manifest = digest_of(archive.staging / MANIFEST)
        alarms.record(db, made, 5, manifest, datetime.now(UTC), is_good=True)


def last_of(drilled: Drilled, mode: Mode) -> Last:
    with drilled.place.store.connect() as db:
        return record.last(db)[mode]


def test_a_whole_backup_is_proved_through_the_pacs_and_told_in_a_signed_report(drilled: Drilled) -> None:
    done = drilled.run()
    files, rebuilt = done.report.files, done.report.rebuilt

    assert done.report.problems == (UNREACHABLE,)
    assert files.model_dump(exclude={"size"}) == {
        "archived": 5, "proved": 4, "digest_only": 1, "refused": 0, "missing": 0, "bad": 0,
    }  # fmt: skip
    assert rebuilt is not None
    assert rebuilt.model_dump() == {
        "keys": True, "database": True, "replay": True, "consents": True, "federation": False, "records_behind": 0,
    }  # fmt: skip
    stages = {stage.name for stage in done.report.stages}
    assert stages == {"locate", "state", "restore", "rebuild", "start", "store", "retrieve", "compare"}
    assert b"MRN" not in done.path.read_bytes()
    assert list((drilled.place.home.root / "drills" / "scratch").iterdir()) == []
    assert drilled.alarm is None


@pytest.mark.slow
@pytest.mark.parametrize(("count", "told"), [(1, ()), (5, ("the PACS refuses more images than it takes",))])
def test_a_file_that_the_pacs_cannot_read_is_named_and_most_have_to_be_taken(
    drilled: Drilled, count: int, told: tuple[str, ...]
) -> None:
    unreadable = Path(str(get_testdata_file("rtdose_rle_1frame.dcm")))
    for number in range(count):
        shutil.copy(unreadable, drilled.place.originals / f"{number}.dcm")
    drilled.place.archive.take()

    report = drilled.run().report

    assert set(report.problems) == {UNREACHABLE, *told}
    assert (report.files.proved, report.files.refused, report.files.missing) == (4, count, 0)
    assert report.refused == (digest_of(unreadable),) * count


@pytest.mark.slow
def test_a_damaged_pack_is_told_and_pauses_no_training(drilled: Drilled) -> None:
    pack = packs(drilled)[-1]
    content = bytearray(pack.read_bytes())
    content[len(content) // 2] ^= 1
    pack.chmod(0o600)
    pack.write_bytes(content)

    done = drilled.run(Mode.FULL)

    assert done.report.files.missing > 0
    assert done.report.files.proved + done.report.files.missing + done.report.files.digest_only == 5
    assert any("restic restore failed" in problem for problem in done.report.problems)
    assert drilled.alarm is None
    assert not last_of(drilled, Mode.FULL).passed


@pytest.mark.slow
def test_a_pack_that_is_gone_is_told(drilled: Drilled) -> None:
    packs(drilled)[-1].unlink()

    report = drilled.run().report

    assert report.problems != (UNREACHABLE,)
    assert report.files.proved < 4


@pytest.mark.slow
def test_an_instance_that_the_snapshot_lost_is_missing(drilled: Drilled) -> None:
    min(drilled.place.archive.staging.rglob("*.jph")).unlink()
    snapshot_again(drilled)

    assert drilled.problems() == ["1 files are missing"]


@pytest.mark.slow
def test_a_pixel_that_was_changed_in_the_archive_is_an_alarm(drilled: Drilled) -> None:
    part = min(drilled.place.archive.staging.rglob("*.jph"))
    frame = imagecodecs.htj2k_decode(part.read_bytes())
    frame[0, 0] ^= 1
    part.write_bytes(imagecodecs.htj2k_encode(frame))
    snapshot_again(drilled)

    assert drilled.problems() == ["1 files came back as others than were archived"]
    assert drilled.alarm is not None
    assert drilled.alarm.counts == {"file-differs": 1}


@pytest.mark.slow
def test_a_snapshot_with_another_manifest_than_the_record_says_is_an_alarm(drilled: Drilled) -> None:
    archive = drilled.place.archive
    manifest = archive.staging / MANIFEST
    recorded = digest_of(manifest)
    manifest.write_bytes(manifest.read_bytes() + b"\n")
    made = backup(drilled)
    with drilled.place.store.begin() as db:
        alarms.record(db, made, 5, recorded, datetime.now(UTC), is_good=True)

    assert "the snapshot's manifest is not the one on this site's record" in drilled.problems()
    assert drilled.alarm is not None


@pytest.mark.slow
def test_a_snapshot_that_somebody_else_made_is_an_alarm(drilled: Drilled) -> None:
    backup(drilled)

    done = drilled.run()

    assert NOT_OURS in done.report.problems
    assert drilled.alarm is not None
    assert done.report.files.proved == 4


@pytest.mark.slow
def test_a_snapshot_that_was_killed_before_it_was_on_the_record_is_nobody_elses(drilled: Drilled) -> None:
    with drilled.place.store.begin() as db:
        alarms.begin(db, digest_of(drilled.place.archive.staging / MANIFEST))
    backup(drilled)  # and then the process was killed

    assert drilled.problems() == []
    assert drilled.alarm is None

    drilled.place.archive.take()
    backup(drilled)
    assert NOT_OURS in drilled.problems()  # what was begun before the last one on record excuses nothing


@pytest.mark.slow
def test_a_last_good_snapshot_that_is_gone_is_told(drilled: Drilled) -> None:
    made = drilled.place.archive.chosen()
    shutil.rmtree(drilled.place.home.root.parent / "repo" / "snapshots")
    (drilled.place.home.root.parent / "repo" / "snapshots").mkdir()

    done = drilled.run()

    assert done.report.snapshot == made
    assert "the last good snapshot is not in the repository any more" in done.report.problems


@pytest.mark.slow
def test_a_recovery_key_in_the_safe_that_is_another_is_told(drilled: Drilled, tmp_path: Path) -> None:
    other = tmp_path / "from-the-safe"
    other.touch(0o600)
    other.write_text(os.urandom(64).hex())

    done = drilled.run(recovery_key=other)

    assert "the recovery key is another than the one the keys were wrapped with" in done.report.problems
    assert done.report.rebuilt is None
    assert done.report.files.proved == 4


@pytest.mark.slow
def test_a_wrong_password_is_told_in_one_line(drilled: Drilled) -> None:
    (drilled.place.home.root / "archive" / "password").write_text("another\n")

    assert drilled.problems() == ["restic snapshots failed (1): wrong password or no key found", "no image was proved"]


# pynetdicom leaves a socket behind where nobody listens any more.
@pytest.mark.filterwarnings("ignore:.*SSLSocket:pytest.PytestUnraisableExceptionWarning")
@pytest.mark.slow
def test_a_pacs_that_dies_in_the_middle_fails_the_drill(drilled: Drilled) -> None:
    def kill(_done: int, _total: int) -> None:
        for child in psutil.Process().children(recursive=True):
            if child.name() == "Orthanc":
                child.kill()
                child.wait()

    done = drills_of(drilled.place, lambda: datetime.now(UTC), 100).run(Mode.FULL, progress=kill)

    assert any("PACS" in problem for problem in done.report.problems)
    assert not last_of(drilled, Mode.FULL).passed
    assert [child for child in psutil.Process().children() if child.name() == "Orthanc"] == []


@pytest.mark.slow
def test_a_record_that_was_shortened_since_is_an_alarm(drilled: Drilled) -> None:
    with drilled.place.store.begin() as db:
        db.exec_driver_sql("DROP TRIGGER ledger_forbids_delete")
        db.exec_driver_sql("DELETE FROM ledger")

    assert any("ledger came back as others" in problem for problem in drilled.problems())
    assert drilled.alarm is not None
    assert drilled.alarm.counts == {"record-differs": 1}


@pytest.mark.slow
def test_a_key_outside_the_folder_of_keys_is_in_no_backup(drilled: Drilled, tmp_path: Path) -> None:
    place = drilled.place
    key = place.home.pseudonym_key.replace(tmp_path / "pseudonym.key")
    config = place.home.root / "site.toml"
    config.write_text(f'pseudonym_key = "file:{key}"\n{config.read_text()}')
    place.archive.take()

    assert drills_of(place, lambda: datetime.now(UTC)).problems() == ["a key did not come back: ConfigurationError"]


@pytest.mark.slow
def test_a_snapshot_that_is_too_old_fails_the_drill(drilled: Drilled) -> None:
    later = drills_of(drilled.place, lambda: datetime.now(UTC) + timedelta(hours=48))

    assert later.problems() == ["the last good snapshot is 48.0 h old, more than 26 h"]


class Stopped(BaseException):
    """As a power cut is: nothing that the drill does after it counts."""


def stop_after(files: int) -> Callable[[int, int], None]:
    def stop(done: int, _total: int) -> None:
        if done > files:
            raise Stopped

    return stop


@pytest.mark.slow
def test_a_drill_that_was_stopped_has_failed_and_a_full_one_goes_on(drilled: Drilled) -> None:
    heard: list[str] = []

    with pytest.raises(Stopped):
        drilled.run(Mode.FULL, progress=stop_after(3))
    stopped = last_of(drilled, Mode.FULL)
    done = drilled.run(Mode.FULL, say=heard.append)

    assert (stopped.passed, stopped.ended_at) == (False, None)
    assert len(heard) == 1
    assert "of 3 studies are done" in heard[0]
    assert done.report.problems == (UNREACHABLE,)
    assert (done.report.files.archived, done.report.files.proved, done.report.files.digest_only) == (5, 4, 1)


@pytest.mark.slow
@pytest.mark.parametrize("mode", [Mode.ATTACK, Mode.FAILOVER])
def test_an_attack_and_a_failover_lose_nothing(drilled: Drilled, mode: Mode) -> None:
    done = drilled.run(mode)

    assert done.report.problems == ()
    assert (done.report.files.proved, done.report.files.digest_only) == (4, 1)
    assert drilled.alarm is None
    assert list((drilled.place.home.root / "drills" / "scratch").iterdir()) == []


@pytest.mark.slow
def test_an_alarm_that_hears_nothing_fails_the_attack(drilled: Drilled, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(anomaly, "is_alarm", lambda *_: False)

    assert drilled.problems(Mode.ATTACK)[:2] == [
        "an attack was archived as if nothing had happened",
        "an attack sounded no alarm",
    ]

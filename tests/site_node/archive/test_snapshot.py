"""What a snapshot reports as kept is kept: with real restic, killed processes, full disks and flipped bits."""

from __future__ import annotations

import json
import os
import random
import shutil
import signal
import sqlite3
import subprocess
import sys
import time
from contextlib import closing, suppress
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING

import psutil
import pytest
from pydicom.data import get_testdata_file

from benchmarks.attacks import encrypt
from site_node import alarms, away
from site_node.app import open_archive, open_site
from site_node.archive import state
from site_node.archive.anomaly import Kind
from site_node.archive.restoring import Wanted
from site_node.archive.snapshot import Archive
from site_node.archive.stores import read_settings
from site_node.config import SiteConfig, SiteHome
from site_node.errors import ArchiveAlarm, ArchiveError, ConfigurationError
from tests.site_node.archive.conftest import DAYS, Place, slice_bytes

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

PROGRAM = Path(sys.executable).parent / "filmroom-site"
pytestmark = pytest.mark.skipif(shutil.which("restic") is None, reason="needs restic")


def run(place: Place, *arguments: str | Path, said: str = "") -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [PROGRAM, "--home", place.home.root, "archive", *arguments],
        input=said,
        capture_output=True,
        text=True,
        check=False,
        env={**os.environ, "COLUMNS": "200", "NO_COLOR": "1"},
    )


def below(folder: Path) -> dict[str, bytes]:
    return {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


@pytest.fixture
def archived(place: Place) -> Place:
    """Return a site of which a snapshot was taken."""
    place.archive.create()
    place.archive.take()
    return place


def test_everything_comes_back_the_unchanged_is_not_read_again_and_a_changed_image_is_an_alarm(
    place: Place, tmp_path: Path
) -> None:
    place.archive.create()

    first, second = place.archive.take(), place.archive.take()
    restored = place.archive.restore(tmp_path / "back", Wanted())

    assert (first.files, first.read, second.read) == (5, 5, 0)
    assert [one.id for one in place.archive.repository.snapshots()] == [first.id, second.id]
    assert below(tmp_path / "back" / "originals") == below(place.originals)
    assert (restored.files, restored.missing) == (5, 0)
    assert sorted(path.name for path in (tmp_path / "back").iterdir()) == ["originals"]
    for secret in ("password", "recovery.key"):
        assert (place.home.root / "archive" / secret).stat().st_mode & 0o777 == 0o600

    encrypt(place.originals / "study-0" / "0.dcm")
    assert not place.archive.take().is_good
    with place.store.connect() as db:
        alarm = alarms.open_alarm(db)
    assert alarm is not None
    assert (alarm.counts, alarm.last_good) == ({"unreadable": 1}, second.id)


@pytest.mark.slow
def test_a_study_a_patient_or_a_day_comes_back_alone(archived: Place, tmp_path: Path) -> None:
    whole = below(archived.originals)
    wanted = [(Wanted(StudyInstanceUID="1.2.826.0.1.3680043.99.0"), 0), (Wanted(PatientID="MRN-1"), 1)]
    wanted += [(Wanted(StudyDate=DAYS[0]), 0)]

    for number, (what, study) in enumerate(wanted):
        archived.archive.restore(tmp_path / str(number), what)

        here = {path: content for path, content in whole.items() if path.startswith(f"study-{study}/")}
        assert below(tmp_path / str(number) / "originals") == here


@pytest.mark.slow
def test_a_restore_and_a_snapshot_of_the_unchanged_load_no_reader_of_dicom_and_no_client_of_s3(
    archived: Place, tmp_path: Path
) -> None:
    """They take as long to load as hundreds of slices to restore."""
    start: list[str | Path] = [sys.executable, "-X", "importtime", "-m", "site_node", "--home", archived.home.root]
    restore: list[str | Path] = ["restore", tmp_path / "back", "--everything"]

    for arguments, builds in ((restore, True), (["snapshot"], False)):
        done = subprocess.run([*start, "archive", *arguments], capture_output=True, text=True, check=True)
        loaded = {line.rpartition("|")[2].strip() for line in done.stderr.splitlines() if line.startswith("import ")}

        assert not {"pydicom", "botocore"} & loaded
        assert ("imagecodecs" in loaded) is builds


@pytest.mark.slow
def test_the_commands_of_a_restore_end_as_their_help_says(place: Place, tmp_path: Path) -> None:
    place.archive.create()
    place.archive.take()

    done = [
        run(place, "restore", tmp_path / "patient", "--patient", said="MRN-1\n"),
        run(place, "restore", tmp_path / "day", "--day", f"{DAYS[0][:4]}-{DAYS[0][4:6]}-{DAYS[0][6:]}"),
        run(place, "restore", tmp_path / "none", "--study", "1.2.3"),
        run(place, "restore", tmp_path / "day", "--everything"),  # not a clean place
        run(place, "restore", tmp_path / "what"),
    ]

    assert [one.returncode for one in done] == [0, 0, 1, 4, 2]
    for name, study in (("patient", 1), ("day", 0)):
        here = below(tmp_path / name / "originals")
        assert here == {path: c for path, c in below(place.originals).items() if path.startswith(f"study-{study}/")}
    assert not any("MRN" in one.stdout + one.stderr for one in done)


@pytest.mark.slow
def test_a_flipped_bit_is_found_by_the_check_and_told_by_the_restore(archived: Place, tmp_path: Path) -> None:
    pack = max((tmp_path / "repo" / "data").rglob("*"), key=lambda path: path.stat().st_size * path.is_file())
    pack.chmod(0o600)
    damaged = bytearray(pack.read_bytes())
    damaged[len(damaged) // 3] ^= 1
    pack.write_bytes(damaged)

    with pytest.raises(ArchiveError, match="restic check failed"):
        archived.archive.check()
    restored = archived.archive.restore(tmp_path / "back", Wanted())
    assert restored.missing > 0
    assert "restic restore failed" in restored.complaint
    # What is whole comes back all the same.
    back, whole = below(tmp_path / "back"), below(archived.originals)
    kept = {name: content for name, content in back.items() if name.startswith("originals/")}
    assert len(kept) == restored.files == 5 - restored.missing
    assert all(whole[name.removeprefix("originals/")] == content for name, content in kept.items())


@pytest.mark.slow
def test_an_attack_is_an_alarm_that_pauses_and_names_the_last_good_snapshot(place: Place, tmp_path: Path) -> None:
    place.archive.create()
    good = place.archive.take()
    whole = below(place.originals)
    encrypt(place.originals / "study-0" / "0.dcm")

    attacked = run(place, "snapshot")

    assert attacked.returncode == 7
    assert f"last good snapshot is {good.id[:12]}" in attacked.stderr
    assert "study-0" not in attacked.stdout + attacked.stderr
    with place.store.connect() as db:
        alarm = alarms.open_alarm(db)
        assert alarm is not None
        assert alarms.last_good(db) == good.id
    assert run(place, "forget").returncode == 7
    shown = run(place, "alarm", "--paths", "--json")
    assert json.loads(shown.stdout)["files"] == [{"kind": "unreadable", "path": "originals/study-0/0.dcm"}]
    # The last good snapshot is what a restore takes.
    assert run(place, "restore", tmp_path / "back", "--everything").returncode == 0
    assert below(tmp_path / "back" / "originals") == whole

    shutil.copy(tmp_path / "back" / "originals" / "study-0" / "0.dcm", place.originals / "study-0" / "0.dcm")
    assert run(place, "snapshot").returncode == 7  # until a person has looked
    assert run(place, "clear", "--by", "ana", "--reason", "restored").returncode == 0
    assert run(place, "snapshot").returncode == 0
    assert run(place, "alarm").returncode == 0


@pytest.mark.slow
def test_a_change_that_was_meant_is_accepted_and_one_that_was_not_alarms_again(place: Place) -> None:
    place.archive.create()
    place.archive.take()
    (place.originals / "study-0" / "0.dcm").write_bytes(slice_bytes(0, 0, PixelData=bytes(2 * 192 * 192)))
    assert not place.archive.take().is_good

    place.archive.clear("ana", "not looked at", accept=False)
    assert not place.archive.take().is_good
    place.archive.clear("ana", "the scanner was repaired", accept=True)

    assert place.archive.take().is_good
    with pytest.raises(ConfigurationError, match="no alarm is open"):
        place.archive.clear("ana", "again", accept=False)


@pytest.mark.slow
def test_the_site_itself_comes_back_with_its_keys_wrapped(place: Place, tmp_path: Path) -> None:
    place.archive.create()
    made = place.archive.take().id

    place.archive.restore(tmp_path / "back", Wanted(), with_state=True)

    back = SiteHome(tmp_path / "back" / "site")
    with closing(sqlite3.connect(back.database)) as db:  # what a restore at the rebuilt site takes is the newest
        assert db.execute("SELECT id, files, is_good FROM archive_snapshot").fetchall() == [(made, 5, 1)]
    assert back.pseudonym_key.read_bytes() == place.home.pseudonym_key.read_bytes()
    assert back.pseudonym_key.stat().st_mode & 0o777 == 0o600
    assert (back.root / "site.toml").read_bytes() == (place.home.root / "site.toml").read_bytes()
    with closing(sqlite3.connect(back.database)) as db:
        entries = {entry for (entry,) in db.execute("SELECT entry FROM ledger")}
    assert "site:archive:created" in entries
    key = place.home.pseudonym_key.read_bytes()
    assert not any(key in content for content in below(place.archive.staging).values())

    (place.home.root / "archive" / "recovery.key").write_text("00" * 64)
    with pytest.raises(ArchiveError, match="recovery key is another"):
        place.archive.restore(tmp_path / "other", Wanted(), with_state=True)


def test_the_journal_of_a_restore_that_was_killed_is_not_played(place: Place, tmp_path: Path) -> None:
    place.archive.create()
    place.archive.take()
    target, key = tmp_path / "site", place.archive.recovery_key()
    state.restore(place.archive.staging, target, key)
    journal = target / "site.db-wal"
    with closing(sqlite3.connect(target / "site.db")) as db:
        db.execute("CREATE TABLE killed (n)")
        db.commit()
        left = journal.read_bytes()
    journal.write_bytes(left)

    state.restore(place.archive.staging, target, key)

    with closing(sqlite3.connect(target / "site.db")) as db:
        assert db.execute("SELECT name FROM sqlite_master WHERE name = 'killed'").fetchall() == []


@pytest.mark.slow
def test_a_touched_staging_folder_is_not_believed(place: Place, tmp_path: Path) -> None:
    place.archive.create()
    place.archive.take()
    part = next((place.archive.staging / "studies").rglob("*.jph"))
    part.write_bytes(b"encrypted" + part.read_bytes()[9:])
    next((place.archive.staging / "studies").rglob("pixels.jsonl")).unlink()

    place.archive.take()

    place.archive.restore(tmp_path / "back", Wanted())
    assert below(tmp_path / "back" / "originals") == below(place.originals)


@pytest.mark.slow
def test_a_file_whose_time_was_set_back_is_read_all_the_same(place: Place) -> None:
    place.archive.create()
    place.archive.take()
    path = place.originals / "study-0" / "0.dcm"
    times = path.stat()
    path.write_bytes(slice_bytes(0, 0, PatientName="OTHER^NAME"))
    os.utime(path, ns=(times.st_atime_ns, times.st_mtime_ns))

    assert place.archive.take().read == 1
    assert place.archive.take(read_all=True).read == 5


@pytest.mark.slow
def test_a_file_that_cannot_be_read_leaves_no_snapshot_that_counts(place: Place) -> None:
    place.archive.create()
    (place.originals / "study-0" / "0.dcm").chmod(0)
    command = f"{PROGRAM} --home {place.home.root} archive snapshot"

    # Root reads what nobody may, unless that is taken from it.
    without = ["/sbin/capsh", "--drop=cap_dac_override,cap_dac_read_search", "--", "-c", command]
    done = subprocess.run(without, capture_output=True, text=True, check=False)

    assert done.returncode == 1
    assert "1 files could not be staged" in done.stderr
    assert place.archive.repository.snapshots() == []


def test_originals_that_are_not_mounted_stop_the_snapshot(place: Place) -> None:
    place.archive.create()
    place.originals.rename(place.originals.with_name("elsewhere"))

    with pytest.raises(ConfigurationError, match="is it mounted"):
        place.archive.take()


@pytest.mark.slow
def test_the_schedule_keeps_one_good_snapshot_a_day_and_not_while_an_alarm_is_open(place: Place) -> None:
    place.archive.create()
    taken = [place.archive.take() for _ in range(3)]

    place.archive.forget()

    assert [one.id for one in place.archive.repository.snapshots()] == [taken[-1].id]
    with place.store.begin() as db:
        alarms.sound(db, ["missing"], place.archive._clock())  # noqa: SLF001 -- the moment of the site
    with pytest.raises(ArchiveAlarm, match="no snapshot is forgotten"):
        place.archive.forget()


def is_staging(place: Place, _command: psutil.Process) -> bool:
    return len(list((place.archive.staging / "studies").glob("*/*/px/*"))) > 10


def is_storing(_place: Place, command: psutil.Process) -> bool:
    return "backup" in runs_restic(command)


def is_listing(_place: Place, command: psutil.Process) -> bool:
    return "snapshots" in runs_restic(command)  # restic has ended well, and nothing is on record yet


def runs_restic(command: psutil.Process) -> list[str]:
    """Return the arguments of the restic that a command runs; none if it runs none."""
    with suppress(psutil.Error):
        for child in command.children():
            if child.name() == "restic":
                return child.cmdline()
    return []


@pytest.mark.slow
@pytest.mark.parametrize("is_time", [is_staging, is_storing, is_listing])
def test_a_snapshot_that_is_killed_counts_whole_or_not_at_all(
    place: Place, tmp_path: Path, is_time: Callable[[Place, psutil.Process], bool]
) -> None:
    place.archive.create()
    first = place.archive.take()
    before = below(place.originals)
    for number in range(10, 40):
        (place.originals / "study-1" / f"{number}.dcm").write_bytes(slice_bytes(1, number))

    process = subprocess.Popen([PROGRAM, "--home", place.home.root, "archive", "snapshot"], start_new_session=True)
    command = psutil.Process(process.pid)
    while not is_time(place, command):
        assert process.poll() is None
        time.sleep(0.002)
    os.killpg(process.pid, signal.SIGKILL)
    assert process.wait() == -signal.SIGKILL

    with place.store.connect() as db:
        counted = alarms.last_good(db)
    assert counted == first.id  # it was told to nobody, so it does not count
    place.archive.restore(tmp_path / "killed", Wanted(), first.id)
    assert below(tmp_path / "killed" / "originals") == before
    taken = place.archive.take()
    assert {first.id, taken.id} <= {one.id for one in place.archive.repository.snapshots()}
    place.archive.check()
    place.archive.restore(tmp_path / "back", Wanted())
    assert below(tmp_path / "back" / "originals") == below(place.originals)


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """Yield a file system of one megabyte."""
    folder = tmp_path / "small"
    folder.mkdir()
    mounted = subprocess.run(
        ["/bin/mount", "-t", "tmpfs", "-o", "size=1m", "tmpfs", folder], capture_output=True, check=False
    )
    if mounted.returncode:
        pytest.skip("may not mount")
    yield folder
    subprocess.run(["/bin/umount", folder], check=True)


@pytest.mark.slow
def test_a_full_repository_leaves_no_snapshot_that_counts(place: Place, small_disk: Path) -> None:
    toml = place.home.root / "site.toml"
    toml.write_text(toml.read_text().replace(str(small_disk.parent / "repo"), str(small_disk / "repo")))
    assert run(place, "init").returncode == 0
    noise = random.Random(1)  # noqa: S311 -- bytes that do not compress
    (place.originals / "large.bin").write_bytes(noise.randbytes(2 << 20))

    full = run(place, "snapshot")

    assert full.returncode == 1
    assert "restic backup failed" in full.stderr
    assert json.loads(run(place, "list", "--json").stdout) == []
    (place.originals / "large.bin").unlink()
    for path in (small_disk / "repo" / "data").rglob("*"):
        if path.is_file():
            path.unlink()  # what a person makes room with
    assert run(place, "snapshot").returncode == 0


@pytest.mark.slow
def test_a_full_staging_disk_is_told_and_leaves_no_snapshot_that_counts(place: Place, small_disk: Path) -> None:
    place.archive.create()
    (place.home.root / "archive" / "staging").symlink_to(small_disk)
    noise = random.Random(1)  # noqa: S311 -- bytes that do not compress
    (place.originals / "large.bin").write_bytes(noise.randbytes(2 << 20))

    full = run(place, "snapshot")

    assert full.returncode == 6
    assert "No space left" in full.stderr
    assert place.archive.repository.snapshots() == []


def test_what_a_store_asks_for_comes_from_a_secret_file(tmp_path: Path) -> None:
    path = tmp_path / "s3.env"
    path.write_text("# S3\nAWS_ACCESS_KEY_ID=a\nAWS_SECRET_ACCESS_KEY=b=c\n")
    path.chmod(0o644)
    with pytest.raises(ConfigurationError, match="open to others"):
        read_settings(path)
    path.chmod(0o600)

    assert read_settings(path) == {"AWS_ACCESS_KEY_ID": "a", "AWS_SECRET_ACCESS_KEY": "b=c"}
    for wrong in ("RESTIC_PASSWORD=x", "PATH=/tmp", "hunter2"):
        path.write_text(wrong)
        with pytest.raises(ConfigurationError, match="line 1 is not a setting") as told:
            read_settings(path)
        assert "hunter2" not in str(told.value)


def test_two_processes_do_not_work_on_an_archive_at_once(place: Place) -> None:
    (place.home.root / "archive").mkdir()

    with place.archive._alone(), pytest.raises(ConfigurationError, match="another process"):  # noqa: SLF001 -- what another process holds
        place.archive.look()


def test_a_site_without_a_repository_has_no_archive(place: Place) -> None:
    with pytest.raises(ConfigurationError, match="name its repository"):
        Archive(place.home, SiteConfig("north"), place.store, lambda: datetime.now(UTC))


@pytest.mark.slow
def test_tiers_that_cannot_be_used_stop_snapshots_and_no_restore(archived: Place, tmp_path: Path) -> None:
    with (archived.home.root / "site.toml").open("a") as toml:
        toml.write(f'[tiers]\nmode = "complete-cloud"\nfolder = "{archived.originals}"\n')
    archive = open_archive(open_site(archived.home.root))

    with pytest.raises(ConfigurationError, match="complete-cloud demands a copy"):
        archive.take()
    archive.restore(tmp_path / "back", Wanted())

    assert below(tmp_path / "back" / "originals") == below(archived.originals)


def test_a_look_does_not_call_good_what_is_away_and_no_tiers_know(archived: Place) -> None:
    path = archived.originals / "study-0" / "0.dcm"
    away.put([(path, away.Mark("f" * 64, path.stat().st_size, "0" * 64))])
    path.unlink()

    for look in (archived.archive.look, archived.archive.take):
        with pytest.raises(ArchiveError, match=r"\[tiers\] of site.toml does not know it"):
            look()
    with archived.store.connect() as db:
        assert alarms.open_alarm(db) is None


@pytest.mark.slow
def test_images_are_compared_with_the_last_good_snapshot_though_the_index_is_gone(archived: Place) -> None:
    index = archived.home.root / "archive" / "index.db"
    for path in index.parent.glob("index.db*"):
        path.unlink()
    (archived.originals / "study-0" / "0.dcm").write_bytes(slice_bytes(0, 0, PixelData=bytes(2 * 192 * 192)))

    taken = archived.archive.take()

    assert not taken.is_good
    assert [finding.kind for finding in archived.archive.findings()] == [Kind.CHANGED]


@pytest.mark.slow
def test_a_look_that_finds_an_attack_takes_a_snapshot_at_once(archived: Place) -> None:
    encrypt(archived.originals / "study-0" / "0.dcm")

    looked = run(archived, "look")

    assert looked.returncode == 7
    assert [one.is_good for one in archived.archive.repository.snapshots()] == [True, False]


@pytest.mark.slow
def test_a_good_snapshot_that_an_alarm_named_is_not_forgotten_when_it_is_cleared(place: Place) -> None:
    place.archive.create()
    named = place.archive.take()
    (place.originals / "study-0" / "0.dcm").write_bytes(slice_bytes(0, 0, PixelData=bytes(2 * 192 * 192)))
    suspect = place.archive.take()
    place.archive.clear("ana", "taken for an edit", accept=True)
    surplus, last = place.archive.take(), place.archive.take()

    place.archive.forget()

    kept = {one.id for one in place.archive.repository.snapshots()}
    assert kept == {named.id, suspect.id, last.id}
    assert surplus.id not in kept


@pytest.mark.slow
def test_a_good_snapshot_that_somebody_removed_is_told(archived: Place) -> None:
    with archived.store.connect() as db:
        good = alarms.last_good(db)
    archived.archive.repository._run("forget", good)  # noqa: SLF001 -- as one who has the password does

    done = run(archived, "snapshot")

    assert done.returncode == 1
    assert f"the last good snapshot, {good[:12]}, is not in the repository any more" in done.stderr
    assert run(archived, "snapshot").returncode == 0


@pytest.mark.slow
def test_a_file_whose_name_is_no_utf_8_comes_back(place: Place, tmp_path: Path) -> None:
    name = b"M\xfcller\n.dcm"
    (place.originals / os.fsdecode(name)).write_bytes(slice_bytes(1, 7))
    place.archive.create()
    assert run(place, "snapshot").returncode == 0

    place.archive.restore(tmp_path / "back", Wanted())

    assert below(tmp_path / "back" / "originals") == below(place.originals)
    encrypt(place.originals / os.fsdecode(name))
    assert run(place, "snapshot").returncode == 7
    assert run(place, "alarm", "--paths").returncode == 7


@pytest.mark.slow
def test_a_restore_needs_no_lock_and_nothing_written(archived: Place, tmp_path: Path) -> None:
    start: list[str | Path] = [
        "restic",
        "-r",
        tmp_path / "repo",
        "--password-file",
        archived.home.root / "archive" / "password",
    ]
    process = subprocess.Popen([*start, "check", "--read-data"], stdout=subprocess.DEVNULL)
    while not any((tmp_path / "repo" / "locks").iterdir()) and process.poll() is None:
        time.sleep(0.005)
    process.kill()
    process.wait()
    assert any((tmp_path / "repo" / "locks").iterdir())
    before = below(tmp_path / "repo")

    archived.archive.restore(tmp_path / "back", Wanted())

    assert below(tmp_path / "back" / "originals") == below(archived.originals)
    assert below(tmp_path / "repo") == before
    # And a snapshot takes away the lock that nobody holds any more.
    assert archived.archive.take().is_good


@pytest.mark.slow
def test_an_index_that_was_lost_is_made_anew_and_everything_comes_back(archived: Place, tmp_path: Path) -> None:
    for path in (tmp_path / "repo" / "index").iterdir():
        path.unlink()
    shutil.rmtree(archived.home.root / "archive" / "cache")
    for broken in (archived.archive.check, lambda: archived.archive.restore(tmp_path / "back", Wanted())):
        with pytest.raises(ArchiveError, match="is lost: try `archive rebuild-index`"):
            broken()

    archived.archive.rebuild_index()

    archived.archive.check()
    archived.archive.restore(tmp_path / "back", Wanted())
    assert below(tmp_path / "back" / "originals") == below(archived.originals)


@pytest.mark.slow
def test_a_lock_that_a_killed_snapshot_left_stops_neither_check_nor_forget(place: Place, tmp_path: Path) -> None:
    place.archive.create()
    password = place.home.root / "archive" / "password"
    start: list[str | Path] = ["restic", "-r", tmp_path / "repo", "--password-file", password, "backup", "--stdin"]
    locks = tmp_path / "repo" / "locks"
    for work in (place.archive.check, place.archive.forget):
        with subprocess.Popen(start, stdin=subprocess.PIPE, stdout=subprocess.DEVNULL) as process:
            while not list(locks.glob("?" * 64)):  # under another name while it is written
                time.sleep(0.01)
            process.kill()

        work()

        assert not list(locks.glob("?" * 64))


@pytest.mark.slow
def test_a_restore_that_is_killed_goes_on_where_it_stopped(archived: Place, tmp_path: Path) -> None:
    for number in range(10, 60):
        (archived.originals / "study-1" / f"{number}.dcm").write_bytes(slice_bytes(1, number))
    first = archived.archive.take()
    back = tmp_path / "back"
    process = subprocess.Popen([PROGRAM, "--home", archived.home.root, "archive", "restore", back, "--everything"])
    until = time.monotonic() + 120
    while not list(back.glob("originals/study-0/*.dcm")) and time.monotonic() < until:
        time.sleep(0.001)
    process.kill()
    process.wait()
    came = {path: path.stat().st_ino for path in back.glob("originals/study-0/*.dcm")}
    (archived.originals / "later.dcm").write_bytes(slice_bytes(0, 9))
    archived.archive.take()

    again = run(archived, "restore", back, "--everything")

    assert again.returncode == 0, again.stderr
    wanted = below(archived.originals)
    del wanted["later.dcm"]  # the snapshot is the one that it began with
    assert below(back / "originals") == wanted
    if len(came) == 2:  # all of a study was back: it was not fetched again
        assert {path: path.stat().st_ino for path in came} == came
    assert not (back / ".restoring").exists()
    assert run(archived, "restore", back, "--everything").returncode == 4
    assert first.files == len(wanted)


def is_backup(process: psutil.Process) -> bool:
    with suppress(psutil.Error):
        return "backup" in process.cmdline()
    return False


@pytest.mark.slow
def test_nothing_goes_on_after_a_killed_snapshot_and_nobody_works_beside_what_does(place: Place) -> None:
    place.archive.create()
    shutil.copy(str(get_testdata_file("JPEG2000.dcm")), place.originals)  # has a process to decode it
    noise = random.Random(1)  # noqa: S311 -- bytes that do not compress
    (place.originals / "large.bin").write_bytes(noise.randbytes(64 << 20))
    process = psutil.Popen([PROGRAM, "--home", place.home.root, "archive", "snapshot"])
    children: list[psutil.Process] = []
    while not any(is_backup(one) for one in children):
        assert process.poll() is None
        time.sleep(0.005)
        children = process.children(recursive=True)
    orphan = next(one for one in children if is_backup(one))
    orphan.suspend()
    process.kill()
    process.wait()
    with pytest.raises(ConfigurationError, match="another process"):  # while its restic is still there
        place.archive.take()
    orphan.resume()

    _, alive = psutil.wait_procs(children, timeout=60)

    assert alive == []
    assert place.archive.take().is_good

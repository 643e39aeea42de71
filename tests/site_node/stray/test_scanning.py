"""Folders are searched once, go on after a kill, and hold nothing of a patient in what is kept."""

from __future__ import annotations

import os
import sqlite3
import subprocess
import sys
import time
from contextlib import closing, contextmanager
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
import sqlalchemy as sa
from typer.testing import CliRunner

from site_node import away, consents
from site_node.cli import app
from site_node.errors import ConfigurationError
from site_node.intake.folder import ingest
from site_node.store import stray_file
from site_node.stray import actions, known, records
from site_node.stray.dictionary import entries
from site_node.stray.digests import Keyer
from site_node.stray.inspection import TOO_LONG
from site_node.stray.learning import patients
from site_node.stray.origin import AWAY, LINK, Folder, Item
from site_node.stray.records import Keys
from site_node.stray.report import page
from site_node.stray.scanning import KILLS_ITS_READER, TOO_LARGE, UNREADABLE, _Job, _parcels, scan
from tests.site_node.hospital import PSEUDONYMS, bundle, consent_of, intake_of
from tests.site_node.second_look.files import ADDRESS, BORN, GIVEN, NAME, NUMBER, original, written

if TYPE_CHECKING:
    from collections.abc import Iterator

    from site_node.stray.origin import Opened
    from site_node.stray.records import File
    from site_node.stray.scanning import Summary

KEYS = Keys(bytes(range(32)), bytes(reversed(range(32))))
NOON = datetime(2026, 3, 1, 12, tzinfo=UTC)
VALUES = (NAME, GIVEN, NUMBER, "77304412", BORN, "Huber", "Larkspurlane", ADDRESS)


def _now() -> datetime:
    return NOON


def _scan(
    folder: Path, store: sa.Engine, *, everything: bool = False, renew: bool = True, max_bytes: int = 1 << 30
) -> Summary:
    return scan(
        Folder(folder),
        store,
        KEYS,
        _now,
        pictures="none",
        everything=everything,
        renew=renew,
        processes=0,
        max_bytes=max_bytes,
    )


def _files(store: sa.Engine) -> list[File]:
    with store.connect() as db:
        return list(records.files(db))


def _learn(store: sa.Engine, source: Path) -> int:
    with store.begin() as db:
        return known.add(db, (one for who in patients(source) for one in entries(who, Keyer(KEYS.digests))))


@pytest.fixture
def place(tmp_path: Path) -> Path:
    """Return a folder with an original, a list, a clean text, and a name in a path."""
    folder = tmp_path / "export"
    (folder / f"{NAME}_{GIVEN}").mkdir(parents=True)
    (folder / "scan.dcm").write_bytes(written(original()))
    (folder / "list.csv").write_text("last_name,dob\nHuber,1961-04-17\n")
    (folder / "clean.txt").write_text("CT HEAD W/O CONTRAST, Parkinson disease\n")
    (folder / f"{NAME}_{GIVEN}" / "a.txt").write_text(f"Patient {GIVEN} {NAME} came.\n")
    return folder


@pytest.fixture
def learnt(place: Path, store: sa.Engine) -> sa.Engine:
    """Return the store, which knows the patient of the original."""
    assert _learn(store, place / "scan.dcm") > 0
    return store


def test_a_scan_tells_files_by_risk_and_known_patients(place: Path, learnt: sa.Engine) -> None:
    summary = _scan(place, learnt)

    assert (summary.files, summary.read, summary.risks["high"]) == (4, 4, 3)
    assert sorted(file.persons for file in _files(learnt)) == [0, 1, 1]


def test_nothing_of_a_patient_is_kept(place: Path, learnt: sa.Engine, root: Path) -> None:
    _scan(place, learnt)
    with learnt.connect() as db:
        drawn = page(db, "north", NOON)
    learnt.dispose()

    kept = b"".join(path.read_bytes() for path in root.rglob("*") if path.is_file()).lower()
    told = drawn.lower()

    assert "scan.dcm" in told
    assert [value for value in VALUES if value.lower().encode() in kept] == []
    assert [value for value in VALUES if value.lower() in told] == []


def test_an_unchanged_file_is_not_read_again_and_a_changed_one_is(place: Path, learnt: sa.Engine) -> None:
    _scan(place, learnt)
    assert _scan(place, learnt).read == 0

    (place / "clean.txt").write_text("Patient: Huber, Anna\n")
    changed = _scan(place, learnt)

    assert (changed.read, changed.risks["high"]) == (1, 4)
    assert _scan(place, learnt, everything=True).read == 4


def test_a_patient_who_is_learnt_later_is_looked_for_in_old_files(place: Path, store: sa.Engine) -> None:
    _scan(place, store)
    assert all(file.persons == 0 for file in _files(store))

    _learn(store, place / "scan.dcm")

    assert _scan(place, store).read == 4
    assert any(file.persons for file in _files(store))


def test_files_that_were_not_looked_at_for_new_patients_are_counted_until_they_are(
    place: Path, store: sa.Engine
) -> None:
    _scan(place, store)
    _learn(store, place / "scan.dcm")

    left = _scan(place, store, renew=False)
    with store.connect() as db:
        drawn = page(db, "north", NOON)

    assert (left.read, left.unchanged, left.outdated) == (0, 4, 4)
    assert "4 unchanged files were not looked at for patients and rules known since" in drawn
    assert _scan(place, store).outdated == 0


def test_another_list_of_as_many_patients_is_another_dictionary(place: Path, store: sa.Engine) -> None:
    lists = [place.parent / f"{name}.csv" for name in ("one", "two")]
    for path, name in zip(lists, ("Quixotevan,Dorothea", "Brandywine,Barnaby"), strict=True):
        path.write_text(f"last_name,first_name\n{name}\n")
    counts = [_learn(store, lists[0])]
    _scan(place, store)
    with store.begin() as db:
        known.forget(db)
    counts.append(_learn(store, lists[1]))

    assert counts[0] == counts[1]
    assert _scan(place, store).read == 4


def test_a_patient_who_arrives_at_intake_is_looked_for_in_old_files(place: Path, store: sa.Engine, root: Path) -> None:
    (place / "chart.txt").write_text("chart 77304412, seen\n")
    keys = Keys.of(PSEUDONYMS)
    scan(Folder(place), store, keys, _now, pictures="none", processes=0)
    arrived = place.parent / "arrived"
    arrived.mkdir()
    (arrived / "a.dcm").write_bytes(written(original()))

    ingest(arrived, intake_of(root, store), NOON, processes=1)
    again = scan(Folder(place), store, keys, _now, pictures="none", processes=0)

    assert again.read == 5
    assert {file.shown for file in _files(store) if file.persons} >= {"chart.txt", "scan.dcm"}
    assert all(value.encode() not in (root / "site.db").read_bytes() for value in VALUES)


def test_a_patient_who_consents_is_looked_for_in_old_files(place: Path, store: sa.Engine) -> None:
    (place / "chart.txt").write_text("chart 77304412, seen\n")
    keys = Keys.of(PSEUDONYMS)
    scan(Folder(place), store, keys, _now, pictures="none", processes=0)

    consents.load(store, bundle(consent_of("MRN-77304412")), PSEUDONYMS, NOON)
    scan(Folder(place), store, keys, _now, pictures="none", processes=0)

    assert "chart.txt" in {file.shown for file in _files(store) if file.persons}


def test_a_place_is_searched_by_one_process_at_a_time(place: Path, store: sa.Engine) -> None:
    refused = []

    def meanwhile(done: int, total: int) -> None:
        if done < total:
            with pytest.raises(ConfigurationError, match="another process searches this place"):
                _scan(place, store)
            refused.append(done)

    scan(Folder(place), store, KEYS, _now, pictures="none", processes=0, progress=meanwhile)

    assert len(refused) == 3
    assert _scan(place, store).read == 0


def test_names_that_are_no_text_are_told_apart_and_kept(place: Path, store: sa.Engine) -> None:
    for name in (b"\xfe", b"\xff"):
        (place / os.fsdecode(name)).write_text('{"\\ud800": "Patient: Huber, Anna"}')

    assert _scan(place, store).files == 6
    assert [file.shown for file in _files(store)].count("?") == 2


def test_a_file_that_could_not_be_read_is_read_again(place: Path, store: sa.Engine) -> None:
    class Faulty(Folder):
        @contextmanager
        def content(self, item: Item) -> Iterator[Opened]:
            if item.key == "clean.txt":
                raise OSError
            with super().content(item) as opened:
                yield opened

    assert scan(Faulty(place), store, KEYS, _now, pictures="none", processes=0).faults == {UNREADABLE: 1}
    assert _scan(place, store).read == 1


def test_a_file_that_is_gone_is_no_longer_told(place: Path, learnt: sa.Engine) -> None:
    _scan(place, learnt)
    (place / "list.csv").unlink()

    assert _scan(place, learnt).risks["high"] == 2


def test_what_cannot_be_looked_into_is_told(place: Path, store: sa.Engine) -> None:
    (place / "link").symlink_to(place / "scan.dcm")
    os.mkfifo(place / "pipe")
    (place / "large.txt").write_text("Patient: Huber, Anna\n" * 1000)

    summary = _scan(place, store, max_bytes=10_000)

    assert summary.faults == {LINK: 1, "not a regular file": 1, TOO_LARGE: 1}
    assert summary.not_scanned == 3


def test_a_file_that_is_away_is_told_as_not_looked_at(place: Path, store: sa.Engine) -> None:
    before = _scan(place, store)
    away.put((place / name, away.Mark("0" * 64, 1, "0" * 64)) for name in ("list.csv", "scan.dcm"))
    (place / "list.csv").unlink()

    summary = _scan(place, store)

    assert before.faults == {}
    assert summary.faults == {AWAY: 1}
    assert summary.not_scanned == 1


@pytest.mark.slow
@pytest.mark.parametrize(
    ("what", "reason", "processes"),
    [
        ("os.kill(os.getpid(), 9)", KILLS_ITS_READER, 1),
        ("os.kill(os.getpid(), 9)", KILLS_ITS_READER, 2),
        # A call of C that keeps the interpreter and hears no signal, as a library's endless loop does not.
        ("signal.pthread_sigmask(signal.SIG_BLOCK, [signal.SIGALRM]) or ctypes.PyDLL(None).sleep(120)", TOO_LONG, 1),
        # More memory than a process may take.
        ("bytes(16 << 30)", "damaged, or not what it seems (MemoryError)", 1),
    ],
)
def test_a_file_that_kills_or_holds_its_reader_is_told_and_the_others_go_on(
    place: Path, store: sa.Engine, monkeypatch: pytest.MonkeyPatch, what: str, reason: str, processes: int
) -> None:
    for number in range(40):
        (place / f"more-{number}.txt").write_text("nothing")
    (place / "murderer.json").write_text('{"a": 1}')
    monkeypatch.setenv("PYTHONPATH", f"{place.parent}:{os.environ.get('PYTHONPATH', '')}")
    # A reader in another process that ends by a signal, as a fault in a library of C would end it.
    (place.parent / "sitecustomize.py").write_text(
        "import ctypes, json, os, signal\nloads = json.loads\n"
        "def held(text, *a, **k):\n"
        f"    return {what} if text == '{{\"a\": 1}}' else loads(text, *a, **k)\n"
        "json.loads = held\n"
    )

    summary = scan(Folder(place), store, KEYS, _now, pictures="none", processes=processes, most_s=10)

    assert summary.faults == {reason: 1}
    assert (summary.files, summary.read) == (45, 45)


def test_files_go_to_a_process_in_their_order_and_large_ones_alone() -> None:
    sizes = [*[10] * 20, 5 << 20, 10, 3 << 20, 3 << 20, 10]
    jobs = [_Job(str(number), Item(str(number), size, "", "")) for number, size in enumerate(sizes)]
    parcels = list(_parcels(jobs))

    assert [job for parcel in parcels for job in parcel] == jobs
    assert [len(parcel) for parcel in parcels] == [16, 4, 1, 2, 2]
    assert list(_parcels([])) == []


@pytest.mark.parametrize(
    ("then", "code"),
    [
        ("time.sleep(1.5)", 1),  # nobody told it that there is nothing to look through
        ("time_limit.rest(); time.sleep(1.5)", 0),
        # The second file keeps the interpreter, and no new end was set for it.
        ("hold(time.sleep)", 0),
        ("hold(ctypes.PyDLL(None).sleep)", 1),
    ],
)
def test_a_process_that_hears_nothing_is_ended_and_one_that_waits_for_work_is_not(then: str, code: int) -> None:
    program = f"""
import ctypes, signal, time
from site_node.stray import time_limit
def hold(how):
    try:
        with time_limit.limited(0.4, deadly=True):
            how(3)
    except time_limit.OutOfTime:
        time_limit.rest()
with time_limit.limited(0.4, deadly=True):
    pass
if "PyDLL" in {then!r}:
    signal.pthread_sigmask(signal.SIG_BLOCK, [signal.SIGALRM])
{then}
"""
    assert subprocess.run([sys.executable, "-c", program], check=False, timeout=60).returncode == code


@pytest.mark.slow
def test_a_scan_that_was_killed_goes_on(tmp_path: Path) -> None:
    place, home = tmp_path / "many", tmp_path / "site"
    place.mkdir()
    for number in range(400):
        (place / f"{number:03}.txt").write_text(f"Patient: Huber, Anna; case {number}\n" * 40)
    start = [sys.executable, "-m", "site_node", "--home", str(home)]
    subprocess.run([*start, "init", "--name", "north"], check=True, capture_output=True)
    scanning = [*start, "stray", "scan", str(place), "--processes", "1", "--full", "--json"]
    with subprocess.Popen(scanning, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL) as process:
        while _count(home / "site.db") < 64:
            assert process.poll() is None
            time.sleep(0.01)
        readers = Path(f"/proc/{process.pid}/task/{process.pid}/children").read_text().split()
        process.kill()
    done = _count(home / "site.db")
    for _ in range(500):
        if not any(Path("/proc", reader).exists() for reader in readers):
            break
        time.sleep(0.01)

    again = subprocess.run(scanning, check=False, capture_output=True, text=True)
    said = again.stdout

    assert readers
    assert not any(Path("/proc", reader).exists() for reader in readers)  # they end with who asked them
    assert again.returncode == 7  # some are open
    assert 64 <= done < 400
    assert f'"read": {400 - done}' in said
    assert f'"unchanged": {done}' in said
    assert '"high": 400' in said


def _count(database: Path) -> int:
    with closing(sqlite3.connect(f"file:{database}?mode=ro", uri=True)) as db:
        try:
            return int(db.execute("SELECT count(*) FROM stray_file").fetchone()[0])
        except sqlite3.OperationalError:
            return 0


def _find(store: sa.Engine, shown: str) -> File:
    return next(file for file in _files(store) if file.shown == shown)


def test_an_accepted_file_is_open_again_when_it_changes_or_more_is_found(place: Path, learnt: sa.Engine) -> None:
    _scan(place, learnt)
    count = actions.accept(learnt, _find(learnt, "list.csv"), "mm", "a list for tests", NOON)

    assert count == 2
    assert _scan(place, learnt).risks["high"] == 2
    (place / "list.csv").write_text("last_name,dob\nHuber,1961-04-17\nKlein,1950-02-03\n")
    assert _scan(place, learnt).risks["high"] == 3


def test_a_decision_without_a_name_or_a_reason_is_refused(place: Path, learnt: sa.Engine) -> None:
    _scan(place, learnt)

    for by, reason in (("", "because"), ("mm", " ")):
        with pytest.raises(ConfigurationError, match="--by and --reason"):
            actions.accept(learnt, _find(learnt, "list.csv"), by, reason, NOON)


def test_a_file_goes_to_quarantine_and_comes_back_the_same(place: Path, learnt: sa.Engine, root: Path) -> None:
    _scan(place, learnt)
    file, content = _find(learnt, "list.csv"), (place / "list.csv").read_bytes()

    held = actions.quarantine(learnt, root, KEYS, file, "mm", "not here", NOON)

    assert held.read_bytes() == content
    assert not (place / "list.csv").exists()
    assert [one.shown for one in _files(learnt)].count("list.csv") == 0
    actions.restore(learnt, root, KEYS, file.id, "mm", "needed", NOON)
    assert (place / "list.csv").read_bytes() == content
    assert not held.exists()


def test_nothing_is_moved_that_changed_and_nothing_is_written_over(place: Path, learnt: sa.Engine, root: Path) -> None:
    _scan(place, learnt)
    file = _find(learnt, "list.csv")
    (place / "list.csv").write_text("another")

    with pytest.raises(ConfigurationError, match="changed since"):
        actions.quarantine(learnt, root, KEYS, file, "mm", "not here", NOON)
    assert (place / "list.csv").read_text() == "another"

    _scan(place, learnt)
    (place / "list.csv").write_text("last_name,dob\nHuber,1961-04-17\n")
    _scan(place, learnt)
    actions.quarantine(learnt, root, KEYS, _find(learnt, "list.csv"), "mm", "not here", NOON)
    (place / "list.csv").write_text("new")
    with pytest.raises(ConfigurationError, match="has its place"):
        actions.restore(learnt, root, KEYS, file.id, "mm", "needed", NOON)
    assert (place / "list.csv").read_text() == "new"


@pytest.mark.parametrize("moved", ["not", "both", "copied", "whole"])
def test_a_move_that_was_cut_off_is_found_and_told(place: Path, learnt: sa.Engine, root: Path, moved: str) -> None:
    _scan(place, learnt)
    file, at = _find(learnt, "list.csv"), place / "list.csv"
    actions.quarantine(learnt, root, KEYS, file, "mm", "not here", NOON)
    held = root / actions.FOLDER / file.id
    with learnt.begin() as db:
        db.execute(sa.text("UPDATE stray_decision SET state = 'begun'"))
    if moved == "copied":
        at.write_bytes(held.read_bytes())
    elif moved != "whole":
        at.hardlink_to(held)
    if moved == "not":
        held.unlink()

    (line,) = actions.settle(learnt, root, KEYS)

    assert line.endswith("not done" if moved == "not" else ": done")
    assert (at.exists(), held.exists()) == ((True, False) if moved == "not" else (False, True))


def test_paths_are_sealed_and_open_with_the_key_alone(place: Path, learnt: sa.Engine) -> None:
    _scan(place, learnt)
    with learnt.connect() as db:
        sealed = db.execute(sa.select(stray_file.c.sealed)).scalars().first()

    assert sealed is not None
    assert KEYS.open(sealed)[0] == str(place)
    with pytest.raises(ConfigurationError):
        Keys(KEYS.digests, bytes(32)).open(sealed)


def test_the_report_is_one_page_with_a_strict_policy_and_the_trend(place: Path, learnt: sa.Engine) -> None:
    _scan(place, learnt)
    (place / "list.csv").unlink()
    _scan(place, learnt)
    with learnt.connect() as db:
        drawn = page(db, "north", NOON)

    assert "default-src 'none'; img-src data:; style-src 'sha256-" in drawn
    assert "-1 high, +0 medium, +0 low, +0 not looked at" in drawn
    assert drawn.count("<polyline") == 4
    assert "<script" not in drawn
    assert "http" not in drawn.replace("http-equiv", "")


def test_a_scan_that_was_cut_off_is_told_until_another_of_the_place_ends(place: Path, store: sa.Engine) -> None:
    class Cut(Exception):
        pass

    def cut(*_: int) -> None:
        raise Cut

    with pytest.raises(Cut):
        scan(Folder(place), store, KEYS, _now, pictures="none", everything=True, processes=0, progress=cut)
    with store.connect() as db:
        drawn, cut_off = page(db, "north", NOON), records.cut_off(db)

    assert cut_off == [(str(place), NOON.isoformat())]
    assert "did not end" in drawn
    assert "Nothing was scanned yet." in drawn
    assert "Everything was looked at." not in drawn
    number = _scan(place, store).number
    with store.connect() as db:
        assert records.cut_off(db) == []
    assert _scan(place, store, everything=True).number > number  # what was cut off long ago is not gone on with


def test_a_copy_that_is_another_by_now_is_not_removed(place: Path, learnt: sa.Engine, root: Path) -> None:
    _scan(place, learnt)
    actions.quarantine(learnt, root, KEYS, _find(learnt, "list.csv"), "mm", "not here", NOON)
    with learnt.begin() as db:
        db.execute(sa.text("UPDATE stray_decision SET state = 'begun'"))
    (place / "list.csv").write_text("another")

    (line,) = actions.settle(learnt, root, KEYS)

    assert line.endswith("not done")
    assert (place / "list.csv").read_text() == "another"


def test_a_copy_for_deidentification_lies_in_the_quarantine_alone(place: Path, learnt: sa.Engine, root: Path) -> None:
    _scan(place, learnt)
    seen = []

    def export(folder: Path) -> str:
        (copy,) = folder.iterdir()
        seen.append((folder.parent, folder.stat().st_mode & 0o777, copy.read_bytes()))
        return "accepted"

    file, content = _find(learnt, "scan.dcm"), (place / "scan.dcm").read_bytes()
    assert actions.deidentify(learnt, root, KEYS, file, "mm", "needed", NOON, export) == "accepted"

    assert seen == [(root / actions.FOLDER, 0o700, content)]
    assert list((root / actions.FOLDER).iterdir()) == []
    assert (place / "scan.dcm").read_bytes() == content


def test_a_file_that_was_not_looked_through_is_not_moved(place: Path, learnt: sa.Engine, root: Path) -> None:
    (place / "Anna Huber.txt").write_text("x" * 9999)
    _scan(place, learnt, max_bytes=5000)
    file = next(one for one in _files(learnt) if one.faults and one.shown.endswith(".txt"))

    with pytest.raises(ConfigurationError, match="not looked through"):
        actions.quarantine(learnt, root, KEYS, file, "mm", "not here", NOON)


@pytest.mark.parametrize("said", ["foo,bar\n1,2\n", f'mrn,x\n"{"9" * 200_000}",x\n'])
def test_a_list_without_patients_or_one_that_cannot_be_read_is_refused(tmp_path: Path, said: str) -> None:
    home, source = str(tmp_path / "site"), tmp_path / "list.csv"
    source.write_text(said)
    assert CliRunner().invoke(app, ["--home", home, "init", "--name", "north"]).exit_code == 0

    done = CliRunner().invoke(app, ["--home", home, "stray", "learn", str(source)])

    assert isinstance(done.exception, ConfigurationError)
    assert "99999" not in str(done.exception)

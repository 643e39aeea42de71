"""The auditor's replay passes on what happened, and finds a change of one byte in whatever was kept."""

from __future__ import annotations

import hashlib
import json
import shutil
import sqlite3
import zlib
from contextlib import closing, suppress
from copy import copy
from datetime import timedelta
from typing import TYPE_CHECKING, Any, Final

import pytest
import sqlalchemy as sa

from consent import Outcome, Verdict, generate_signing_key, receipt_digest
from site_node import eligibility as verdicts
from site_node import ledger
from site_node.audit import Audited, Finding, Sample, _chosen, _Opening, _Released, audit
from site_node.config import SiteHome
from site_node.store import APPEND_ONLY, consent_checkpoint, instance, metadata, open_store, participation
from tests.site_node.hospital import NOON, PSEUDONYMS, Hospital, add_study, consent_of

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path


def with_files(hospital: Hospital) -> None:
    """Give every instance of the catalogue a file, and the digest of it."""
    (hospital.home.root / "deidentified").mkdir()
    for row in hospital.rows(instance):
        content = row["SOPInstanceUID"].encode() * 9
        (hospital.home.root / row["path"]).write_bytes(content)
        digest = hashlib.sha256(content).hexdigest()
        with hospital.store.begin() as db:
            same = instance.c.SOPInstanceUID == row["SOPInstanceUID"]
            db.execute(sa.update(instance).where(same).values(sha256=digest))


def take_part(hospital: Hospital, number: int, **values: Any) -> str:
    """Answer a round as a coordinator asks for it that has seen the last release."""
    released = [row for row in hospital.rows(participation) if row["receipt"]]
    if released:
        values.setdefault("receipt_head", receipt_digest(released[-1]["receipt"]))
    return hospital.ask(f"m{number}", round=number, nonce=f"nonce-{number}", **values)


@pytest.fixture(scope="module")
def lived(tmp_path_factory: pytest.TempPathFactory) -> Hospital:
    """Return a hospital after three rounds: one of all, a withdrawal in the second, one without the patient."""
    root = tmp_path_factory.mktemp("lived")
    hospital = Hospital(SiteHome(root), open_store(root / "site.db"))
    add_study(hospital.store, "N8")  # of whom there is no consent
    hospital.load(consent_of("N7", "deny"))
    hospital.studies["N7"] = add_study(hospital.store, "N7")
    with_files(hospital)
    assert take_part(hospital, 1) == "release"
    hospital.trainer.during = lambda: hospital.withdraw("N3")
    assert take_part(hospital, 2) == "abstain"
    hospital.trainer.during = lambda: None
    assert take_part(hospital, 3) == "release"
    hospital.store.dispose()
    return hospital


@pytest.fixture
def audited(lived: Hospital, tmp_path: Path) -> Iterator[Hospital]:
    """Yield that hospital in a folder of the test's own."""
    root = tmp_path / "site"
    shutil.copytree(lived.home.root, root)
    hospital = copy(lived)
    hospital.home, hospital.store = SiteHome(root), open_store(root / "site.db")
    hospital.restart()
    yield hospital
    hospital.store.dispose()


def findings(hospital: Hospital, run: str | None = None, sample: Sample | None = None) -> list[Finding]:
    return audit(hospital.store, Audited(hospital.home.root, "demo", "north", b""), run, sample)


def faults(hospital: Hospital) -> list[str]:
    return [fault for one in findings(hospital) for fault in one.faults]


def counts(found: list[Finding]) -> dict[str, int]:
    return {one.what: one.checked for one in found}


def alter(hospital: Hospital, *statements: str, **values: object) -> None:
    """Change the database behind the program's back."""
    with closing(sqlite3.connect(hospital.home.database)) as db:
        for table in APPEND_ONLY:
            for change in ("update", "delete", "insert"):
                db.execute(f"DROP TRIGGER IF EXISTS {table}_forbids_{change}")
        for statement in statements:
            assert db.execute(statement, values).rowcount >= 1
        db.commit()


def test_what_happened_has_no_fault_and_everything_was_checked(audited: Hospital) -> None:
    found = findings(audited)

    assert [fault for one in found for fault in one.faults] == []
    told = counts(found)
    assert told["consent records against their leaves"] == 2 * 6
    assert told["receipts against log and verdicts"] == 2
    assert told["proofs that the withdrawn are in no later round"] == 1
    assert told["image files against the lists of files"] == 2 * 2 * 4
    assert [what for what, checked in told.items() if not checked] == ["answers of the coordinator to withdrawals"]


def test_a_hospital_that_never_took_part_has_no_fault(hospital: Hospital) -> None:
    assert faults(hospital) == []


def test_the_rounds_of_one_run_are_audited_alone(audited: Hospital) -> None:
    assert counts(findings(audited, "run-1"))["receipts against log and verdicts"] == 2
    assert counts(findings(audited, "run-2")).get("receipts against log and verdicts", 0) == 0


def test_consents_that_change_between_the_rounds_leave_no_fault(audited: Hospital) -> None:
    audited.clock.now += timedelta(minutes=1)
    audited.load(consent_of("N1", "deny", dateTime="2026-05-01T00:00:00Z"), consent_of("N9"))
    audited.clock.now += timedelta(minutes=1)

    assert take_part(audited, 4) == "release"
    assert take_part(audited, 5, kind="evaluate") == "release"

    assert faults(audited) == []


def test_a_site_that_joined_again_is_audited_with_both_of_its_keys(audited: Hospital) -> None:
    audited.key = generate_signing_key()
    audited.restart()
    assert audited.ask("m9", round=9, nonce="nonce-9") == "release"

    assert faults(audited) == []


def test_the_log_grows_by_the_same_whether_or_not_anything_changed(hospital: Hospital) -> None:
    assert take_part(hospital, 1) == "release"
    hospital.withdraw("N3")
    assert take_part(hospital, 2) == "release"

    sizes = [row["size"] for row in hospital.rows(consent_checkpoint)]
    assert sizes == [64, 128, 192, 256]


# ------------------------------------------------------------------ a change of one byte


def flip(table: str, column: str) -> Callable[[Hospital], None]:
    """Return what changes one byte of one value of a table."""

    def change(hospital: Hospital) -> None:
        with hospital.store.connect() as db:
            query = f"SELECT rowid, {column} FROM {table} ORDER BY rowid LIMIT 1"  # noqa: S608 -- names of our own
            row = db.execute(sa.text(query)).one()
        value = row[1]
        changed: object
        if isinstance(value, bytes):
            changed = value[:-9] + bytes([value[-9] ^ 1]) + value[-8:]
        elif value in (None, ""):
            changed = "x"
        elif isinstance(value, str):
            changed = value[:-2] + chr(ord(value[-2]) ^ 1) + value[-1]
        else:
            changed = value + 1000
        statement = f"UPDATE {table} SET {column} = :changed WHERE rowid = :row"  # noqa: S608 -- as above
        alter(hospital, statement, changed=changed, row=row[0])

    return change


COLUMNS: Final = {
    "consent_record": "number consent_id patient resource sha256 studies recorded_at",
    "consent_opening": "record salt leaf",
    "consent_log": "place leaves records",
    "consent_log_node": "level place hash",
    "consent_checkpoint": "size root last_record ledger_number ledger_salt note",
    "eligibility": "run round kind nonce task dataset policy engine epoch snapshot_at "
    "evaluated_at secret root padded_size rows",
    "data_manifest": "sha256 files",
    "participation": "studies receipt epoch run round kind nonce outcome reason task used recorded_at",
    "receipt_signer": "key_id public_key",
    "ledger": "number at entry detail hash",
    "request_event": "request version event",
    "dataset": "name terms modality registered_by registered_at approved_by approved_at revoked_at",
    "task": "digest document dataset approved_by approved_at revoked_at",
    "instance": "SOPInstanceUID StudyInstanceUID patient study_date path sha256",
}
FLIPS: Final = [(table, column) for table, columns in COLUMNS.items() for column in columns.split()]


@pytest.mark.parametrize(("table", "column"), FLIPS, ids=[".".join(flip) for flip in FLIPS])
def test_one_changed_value_is_found(audited: Hospital, table: str, column: str) -> None:
    flip(table, column)(audited)

    assert faults(audited) != []


# Columns on which no decision rests, and of which nothing that was signed speaks.
EXEMPT: Final = {
    "consent_record": {"doubt", "superseded_at"},  # tried below
    "consent_checkpoint": {"at"},
    "participation": {"gate_s", "receipt_s", "training_s"},  # measured for operations
    "receipt_signer": {"since"},
    "request_event": {"number"},  # a request's events stand in the order of their versions
    "task": {"received_at"},
    "instance": {"SeriesInstanceUID", "SOPClassUID", "Modality", "references_series", "source_sha256"},
}


@pytest.mark.slow
@pytest.mark.parametrize("table", COLUMNS)
def test_no_value_whatever_stops_the_audit(audited: Hospital, table: str) -> None:
    whole = audited.home.database.read_bytes()
    for column in COLUMNS[table].split():
        for garbage in ("x", "[]", b"\0", 10**15):
            audited.store.dispose()
            audited.home.database.write_bytes(whole)
            with suppress(sqlite3.IntegrityError):  # the database itself refuses it
                first = f"WHERE rowid = (SELECT min(rowid) FROM {table})"  # noqa: S608 -- names of our own
                alter(audited, f"UPDATE {table} SET {column} = :garbage {first}", garbage=garbage)  # noqa: S608 -- as above
                assert faults(audited) != []


def test_every_column_of_what_is_kept_is_tried() -> None:
    for table, columns in COLUMNS.items():
        kept = {column.name for column in metadata.tables[table].columns}
        assert set(columns.split()) == kept - EXEMPT.get(table, set()), table


def rewrite_the_ledger(hospital: Hospital, *statements: str) -> None:
    """Change the ledger and compute its hashes anew, as whoever has the database can."""
    alter(hospital, *statements)
    with closing(sqlite3.connect(hospital.home.database)) as db:
        before, rows = ledger.NOTHING, db.execute("SELECT at, entry, detail FROM ledger ORDER BY number").fetchall()
        db.execute("DELETE FROM ledger")
        for number, (at, entry, detail) in enumerate(rows, 1):
            before = ledger.entry_hash(before, number, at, entry, detail)
            db.execute("INSERT INTO ledger VALUES (?, ?, ?, ?, ?)", (number, at, entry, detail, before))
        db.commit()


def image(hospital: Hospital) -> Path:
    return next((hospital.home.root / "deidentified").glob(f"{hospital.studies['N0']}.*.1.1.dcm"))


def write_image(hospital: Hospital) -> None:
    path = image(hospital)
    content = bytearray(path.read_bytes())
    content[7] ^= 1
    path.write_bytes(content)


def forge_rows(hospital: Hospital, change: Callable[[list[Any]], None], number: int = 3) -> None:
    """Change the verdicts of a round, with everything the site can compute again."""
    with hospital.store.connect() as db:
        row = db.execute(sa.text("SELECT rowid, rows FROM eligibility WHERE round = :n"), {"n": number}).one()
    rows = json.loads(zlib.decompress(row.rows))
    change(rows)
    packed = zlib.compress(json.dumps(rows, separators=(",", ":")).encode(), level=1)
    alter(hospital, "UPDATE eligibility SET rows = :packed WHERE rowid = :row", packed=packed, row=row.rowid)


def hide_a_study_left_out(hospital: Hospital) -> None:
    forge_rows(hospital, lambda rows: rows.remove(next(row for row in rows if row[3] == "no-consent")))


TAMPERED: Final[dict[str, tuple[Callable[[Hospital], None], str]]] = {
    "a byte of an image": (write_image, "not the bytes that were used"),
    "an image gone": (
        lambda h: image(h).unlink(),
        "not the bytes that were used",
    ),
    "an image gone from the catalogue": (
        lambda h: alter(h, "DELETE FROM instance WHERE Modality = 'SEG' AND patient = :p", p=PSEUDONYMS.patient("N0")),
        "the catalogue does not have it as it was used",
    ),
    "a withdrawal gone": (
        lambda h: alter(h, "DELETE FROM consent_record WHERE consent_id LIKE 'withdrawal%'"),
        "it is gone, its leaf is there",
    ),
    "a withdrawal gone with its leaf": (
        lambda h: alter(
            h,
            "DELETE FROM consent_opening WHERE record IN "
            "(SELECT number FROM consent_record WHERE consent_id LIKE 'withdrawal%')",
            "DELETE FROM consent_record WHERE consent_id LIKE 'withdrawal%'",
        ),
        "not the record's, or there twice",
    ),
    "a consent that never came": (
        lambda h: alter(
            h,
            "INSERT INTO consent_record (consent_id, patient, resource, sha256, studies, recorded_at) SELECT "
            "'forged', patient, resource, sha256, studies, recorded_at FROM consent_record WHERE number = 1",
        ),
        "it is not what its leaf was made of",
    ),
    "a record that ended": (
        lambda h: alter(h, "UPDATE consent_record SET superseded_at = recorded_at WHERE number = 1"),
        "it ended and nothing took its place",
    ),
    "a doubt lifted": (
        lambda h: alter(h, "UPDATE consent_record SET doubt = 'x' WHERE number = 1"),
        "it is not what its leaf was made of",
    ),
    "the last state forgotten": (
        lambda h: alter(h, "DELETE FROM consent_checkpoint WHERE size = (SELECT max(size) FROM consent_checkpoint)"),
        "the last state is not signed",
    ),
    "the end of the log cut off": (
        lambda h: alter(
            h,
            "DELETE FROM consent_checkpoint WHERE size = (SELECT max(size) FROM consent_checkpoint)",
            "DELETE FROM consent_log WHERE place = (SELECT max(place) FROM consent_log)",
            "DELETE FROM consent_log_node WHERE level = 6 AND place = (SELECT max(place) + 1 FROM consent_log)",
        ),
        "the receipt shows a state of the log that is not on record",
    ),
    "a node of the tree gone": (
        lambda h: alter(h, "DELETE FROM consent_log_node WHERE level = 7 AND place = 0"),
        "nodes are kept",
    ),
    "the verdicts of a round gone": (
        lambda h: alter(h, "DELETE FROM eligibility WHERE round = 3"),
        "its verdicts are not on record",
    ),
    "a whole run gone": (
        lambda h: alter(h, "DELETE FROM participation", "DELETE FROM eligibility"),
        "it is in the ledger, and gone",
    ),
    "a release gone, and from the ledger": (
        lambda h: rewrite_the_ledger(
            h,
            "DELETE FROM participation WHERE round = 1",
            "DELETE FROM eligibility WHERE round = 1",
            "DELETE FROM ledger WHERE entry = 'site:update:released' AND json_extract(detail, '$.round') = 1",
        ),
        "the receipt before it is not on record",
    ),
    "a release called an abstention": (
        lambda h: alter(h, "UPDATE participation SET outcome = 'abstained' WHERE round = 1"),
        "abstained does not go with its receipt",
    ),
    "the ledger gone": (
        lambda h: alter(h, "DELETE FROM ledger"),
        "the ledger is not as it was when this was signed",
    ),
    "another approver, in the ledger too": (
        lambda h: rewrite_the_ledger(
            h,
            "UPDATE task SET approved_by = 'mallory'",
            "UPDATE ledger SET detail = json_set(detail, '$.by', 'mallory') WHERE entry = 'site:task:approved'",
        ),
        "the ledger is not as it was when this was signed",
    ),
    "requests gone": (lambda h: alter(h, "DELETE FROM request_event"), "no request that was approved makes the grant"),
    "a confirmer who approved it": (
        lambda h: alter(
            h, "UPDATE request_event SET event = json_set(event, '$.by', 'manager') WHERE event LIKE '%\"confirmed\"%'"
        ),
        "who approved it first cannot confirm it",
    ),
    "terms that are none": (
        lambda h: alter(h, "UPDATE dataset SET terms = '{'"),
        "dataset brain-mr: it cannot be read",
    ),
    "a task that is none": (lambda h: alter(h, "UPDATE task SET document = '{'"), "it cannot be read"),
    "a study left out hidden": (hide_a_study_left_out, "its verdicts are not those the receipt was made of"),
}


@pytest.mark.parametrize("what", TAMPERED)
def test_tampering_is_found_and_named(audited: Hospital, what: str) -> None:
    tamper, expected = TAMPERED[what]

    tamper(audited)

    assert [fault for fault in faults(audited) if expected in fault], faults(audited)


@pytest.mark.parametrize("forged", ["permit", "deny"])
def test_a_verdict_altered_in_an_opening_that_released_nothing_is_found(audited: Hospital, forged: str) -> None:
    """No receipt speaks of it; the consents do."""
    for patient in ("N0", "N1"):
        audited.withdraw(patient)
    assert take_part(audited, 4) == "abstain"
    found = findings(audited)
    assert [fault for one in found for fault in one.faults] == []
    assert counts(found)["decisions of openings that released nothing, made again"] > 0

    def turn(rows: list[Any]) -> None:
        next(row for row in rows if (row[3] == "permit") != (forged == "permit"))[3] = forged

    forge_rows(audited, turn, 4)

    expected = "is not permitted" if forged == "permit" else "it is permitted"
    assert [fault for fault in faults(audited) if "round 4" in fault and expected in fault], faults(audited)


# ------------------------------------------------------------------ a site that signs what is not so


def test_a_round_that_used_a_withdrawn_patient_is_found_though_all_is_signed(
    hospital: Hospital, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The site itself cheats: its gate permits what no consent permits, and everything else is as it should be."""
    with_files(hospital)
    hospital.withdraw("N3")
    for place in ("cohort.Decider.decide", "gate.decide_under"):
        monkeypatch.setattr(f"site_node.{place}", lambda *_: _permit())

    assert take_part(hospital, 1) == "release"

    monkeypatch.undo()
    found = faults(hospital)
    assert [f for f in found if "decided anew it is not permitted" in f]
    assert [f for f in found if "used although its patient had withdrawn" in f]


def _permit() -> Any:
    return Verdict(Outcome.PERMIT, "permitted", tuple)


def test_a_round_that_overlooked_a_consent_is_found(hospital: Hospital, monkeypatch: pytest.MonkeyPatch) -> None:
    """The site decides on a part of the consents it holds, and signs that."""
    with_files(hospital)
    hospital.withdraw("N3")
    held = {PSEUDONYMS.patient(name): f"{number}" for number, name in enumerate(hospital.studies, start=1)}
    monkeypatch.setattr("site_node.consents._active", lambda *_: held)
    for place in ("cohort.Decider.decide", "gate.decide_under"):
        monkeypatch.setattr(f"site_node.{place}", lambda *_: _permit())

    assert take_part(hospital, 1) == "release"

    monkeypatch.undo()
    assert [f for f in faults(hospital) if "other consents were held than it was decided on" in f]


# ------------------------------------------------------------------ samples


def test_the_auditors_word_and_the_root_choose_the_sample(audited: Hospital) -> None:
    one = counts(findings(audited, sample=Sample(1, "word")))
    all_of_them = counts(findings(audited))

    assert one["decisions made again"] == 2 * 4
    assert (
        one["image files against the lists of files"] == 2 * 2 or one["image files against the lists of files"] == 4 * 2
    )
    assert all_of_them["decisions made again"] > one["decisions made again"]
    assert one["leaves of the log against the records"] == all_of_them["leaves of the log against the records"]


def test_another_word_chooses_others(audited: Hospital) -> None:
    with audited.store.connect() as db:
        row = db.execute(sa.text("SELECT * FROM eligibility WHERE round = 1")).one()
    rows = verdicts.read_rows(row.rows)
    tree = verdicts.plant(rows, {number: "00" for one in rows for number in one.records}, row.secret, NOON, 256)
    opening = _Opening("", rows, NOON, NOON, None, None, "MR")  # type: ignore[arg-type] # a sample needs its rows alone
    released = _Released(opening, tree, 0)

    chosen = [_chosen(released, Sample(2, word)) for word in map(str, range(30))]

    assert all(len(some) == 2 for some in chosen)
    assert len(set(chosen)) > 3
    assert chosen[0] == _chosen(released, Sample(2, "0"))

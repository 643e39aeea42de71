"""A patient learns of every release in which an image of theirs was used, and of no other; nobody is named."""

from __future__ import annotations

import json
import zlib
from datetime import UTC, datetime, timedelta
from html.parser import HTMLParser
from typing import TYPE_CHECKING, Any, Final

import pytest
import sqlalchemy as sa

from consent import ENGINE, POLICY, receipt_digest
from site_node import disclosures
from site_node.app import create_site
from site_node.config import SiteHome
from site_node.disclosures_cli import as_html
from site_node.store import dataset, eligibility, instance, open_store, participation
from tests.site_node.hospital import NOON, PERMIT, PSEUDONYMS, TERMS, Hospital, consent_of
from tests.site_node.test_cli import refused, run

if TYPE_CHECKING:
    from pathlib import Path
    from subprocess import CompletedProcess

LONG_AGO: Final = NOON - timedelta(days=365)
ADDRESSES: Final = {"demo": "coordinator.example:9443"}


def of(hospital: Hospital, patient_id: str, since: datetime = LONG_AGO) -> list[disclosures.Disclosure]:
    with hospital.store.connect() as db:
        return list(disclosures.disclosures(db, PSEUDONYMS.patient(patient_id), since, ADDRESSES))


def keep_verdicts(hospital: Hospital, rows: list[list[Any]], **opening: Any) -> None:
    """Keep the verdicts of the opening, as the node does when it answers one."""
    values = {"run": "run-1", "round": 1, "kind": "train", "nonce": "nonce-1", "root": bytes(32)}
    with hospital.store.begin() as db:
        db.execute(
            sa.insert(eligibility).values(
                task=hospital.task,
                dataset="brain-mr",
                policy=POLICY,
                engine=ENGINE,
                epoch=1,
                snapshot_at=hospital.clock.now.isoformat(),
                evaluated_at=hospital.clock.now.isoformat(),
                secret=bytes(32),
                padded_size=256,
                rows=zlib.compress(json.dumps(rows).encode()),
                **values | opening,
            )
        )


def test_a_release_is_one_disclosure_to_each_patient_of_its_set(hospital: Hospital) -> None:
    hospital.ask()
    (receipt,) = [row["receipt"] for row in hospital.rows(participation)]

    for patient in hospital.studies:
        (one,) = of(hospital, patient)
        assert (one.at, one.recipient, one.address) == (NOON, "federation demo", "coordinator.example:9443")
        assert one.purposes[0].startswith("CLINTRCH: clinical trial research")
        assert one.purposes[-1] == "MLTRAINING: machine learning training"
        assert (one.run, one.round, one.kind, one.dataset) == ("run-1", 1, "train", "brain-mr")
        assert (one.task, one.receipt) == (hospital.task, receipt_digest(receipt))
        assert one.basis == "the patient's consent"
        assert one.withdrawn_at is None
    assert {one.consents for p in hospital.studies for one in of(hospital, p)} == {
        (f"consent record {number} of 2026-01-01",) for number in range(1, 5)
    }
    assert of(hospital, "someone else") == []


def test_every_kind_of_release_counts_and_an_abstention_does_not(hospital: Hospital) -> None:
    hospital.ask("m1")
    hospital.ask("m2", kind="evaluate", nonce="nonce-2")
    hospital.withdraw("N0")
    hospital.revoke()
    hospital.ask("m3", round=2, nonce="nonce-3")

    assert [row["outcome"] for row in hospital.rows(participation)] == ["released", "released", "abstained"]
    assert [(one.kind, one.what) for one in of(hospital, "N1")] == [
        (kind, disclosures.WHAT[kind]) for kind in ("train", "evaluate")
    ]


def test_a_release_without_the_patient_is_none_of_theirs_and_a_withdrawal_since_is_told(hospital: Hospital) -> None:
    hospital.ask("m1")
    hospital.clock.now = NOON + timedelta(minutes=1)
    hospital.withdraw("N0")
    hospital.ask("m2", round=2, nonce="nonce-2")

    assert [(one.round, one.withdrawn_at) for one in of(hospital, "N0")] == [(1, hospital.clock.now)]
    assert [(one.round, one.withdrawn_at) for one in of(hospital, "N1")] == [(1, None), (2, None)]


def test_the_consents_are_those_that_were_decided_on(hospital: Hospital) -> None:
    hospital.ask()
    hospital.load(consent_of("N2", dateTime="2026-02-01T00:00:00Z"))
    hospital.ask("m2", round=2, nonce="nonce-2")

    assert [one.consents for one in of(hospital, "N2")] == [
        ("consent record 3 of 2026-01-01",),
        ("consent record 5 of 2026-02-01",),
    ]


def test_a_study_that_left_the_catalogue_since_is_still_told(hospital: Hospital) -> None:
    hospital.ask()
    with hospital.store.begin() as db:
        db.execute(sa.delete(instance).where(instance.c.patient == PSEUDONYMS.patient("N2")))

    assert len(of(hospital, "N2")) == 1


def test_another_legal_basis_is_told_with_its_document(hospital: Hospital) -> None:
    with hospital.store.begin() as db:
        db.execute(sa.update(dataset).values(terms=json.dumps(TERMS | {"legal_basis": PERMIT})))
    hospital.ask()

    (one,) = of(hospital, "N0")

    assert one.basis == "data permit (Regulation (EU) 2025/327, article 68) DE-2026-17 of 2026-01-01"


@pytest.mark.parametrize(("seconds", "told"), [(0, 1), (1, 0)])
def test_the_period_begins_with_its_first_moment(hospital: Hospital, seconds: int, told: int) -> None:
    hospital.ask()

    assert len(of(hospital, "N0", NOON + timedelta(seconds=seconds))) == told


@pytest.mark.parametrize(
    ("at", "begin"),
    [
        (datetime(2026, 6, 1, 12, tzinfo=UTC), datetime(2020, 6, 1, 12, tzinfo=UTC)),
        (datetime(2028, 2, 29, tzinfo=UTC), datetime(2022, 2, 28, tzinfo=UTC)),
    ],
)
def test_six_years_are_counted_by_the_calendar(at: datetime, begin: datetime) -> None:
    assert disclosures.since_when(at) == begin


# ------------------------------------------------------------------ the page


class Reader(HTMLParser):
    """Reads a page's texts and notes what is opened and closed."""

    def __init__(self) -> None:
        super().__init__()
        self.open: list[str] = []
        self.texts: list[str] = []

    def handle_starttag(self, tag: str, _attrs: object) -> None:
        """Open an element."""
        if tag not in {"meta", "br"}:
            self.open.append(tag)

    def handle_endtag(self, tag: str) -> None:
        """Close the element opened last."""
        assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        """Keep a text."""
        self.texts.append(data)


def test_the_page_is_whole_and_tells_each_disclosure(hospital: Hospital) -> None:
    hospital.ask()
    found = of(hospital, "N0")
    reader = Reader()

    reader.feed(as_html(found, "north", LONG_AGO, NOON))

    assert reader.open == []
    text = " ".join(reader.texts)
    told = ("2026-06-01 12:00", "federation demo", "coordinator.example:9443", found[0].what, found[0].receipt)
    assert [words for words in told if words not in text] == []
    assert "1 disclosure" in text


def test_nothing_disclosed_is_said_plainly() -> None:
    assert "<strong>Nothing was disclosed.</strong>" in as_html([], "north", LONG_AGO, NOON)


def test_what_others_wrote_is_no_markup(hospital: Hospital) -> None:
    hospital.ask()
    (one,) = of(hospital, "N0")
    for field in ("project", "title", "dataset", "recipient"):
        marked = {name: getattr(one, name) for name in one.__slots__} | {field: "<script>x</script>"}
        assert "<script>" not in as_html([disclosures.Disclosure(**marked)], "north", LONG_AGO, NOON)


# ------------------------------------------------------------------ the command


@pytest.fixture
def home(root: Path) -> Path:
    """Return the folder of a site that released once with the images of four patients."""
    create_site(root, "north")
    store = open_store(SiteHome(root).database)
    (root / "identity" / "pseudonym.key").chmod(0o600)
    (root / "identity" / "pseudonym.key").write_bytes(bytes(range(32)))  # the key behind PSEUDONYMS
    hospital = Hospital(SiteHome(root), store)
    hospital.ask()
    store.dispose()
    return root


def account(home: Path, *arguments: str | Path, patient: str = "N0") -> CompletedProcess[str]:
    return run(home, "disclosures", "--by", "privacy officer", *arguments, said=f"{patient}\n")


def test_the_command_tells_what_was_disclosed_and_notes_that_it_was_asked(home: Path) -> None:
    told = account(home, "--json")

    assert told.returncode == 0, told.stderr
    assert [one["run"] for one in json.loads(told.stdout)] == ["run-1"]
    entry = json.loads(run(home, "ledger").stdout.splitlines()[-1])
    assert entry["entry"] == "site:disclosures:accounted"
    assert set(entry) == {"at", "entry", "since", "by"}


def test_the_table_and_the_page_are_for_people(home: Path) -> None:
    shown = account(home)
    page = home.parent / "page.html"
    printed = account(home, "--html", page)

    assert "federation demo" in shown.stdout
    assert "no images" in shown.stdout
    assert printed.stdout.replace("PatientID: ", "").strip() == ""
    assert page.stat().st_mode & 0o777 == 0o600
    refused(account(home, "--html", page), 4, "is there already")


def test_a_patient_of_whom_nothing_left_is_told_so(home: Path) -> None:
    shown = account(home, patient="N9")

    assert shown.returncode == 0
    assert "Nothing was disclosed." in shown.stdout
    assert json.loads(account(home, "--json", patient="N9").stdout) == []


def test_an_accounting_needs_a_patient_and_a_person(home: Path) -> None:
    assert account(home, patient=" ").returncode == 2
    assert run(home, "disclosures", said="N0\n").returncode == 2


def test_no_accounting_names_the_patient(home: Path) -> None:
    page = home.parent / "page.html"
    outputs = [account(home, *arguments) for arguments in ((), ("--json",), ("--html", page))]
    said = "".join(done.stdout + done.stderr for done in outputs) + page.read_text() + run(home, "ledger").stdout
    store = open_store(SiteHome(home).database)
    with store.connect() as db:
        uids = set(db.scalars(sa.select(instance.c.StudyInstanceUID)))
    store.dispose()

    secrets = {"consent-N0", PSEUDONYMS.patient("N0"), *uids}
    assert [secret for secret in secrets if secret in said] == []

"""Who stands behind a pseudonym: sealed, opened by two persons together, once, and on the record."""

from __future__ import annotations

import json
import time
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING

import pytest
import sqlalchemy as sa
from hypothesis import given
from hypothesis import strategies as st

from consent import Deny
from site_node import project_keys, reidentification
from site_node.deidentify.pseudonym import Known, Pseudonymiser
from site_node.errors import ConfigurationError
from site_node.reidentification import TRANSITIONS, Event, Request, State, Vault, Vaults
from site_node.store import identity, ledger

if TYPE_CHECKING:
    from pathlib import Path

AT = datetime(2026, 6, 1, 12, tzinfo=UTC)
SITE = Pseudonymiser(bytes(range(32)))
IDENTITY_KEY = bytes(reversed(range(32)))
VAULT = Vault(IDENTITY_KEY, SITE)
MRN = "MRN-7730441"
PATIENT = Known("patient", SITE.patient(MRN), MRN)
STUDY = Known("study", SITE.uid("1.2.3"), "1.2.3")
BOTH = [PATIENT, STUDY]
WHY = "nodule in the left lung, to be told"


@pytest.fixture
def vaults(store: sa.Engine, root: Path) -> Vaults:
    """Return the vaults of a site that remembers one patient and one study."""
    with store.begin() as db:
        assert reidentification.remember(db, VAULT, BOTH) == 2
    return Vaults(root, IDENTITY_KEY, SITE)


def asked(store: sa.Engine, vaults: Vaults) -> int:
    number = reidentification.request(store, vaults, PATIENT.pseudonym, WHY, "anna", AT)
    assert isinstance(number, int)
    return number


def reason(refusal: object) -> str:
    assert isinstance(refusal, Deny)
    return refusal.reason


def record(store: sa.Engine) -> list[tuple[str, dict[str, object]]]:
    with store.connect() as db:
        rows = db.execute(sa.select(ledger.c.entry, ledger.c.detail).order_by(ledger.c.number))
        return [(row.entry, json.loads(row.detail)) for row in rows]


@given(st.sampled_from(["patient", "study"]), st.text(min_size=1), st.text())
def test_what_is_sealed_opens_with_the_same_keys_for_the_same_pseudonym_alone(
    kind: str, pseudonym: str, original: str
) -> None:
    sealed = VAULT.seal(Known(kind, pseudonym, original))

    assert VAULT.open(kind, pseudonym, sealed) == original
    assert len(original) < 4 or original.encode() not in sealed
    for vault, other_kind, other in (
        (VAULT, kind, f"{pseudonym}x"),
        (VAULT, "series", pseudonym),
        (Vault(bytes(32), SITE), kind, pseudonym),
        (Vault(IDENTITY_KEY, Pseudonymiser(bytes(32))), kind, pseudonym),
    ):
        with pytest.raises(ConfigurationError, match="another key, or altered"):
            vault.open(other_kind, other, sealed)


def test_nothing_in_the_database_tells_who_a_patient_is(store: sa.Engine, root: Path, vaults: Vaults) -> None:
    asked(store, vaults)
    store.dispose()

    found = [path.name for path in root.glob("site.db*") if MRN.encode() in path.read_bytes()]

    assert found == []


def test_the_keys_are_not_told_by_what_holds_them(vaults: Vaults) -> None:
    assert repr(IDENTITY_KEY) not in repr(vaults)
    assert repr(bytes(range(32))) not in repr(vaults)


def test_only_what_is_new_is_sealed(store: sa.Engine, vaults: Vaults) -> None:
    assert vaults.identity_key == IDENTITY_KEY
    with store.connect() as db:
        before = db.execute(sa.select(identity.c.sealed).order_by(identity.c.pseudonym)).all()
    with store.begin() as db:
        more = [Known("instance", SITE.uid(f"1.9.{number}"), f"1.9.{number}") for number in range(2000)]
        assert reidentification.remember(db, VAULT, [*BOTH, *BOTH, more.pop()]) == 1
        started = time.process_time()
        assert reidentification.remember(db, VAULT, more) == 1999
        assert reidentification.remember(db, VAULT, more) == 0
        per_row = (time.process_time() - started) / len(more)
    with store.connect() as db:
        query = sa.select(identity.c.sealed).where(identity.c.kind != "instance").order_by(identity.c.pseudonym)
        assert db.execute(query).all() == before
    assert per_row < 0.001  # measured: about 10 microseconds


def test_an_identity_is_shown_once_after_another_person_approved(store: sa.Engine, vaults: Vaults) -> None:
    number = asked(store, vaults)

    assert reason(reidentification.show(store, vaults, number, "anna", AT)) == "the request is asked"
    assert isinstance(reidentification.approve(store, number, "bert", AT), Request)
    assert reidentification.show(store, vaults, number, "anna", AT) == PATIENT
    assert reason(reidentification.show(store, vaults, number, "anna", AT)) == "the request is shown"

    assert [entry.rpartition(":")[2] for entry, _ in record(store)] == [
        "requested",
        "refused",
        "approved",
        "shown",
        "refused",
    ]
    assert MRN not in json.dumps(record(store))


@pytest.mark.parametrize("same", ["anna", "Anna", " ANNA ", "an na"])
def test_who_asks_cannot_approve_by_any_spelling_of_the_name(store: sa.Engine, vaults: Vaults, same: str) -> None:
    number = asked(store, vaults)

    assert "another person" in reason(reidentification.approve(store, number, same, AT))


def test_an_identity_is_shown_to_who_asked_alone(store: sa.Engine, vaults: Vaults) -> None:
    number = asked(store, vaults)
    reidentification.approve(store, number, "bert", AT)

    assert "to nobody else" in reason(reidentification.show(store, vaults, number, "bert", AT))
    assert reidentification.show(store, vaults, number, "Anna", AT) == PATIENT


def test_a_request_ends_after_its_days_approved_or_not(store: sa.Engine, vaults: Vaults) -> None:
    late = AT + timedelta(days=7)
    first, second = asked(store, vaults), asked(store, vaults)
    reidentification.approve(store, first, "bert", AT)

    assert reason(reidentification.show(store, vaults, first, "anna", late)) == "the request is expired"
    assert reason(reidentification.approve(store, second, "bert", late)) == "the request is expired"


def test_an_approval_can_be_taken_back_until_it_is_used(store: sa.Engine, vaults: Vaults) -> None:
    number = asked(store, vaults)
    reidentification.approve(store, number, "bert", AT)

    denied = reidentification.deny(store, number, "carl", AT)

    assert isinstance(denied, Request)
    assert denied.state(AT) is State.DENIED
    assert reason(reidentification.show(store, vaults, number, "anna", AT)) == "the request is denied"


@pytest.mark.parametrize("state", State)
@pytest.mark.parametrize("event", Event)
def test_every_step_outside_the_table_is_refused(store: sa.Engine, vaults: Vaults, state: State, event: Event) -> None:
    number, at = asked(store, vaults), AT
    if state in {State.APPROVED, State.SHOWN}:
        reidentification.approve(store, number, "bert", AT)
    if state is State.SHOWN:
        reidentification.show(store, vaults, number, "anna", AT)
    if state is State.DENIED:
        reidentification.deny(store, number, "bert", AT)
    if state is State.EXPIRED:
        at += timedelta(days=8)

    if event is Event.SHOW:
        done: object = reidentification.show(store, vaults, number, "anna", at)
    else:
        done = {Event.APPROVE: reidentification.approve, Event.DENY: reidentification.deny}[event](
            store, number, "bert", at
        )

    assert isinstance(done, Deny) == ((state, event) not in TRANSITIONS)


@pytest.mark.parametrize("words", [MRN, f"finding of {MRN.lower()}, to be told", f"({MRN})"])
def test_a_reason_that_names_the_patient_is_refused_and_kept_nowhere(
    store: sa.Engine, root: Path, vaults: Vaults, words: str
) -> None:
    refusal = reidentification.request(store, vaults, PATIENT.pseudonym, words, "anna", AT)

    assert reason(refusal) == "the reason names the patient"
    store.dispose()
    assert not [path for path in root.glob("site.db*") if MRN.encode() in path.read_bytes().upper()]


def test_what_cannot_be_asked_is_refused_and_on_the_record(store: sa.Engine, vaults: Vaults) -> None:
    for pseudonym, why, by in (
        ("PUNKNOWN", WHY, "anna"),
        (PATIENT.pseudonym, " ", "anna"),
        (PATIENT.pseudonym, WHY, ""),
    ):
        assert isinstance(reidentification.request(store, vaults, pseudonym, why, by, AT), Deny)

    assert [entry for entry, _ in record(store)] == ["site:reidentification:refused"] * 3
    assert reason(reidentification.approve(store, 9, "bert", AT)) == "there is no such request"
    assert "says who" in reason(reidentification.approve(store, asked(store, vaults), " ", AT))


def test_a_map_of_everything_takes_four_eyes_too(store: sa.Engine, vaults: Vaults) -> None:
    number = reidentification.request_map(store, SITE.key_id, "scoring against the planted answers", "anna", AT)
    one = asked(store, vaults)
    assert isinstance(number, int)
    assert reason(reidentification.show_map(store, vaults, number, "anna", AT)) == "the request is asked"
    for each in (number, one):
        reidentification.approve(store, each, "bert", AT)

    assert "for a map" in reason(reidentification.show(store, vaults, number, "anna", AT))
    assert "for one pseudonym" in reason(reidentification.show_map(store, vaults, one, "anna", AT))
    assert reidentification.show_map(store, vaults, number, "anna", AT) == BOTH
    assert reason(reidentification.show_map(store, vaults, number, "anna", AT)) == "the request is shown"
    assert isinstance(reidentification.request_map(store, "0" * 16, "why", "anna", AT), Deny)


def test_an_approved_request_of_a_destroyed_key_shows_nothing(store: sa.Engine, root: Path, vaults: Vaults) -> None:
    project_keys.create(store, root, "one", "anna", AT)
    with store.begin() as db:
        made = project_keys.pseudonymiser(db, root, "one")
        known = Known("patient", made.patient(MRN), MRN)
        reidentification.remember(db, Vault(IDENTITY_KEY, made), [known])
        sealed = db.execute(sa.select(identity).where(identity.c.key_id == made.key_id)).mappings().one()
    number = reidentification.request(store, vaults, known.pseudonym, WHY, "anna", AT)
    assert isinstance(number, int)
    reidentification.approve(store, number, "bert", AT)

    project_keys.destroy(store, root, "one", "anna", AT)

    assert "is destroyed" in reason(reidentification.show(store, vaults, number, "anna", AT))
    with store.begin() as db:  # as in a copy of the database made before
        db.execute(sa.insert(identity).values(dict(sealed)))
    assert "is destroyed" in reason(reidentification.request(store, vaults, known.pseudonym, WHY, "anna", AT))


def test_a_site_is_given_an_identity_key_once_and_misses_it_when_it_is_needed(store: sa.Engine, root: Path) -> None:
    reference = "file:identity/identities.key"
    key = reidentification.open_identity_key(store, reference, root)

    assert reidentification.open_identity_key(store, reference, root) == key
    with store.begin() as db:
        reidentification.remember(db, Vault(key, SITE), [PATIENT])
    (root / "identity" / "identities.key").unlink()
    with pytest.raises(ConfigurationError, match=r"identities\.key is missing"):
        reidentification.open_identity_key(store, reference, root)

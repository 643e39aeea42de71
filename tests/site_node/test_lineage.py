"""A withdrawal reaches what was handed over: found from the records of now, told until it is answered, once."""

from __future__ import annotations

import base64
import json
from datetime import UTC, datetime, timedelta
from hashlib import sha256
from itertools import pairwise
from threading import Event
from typing import Any

import pytest
import sqlalchemy as sa

from consent import (
    WithdrawalAnswer,
    WithdrawalNotice,
    generate_signing_key,
    open_answer,
    open_notice,
    receipt_digest,
    sign_answer,
)
from consent.withdrawal import AnsweredReceipt, Standing
from coordinator.authority import Authority, create_authority
from site_node import consents, lineage
from site_node.audit import Audited, audit
from site_node.errors import NotAMember, PeerError, PeerRefused
from site_node.lineage import Notices
from site_node.service import tell_until
from site_node.store import frozen_set, inflight, ledger, outbox, participation, withdrawal_answer, withdrawal_notice
from tests.site_node.hospital import NOON, Hospital, PowerCut, consent_of, lost_line
from tests.site_node.test_audit import alter
from tests.site_node.test_rounds import at_tick, count_ticks

LATER = NOON + timedelta(days=10)


class Coordinator:
    """Opens notices as the coordinator does, and answers with one word for every receipt."""

    def __init__(self, hospital: Hospital, word: Standing = "aggregated") -> None:
        self.heard: list[WithdrawalNotice] = []
        self.word, self.away = word, False
        self.refuses: dict[str, PeerError] = {}  # by run
        self.lies: dict[str, Any] = {}
        folder = hospital.home.root / "coordinator"
        self.authority = Authority(folder) if folder.exists() else create_authority(folder, "demo", "127.0.0.1", NOON)
        self.key = hospital.key.public_key()

    def give(self, envelope: bytes) -> tuple[bytes, bytes]:
        """Answer a notice."""
        if self.away:
            raise lost_line()
        notice = open_notice(envelope, self.key)
        self.heard.append(notice)
        if notice.run in self.refuses:
            raise self.refuses[notice.run]
        return self.signed(**(self.claim(notice, envelope) | self.lies))

    def claim(self, notice: WithdrawalNotice, envelope: bytes) -> dict[str, Any]:
        """Return what is honestly answered."""
        named = sorted(receipt.sha256 for receipt in notice.receipts)
        return {
            "federation": notice.federation,
            "site": notice.site,
            "run": notice.run,
            "notice": sha256(envelope).hexdigest(),
            "at": notice.at,
            "receipts": tuple(AnsweredReceipt(sha256=one, standing=self.word) for one in named),
        }

    def signed(self, **claim: Any) -> tuple[bytes, bytes]:
        """Return an answer, and the certificate of its signer."""
        key, certificate = self.authority.statement_signer("demo", NOON)
        return sign_answer(WithdrawalAnswer(**claim), key), certificate


def notices(hospital: Hospital, coordinator: Coordinator) -> Notices:
    site = ("demo", "north")
    authority = coordinator.authority.certificate.read_bytes()
    return Notices(hospital.store, hospital.gate, site, hospital.key, hospital.clock, coordinator.give, authority)


def released(hospital: Hospital, *rounds: int) -> list[str]:
    """Let rounds be released and return their receipts' digests."""
    for number in rounds:
        assert hospital.ask(f"m{number}", round=number, nonce=f"n{number}") == "release"
    return [receipt_digest(row["receipt"]) for row in hospital.rows(participation) if row["receipt"]]


def test_nothing_is_told_while_nothing_was_withdrawn(hospital: Hospital) -> None:
    released(hospital, 1)
    coordinator = Coordinator(hospital)

    assert (notices(hospital, coordinator).look(), notices(hospital, coordinator).send()) == (0, (0, 0))
    assert coordinator.heard == []


def test_every_update_that_holds_the_study_is_told_once_and_no_other(hospital: Hospital) -> None:
    made = released(hospital, 1, 2)
    hospital.withdraw("N0")
    hospital.clock.now += timedelta(seconds=1)
    after = released(hospital, 3)[2]
    coordinator = Coordinator(hospital)
    telling = notices(hospital, coordinator)

    assert (telling.look(), telling.send(), telling.look(), telling.send()) == (2, (2, 0), 0, (0, 0))
    (notice,) = coordinator.heard
    assert {receipt.sha256 for receipt in notice.receipts} == set(made)
    assert after not in {receipt.sha256 for receipt in notice.receipts}
    assert (notice.federation, notice.site, notice.run) == ("demo", "north", "run-1")


@pytest.mark.parametrize(
    "resource",
    [
        consent_of("N0", status="inactive", meta={"lastUpdated": "2026-06-01T12:00:00Z"}),
        consent_of("N0", "deny", id="refusal", dateTime="2026-06-01T12:00:00Z", provision={"type": "deny"}),
    ],
    ids=["made inactive", "a refusal beside it"],
)
def test_a_withdrawal_that_comes_as_fhir_has_the_same_effect(hospital: Hospital, resource: dict[str, object]) -> None:
    released(hospital, 1)
    hospital.load(resource)

    assert notices(hospital, Coordinator(hospital)).look() == 1


def test_an_expiry_is_no_withdrawal(hospital: Hospital) -> None:
    period = {"type": "permit", "purpose": consent_of("x")["provision"]["purpose"], "period": {"end": "2026-06-02"}}
    hospital.load(consent_of("N0", provision=period, meta={"lastUpdated": "2026-05-01T00:00:00Z"}))
    released(hospital, 1)
    hospital.clock.now = LATER
    hospital.load(consent_of("N9"))

    assert notices(hospital, Coordinator(hospital)).look() == 0


def test_a_renewed_consent_is_no_withdrawal(hospital: Hospital) -> None:
    released(hospital, 1)
    hospital.clock.now = LATER
    hospital.load(consent_of("N0", dateTime="2026-06-05T00:00:00Z"))

    assert notices(hospital, Coordinator(hospital)).look() == 0


def test_a_renewal_that_expired_too_reads_as_withdrawn(hospital: Hospital) -> None:
    """Of one id the newest version alone is asked, and it permits neither then nor now; see ADR 16."""
    released(hospital, 1)
    hospital.clock.now += timedelta(days=1)
    purpose = consent_of("x")["provision"]["purpose"]
    period = {"start": "2026-06-02T12:00:00Z", "end": "2026-06-05T12:00:00Z"}
    renewal = {"type": "permit", "purpose": purpose, "period": period}
    hospital.load(consent_of("N0", dateTime="2026-06-02T12:00:00Z", provision=renewal))
    assert notices(hospital, Coordinator(hospital)).look() == 0
    hospital.clock.now = LATER
    hospital.load(consent_of("N9"))

    assert notices(hospital, Coordinator(hospital)).look() == 1


def test_a_consent_in_review_takes_nothing_back_that_was_handed_over(hospital: Hospital) -> None:
    released(hospital, 1)
    hospital.load(
        {**consent_of("N0"), "provision": {"type": "perhaps"}, "meta": {"lastUpdated": "2026-06-01T12:00:00Z"}}
    )

    assert notices(hospital, Coordinator(hospital)).look() == 0


def test_what_was_not_answered_is_told_again_after_a_restart(hospital: Hospital) -> None:
    released(hospital, 1)
    hospital.withdraw("N0")
    coordinator = Coordinator(hospital, "retracted")
    coordinator.away = True
    telling = notices(hospital, coordinator)
    telling.look()
    with pytest.raises(PeerError):
        telling.send()

    hospital.restart()
    coordinator.away = False
    again = notices(hospital, coordinator)

    assert (again.look(), again.send()) == (0, (1, 0))
    (row,) = hospital.rows(withdrawal_notice)
    assert (row["answer"], datetime.fromisoformat(row["answered_at"]).tzinfo) == ("retracted", UTC)


def test_the_notice_and_the_signed_answer_are_kept(hospital: Hospital) -> None:
    (made,) = released(hospital, 1)
    hospital.withdraw("N0")
    coordinator = Coordinator(hospital)
    telling = notices(hospital, coordinator)
    telling.look()
    telling.send()

    (row,) = hospital.rows(withdrawal_answer)
    key, certificate = coordinator.authority.statement_signer("demo", NOON)
    answer = open_answer(row["answer"], key.public_key())
    assert open_notice(row["notice"], hospital.key.public_key()) == coordinator.heard[0]
    assert [(one.sha256, one.standing) for one in answer.receipts] == [(made, "aggregated")]
    assert (answer.notice, row["certificate"]) == (sha256(row["notice"]).hexdigest(), certificate)
    assert row["digest"] == answer.notice
    with pytest.raises(sa.exc.IntegrityError), hospital.store.begin() as db:
        db.execute(sa.delete(withdrawal_answer))


ALTERED = {
    "nothing": ("UPDATE withdrawal_notice SET run = run", set()),
    "the word": ("UPDATE withdrawal_notice SET answer = 'retracted'", {"answered otherwise"}),
    "the signed answer gone": ("DELETE FROM withdrawal_answer", {"no signed answer is kept for what it says"}),
    "the answer": (
        "UPDATE withdrawal_answer SET answer = CAST(replace(answer, 'payload', 'Payload') AS BLOB)",
        {"its answer is not the coordinator's: malformed", "no signed answer is kept for what it says"},
    ),
    "the certificate": (
        "UPDATE withdrawal_answer SET certificate = CAST('x' AS BLOB)",
        {"its answer is not the coordinator's: malformed", "no signed answer is kept for what it says"},
    ),
    "the notice": (
        "UPDATE withdrawal_answer SET notice = CAST(replace(notice, 'payload', 'Payload') AS BLOB)",
        {"it is not signed by this site", "it was not answered to this"},
    ),
    "its digest": ("UPDATE withdrawal_answer SET digest = '0'", {"it was not answered to this"}),
}


@pytest.mark.parametrize("what", ALTERED)
def test_the_audit_holds_what_was_answered_against_what_was_signed(hospital: Hospital, what: str) -> None:
    statement, expected = ALTERED[what]
    released(hospital, 1)
    hospital.withdraw("N0")
    coordinator = Coordinator(hospital)
    telling = notices(hospital, coordinator)
    telling.look()
    telling.send()

    alter(hospital, statement)

    authority = coordinator.authority.certificate.read_bytes()
    told = {one.what: one for one in audit(hospital.store, Audited(hospital.home.root, "demo", "north", authority))}
    found = told["answers of the coordinator to withdrawals"]
    assert found.checked > 0
    assert {fault.split(": ", 1)[1] for fault in found.faults} == expected


ANOTHER = tuple(AnsweredReceipt(sha256=digit * 64, standing="retracted") for digit in "0")
LIES = [
    {"federation": "south"},
    {"site": "east"},
    {"run": "run-2"},
    {"notice": "0" * 64},
    {"receipts": ANOTHER},
]


@pytest.mark.parametrize("lies", LIES, ids=lambda lies: next(iter(lies)))
def test_an_answer_to_something_else_is_none(hospital: Hospital, lies: dict[str, Any]) -> None:
    released(hospital, 1)
    hospital.withdraw("N0")
    coordinator = Coordinator(hospital)
    coordinator.lies = lies
    telling = notices(hospital, coordinator)
    telling.look()

    with pytest.raises(PeerError, match="to another notice"):
        telling.send()
    assert hospital.rows(withdrawal_notice)[0]["answer"] is None
    assert hospital.rows(withdrawal_answer) == []


def another_word(_coordinator: Coordinator, answer: bytes, certificate: bytes) -> tuple[bytes, bytes]:
    document = json.loads(answer)
    payload = base64.b64decode(document["payload"]).replace(b"aggregated", b"retracted")
    changed = document | {"payload": base64.b64encode(payload).decode()}
    return json.dumps(changed, sort_keys=True, separators=(",", ":")).encode(), certificate


def another_signature(coordinator: Coordinator, answer: bytes, certificate: bytes) -> tuple[bytes, bytes]:
    key = coordinator.authority.statement_signer("demo", NOON).key.public_key()
    return sign_answer(open_answer(answer, key), generate_signing_key()), certificate


def another_authority(coordinator: Coordinator, answer: bytes, _certificate: bytes) -> tuple[bytes, bytes]:
    stranger = create_authority(coordinator.authority.folder / "stranger", "demo", "127.0.0.1", NOON)
    signer = stranger.statement_signer("demo", NOON)
    own = coordinator.authority.statement_signer("demo", NOON).key.public_key()
    return sign_answer(open_answer(answer, own), signer.key), signer.certificate


def servers_certificate(coordinator: Coordinator, answer: bytes, _certificate: bytes) -> tuple[bytes, bytes]:
    return answer, coordinator.authority.server_certificate.read_bytes()


def old_certificate(coordinator: Coordinator, answer: bytes, _certificate: bytes) -> tuple[bytes, bytes]:
    (coordinator.authority.folder / "statements.pem").unlink()
    return answer, coordinator.authority.statement_signer("demo", NOON - timedelta(days=400)).certificate


FORGED = {
    "another word": (another_word, "the answer is refused: bad-signature"),
    "another signature": (another_signature, "the answer is refused: bad-signature"),
    "another authority": (another_authority, "who signed the answer is refused: not-certified"),
    "the server's certificate": (servers_certificate, "who signed the answer is refused: wrong-kind"),
    "a certificate that ran out": (old_certificate, "who signed the answer is refused: not-in-time"),
    "no certificate": (lambda _c, answer, _: (answer, b""), "who signed the answer is refused: malformed"),
    "no answer": (lambda _c, _, certificate: (b"{}", certificate), "the answer is refused: malformed"),
}


@pytest.mark.parametrize("how", FORGED)
def test_a_forged_answer_is_none_and_the_true_one_counts_after_it(hospital: Hospital, how: str) -> None:
    forge, said = FORGED[how]
    released(hospital, 1)
    hospital.withdraw("N0")
    coordinator, forger = Coordinator(hospital), Coordinator(hospital)
    honest = forger.give
    forger.give = lambda envelope: forge(forger, *honest(envelope))  # type: ignore[method-assign] # it lies
    telling = notices(hospital, forger)
    telling.look()

    with pytest.raises(PeerError, match=said):
        telling.send()

    assert hospital.rows(withdrawal_notice)[0]["answer"] is None
    assert hospital.rows(withdrawal_answer) == []
    (coordinator.authority.folder / "statements.pem").unlink(missing_ok=True)
    assert notices(hospital, coordinator).send() == (1, 0)


REFUSED = "403 the notice is of another federation or site"


def two_runs(hospital: Hospital) -> None:
    """Let an update of each of two runs be released, and N0 withdraw from both."""
    for run in ("run-1", "run-2"):
        assert hospital.ask(f"m-{run}", run=run, nonce=f"n-{run}") == "release"
    hospital.withdraw("N0")


def answers(hospital: Hospital) -> dict[str, tuple[str | None, str | None]]:
    return {row["run"]: (row["answer"], row["refusal"]) for row in hospital.rows(withdrawal_notice)}


def test_a_notice_that_is_refused_for_good_is_asked_no_more_and_no_other_waits_for_it(hospital: Hospital) -> None:
    two_runs(hospital)
    coordinator = Coordinator(hospital)
    coordinator.refuses["run-1"] = PeerRefused(REFUSED)
    telling = notices(hospital, coordinator)
    telling.look()

    assert [telling.send(), telling.send()] == [(1, 1), (0, 0)]

    assert [notice.run for notice in coordinator.heard] == ["run-1", "run-2"]
    assert answers(hospital) == {"run-1": (None, REFUSED), "run-2": ("aggregated", None)}
    with hospital.store.connect() as db:
        assert lineage.refusals(db) == [("run-1", 1, REFUSED, NOON)]
    written = [row["detail"] for row in hospital.rows(ledger) if row["entry"] == "site:withdrawal:refused"]
    assert [REFUSED in detail for detail in written] == [True]
    hospital.restart()
    assert (notices(hospital, coordinator).look(), notices(hospital, coordinator).send()) == (0, (0, 0))


def test_what_was_refused_is_told_again_once_a_person_says_so(hospital: Hospital) -> None:
    two_runs(hospital)
    coordinator = Coordinator(hospital)
    coordinator.refuses["run-1"] = PeerRefused(REFUSED)
    telling = notices(hospital, coordinator)
    telling.look()
    telling.send()
    del coordinator.refuses["run-1"]

    assert lineage.tell_again(hospital.store, "manager", NOON) == 1
    assert telling.send() == (1, 0)

    assert answers(hospital) == {"run-1": ("aggregated", None), "run-2": ("aggregated", None)}
    assert lineage.tell_again(hospital.store, "manager", NOON) == 0


@pytest.mark.parametrize("error", [NotAMember("not a member"), lost_line()], ids=["no member", "no line"])
def test_what_may_be_answered_later_stays_pending(hospital: Hospital, error: PeerError) -> None:
    two_runs(hospital)
    coordinator = Coordinator(hospital)
    coordinator.refuses["run-1"] = error
    telling = notices(hospital, coordinator)
    telling.look()
    with pytest.raises(type(error)):
        telling.send()
    del coordinator.refuses["run-1"]

    telling.send()

    assert answers(hospital) == {"run-1": ("aggregated", None), "run-2": ("aggregated", None)}


class Seconds(Event):
    """Time that passes only in waiting; it ends after `last` seconds."""

    def __init__(self, last: float) -> None:
        super().__init__()
        self.now, self._last = 0.0, last

    def wait(self, timeout: float | None = None) -> bool:
        """Let the time pass."""
        self.now += timeout or 0
        return self.now > self._last


def test_a_coordinator_that_does_not_answer_is_asked_after_growing_pauses(hospital: Hospital) -> None:
    released(hospital, 1)
    hospital.withdraw("N0")
    seconds, asked = Seconds(2700), list[float]()

    coordinator = Coordinator(hospital)

    def give(_envelope: bytes) -> tuple[bytes, bytes]:
        asked.append(seconds.now)
        raise lost_line()

    coordinator.give = give  # type: ignore[assignment,method-assign] # a coordinator that is not reached
    telling = notices(hospital, coordinator)
    tell_until(seconds, telling, hospital.said.append, lambda: seconds.now)

    pauses = [later - earlier for earlier, later in pairwise(asked)]
    assert pauses == [10, 30, 60, 300, 600, 600, 600]
    assert hospital.said[-1].endswith("it is told again in 600 s")


def test_an_update_that_waits_in_the_outbox_is_discarded_when_a_study_of_it_is_withdrawn(hospital: Hospital) -> None:
    hospital.line.failures = [lost_line()]
    with pytest.raises(PeerError):
        hospital.ask()
    assert len(hospital.rows(outbox)) == len(list(hospital.home.outbox.iterdir())) == 1
    hospital.withdraw("N0")
    hospital.restart()

    hospital.resume()

    assert hospital.line.kinds == ["abstain"]
    (row,) = hospital.rows(participation)
    assert (row["outcome"], row["receipt"] is None) == ("discarded", False)
    assert hospital.rows(outbox) == hospital.rows(inflight) == hospital.rows(frozen_set) == []
    assert list(hospital.home.outbox.iterdir()) == []
    # It may have left just before the crash, so the coordinator is told.
    assert [told["receipt"] for told in hospital.rows(withdrawal_notice)] == [receipt_digest(row["receipt"])]


def test_an_update_that_waits_is_handed_over_when_nothing_was_withdrawn(hospital: Hospital) -> None:
    hospital.line.failures = [lost_line()]
    with pytest.raises(PeerError):
        hospital.ask()
    hospital.withdraw("N9")
    hospital.restart()

    hospital.resume()

    assert hospital.line.kinds == ["release"]


def test_a_withdrawal_between_commit_and_hand_over_discards_the_update(hospital: Hospital) -> None:
    last = count_ticks(hospital)  # the clock is read once more between the commit and the hand-over
    at_tick(hospital, last, lambda: hospital.withdraw("N0"))

    assert hospital.ask() == "abstain"
    assert [row["outcome"] for row in hospital.rows(participation)] == ["released", "discarded"]
    assert hospital.rows(withdrawal_notice) == hospital.rows(outbox) == []
    assert list(hospital.home.outbox.iterdir()) == []
    assert hospital.trainer.forgotten == 1


def test_the_frozen_set_is_on_record_while_the_work_is_in_progress_and_after_a_crash(hospital: Hospital) -> None:
    def crash() -> None:
        raise PowerCut

    hospital.trainer.during = crash
    with pytest.raises(PowerCut):
        hospital.ask()

    (row,) = hospital.rows(frozen_set)
    assert {study.StudyInstanceUID for study in lineage.read(row["used"])} == set(hospital.studies.values())
    hospital.restart()
    hospital.resume()
    assert hospital.rows(frozen_set) == []


def test_the_record_of_an_update_keeps_what_consent_turned_on(hospital: Hospital) -> None:
    released(hospital, 1)
    (row,) = hospital.rows(participation)

    assert [uid for uid, _, _ in json.loads(row["used"])] == json.loads(row["studies"])
    assert row["task"] == hospital.task
    assert consents.is_known(hospital.store, json.loads(row["used"])[0][1])

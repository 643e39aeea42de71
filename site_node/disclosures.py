"""What left this hospital that was computed from one patient's images among others: an accounting for that patient.

Every release whose set held a study of the patient is one entry, whatever permitted it: more than 45 CFR 164.528(a)(1)
asks for, which leaves out what a patient authorised. Answers without the patient's name or number, so that the paper
can be printed, and says of a consent its number here and its date, since a hospital may put anything into a FHIR id.

Source: 45 CFR 164.528(a) and (b)(2).
"""

from __future__ import annotations

import json
from base64 import b64decode
from dataclasses import dataclass
from datetime import datetime
from typing import TYPE_CHECKING, Any, Final

import sqlalchemy as sa

from consent import PURPOSE_WORDS, BasisKind, parse_consent, receipt_digest
from site_node import permissions
from site_node.eligibility import read_rows
from site_node.store import consent_record, eligibility, participation

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from consent import LegalBasis

YEARS: Final = 6
"""164.528(a)(1): the six years before the accounting is asked for."""

WHAT: Final = {
    "train": "the weights of a model trained on the images of this and other patients, figures about all of them "
    "together, and a signed receipt without any patient; no images, no names, no numbers",
    "evaluate": "figures measured on the images of this and other patients together, and a signed receipt without any "
    "patient; no images, no names, no numbers",
}
_BASES: Final = {
    BasisKind.CONSENT: "the patient's consent",
    BasisKind.LIMITED_DATA_SET: "limited data set under a data use agreement (45 CFR 164.514(e))",
    BasisKind.DATA_PERMIT: "data permit (Regulation (EU) 2025/327, article 68)",
    BasisKind.WAIVER: "waiver of authorisation (45 CFR 164.512(i))",
}


@dataclass(frozen=True, slots=True)
class Disclosure:
    """One release; its fields are those of 164.528(b)(2)(i) to (iv), and what shows that it was permitted."""

    at: datetime
    recipient: str
    address: str
    what: str
    purposes: tuple[str, ...]
    project: str
    task: str
    title: str
    run: str
    round: int
    kind: str
    dataset: str
    basis: str
    consents: tuple[str, ...]
    receipt: str
    withdrawn_at: datetime | None


def since_when(at: datetime) -> datetime:
    """Return the beginning of the six years before `at`."""
    try:
        return at.replace(year=at.year - YEARS)
    except ValueError:  # 29 February
        return at.replace(year=at.year - YEARS, day=28)


def disclosures(db: sa.Connection, patient: str, since: datetime, addresses: Mapping[str, str]) -> Iterator[Disclosure]:
    """Yield every release from `since` on whose set held a study of `patient` (pseudonym), oldest first.

    `addresses` says under which address each known federation is reached; one that is not known stays empty.
    """
    columns = participation.c
    records = _records(db, patient)
    tasks, datasets = permissions.tasks(db), permissions.datasets(db)
    released = sa.select(participation).where(columns.outcome == "released", columns.receipt.is_not(None))
    for row in db.execute(released.order_by(sa.text("rowid")).execution_options(yield_per=1)):
        claim = _claim(row.receipt)
        at = datetime.fromisoformat(claim["times"]["released"])
        decided = _decided(db, row, patient)
        if at < since or not decided.keys() & set(json.loads(row.studies)):
            continue
        used = {number for numbers in decided.values() for number in numbers}
        dataset, offered = claim["grants"][0]["dataset"], tasks[claim["task"]].task
        yield Disclosure(
            at=at,
            recipient=f"federation {claim['federation']}",
            address=addresses.get(claim["federation"], ""),
            what=WHAT[row.kind],
            purposes=tuple(f"{code}: {PURPOSE_WORDS[code]}" for code in _purposes(claim)),
            project=offered.project,
            task=claim["task"],
            title=offered.title,
            run=row.run,
            round=row.round,
            kind=row.kind,
            dataset=dataset,
            basis=_basis(datasets[dataset].basis),
            consents=tuple(records[number].told for number in sorted(used) if number in records),
            receipt=receipt_digest(row.receipt),
            withdrawn_at=min((r.since for r in records.values() if r.withdraws and r.since > at), default=None),
        )


def _claim(envelope: bytes) -> dict[str, Any]:
    """Return what a receipt of this site says; it is read from the site's own record and not verified again."""
    found: dict[str, Any] = json.loads(b64decode(json.loads(envelope)["payload"]))["predicate"]
    return found


def _purposes(claim: Mapping[str, Any]) -> list[str]:
    asked = claim["eligibility"]
    return [*asked["purposes"], *asked["activity"]]


def _decided(db: sa.Connection, row: sa.Row[Any], patient: str) -> dict[str, tuple[int, ...]]:
    """Return the studies of the patient that were decided on in an opening, with the consents that decided."""
    columns = eligibility.c
    opening = sa.tuple_(columns.run, columns.round, columns.kind, columns.nonce)
    rows = db.scalar(sa.select(columns.rows).where(opening == (row.run, row.round, row.kind, row.nonce)))
    if rows is None:
        return {}
    return {row.study: row.records for row in read_rows(rows) if row.patient == patient}


@dataclass(frozen=True, slots=True)
class _Record:
    told: str
    since: datetime
    withdraws: bool


def _records(db: sa.Connection, patient: str) -> dict[int, _Record]:
    found = {}
    for row in db.execute(sa.select(consent_record).where(consent_record.c.patient == patient)):
        record = parse_consent(json.loads(row.resource)).record
        dated = f" of {record.dated_at:%Y-%m-%d}" if record.dated_at else ""
        told = f"consent record {row.number}{dated}"
        found[row.number] = _Record(
            told, datetime.fromisoformat(row.recorded_at), row.consent_id.startswith("withdrawal-")
        )
    return found


def _basis(basis: LegalBasis) -> str:
    dated = f" of {basis.issued_on}" if basis.issued_on else ""
    return " ".join(filter(None, (_BASES[basis.kind], basis.reference))) + dated

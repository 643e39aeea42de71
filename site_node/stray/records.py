"""What is kept of searches: known patients as digests, files sealed and masked, findings, scans and their trend."""

from __future__ import annotations

import json
import os
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import sqlalchemy as sa
from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import AESGCM
from sqlalchemy.dialects.sqlite import insert

from site_node.errors import ConfigurationError
from site_node.store import stray_decision, stray_file, stray_finding, stray_known, stray_scan
from site_node.stray.detection import VERSION
from site_node.stray.dictionary import Keyer, Table, entries
from site_node.stray.finding import Risk

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator
    from datetime import datetime

    from site_node.deidentify.pseudonym import Pseudonymiser
    from site_node.stray.dictionary import Patient
    from site_node.stray.inspection import Report
    from site_node.stray.origin import Item

_NONCE = 12
_MIN_ID = 6
_IN_ONE = 500


@dataclass(frozen=True, slots=True)
class Keys:
    """The keys of the search, which follow from the site's pseudonym key and are gone with it."""

    digests: bytes
    paths: bytes

    @classmethod
    def of(cls, pseudonymiser: Pseudonymiser) -> Keys:
        """Return the site's."""
        return cls(pseudonymiser.subkey("stray-digests"), pseudonymiser.subkey("stray-paths"))

    def seal(self, source: str, key: str) -> bytes:
        """Return where a file lies, for those with the key alone."""
        nonce = os.urandom(_NONCE)
        plain = json.dumps([source, key]).encode()
        return nonce + AESGCM(self.paths).encrypt(nonce, plain, b"stray")

    def open(self, sealed: bytes) -> tuple[str, str]:
        """Return place and path.

        Raises: ConfigurationError if they were sealed under another key.
        """
        try:
            source, key = json.loads(AESGCM(self.paths).decrypt(sealed[:_NONCE], sealed[_NONCE:], b"stray"))
        except InvalidTag as error:
            raise ConfigurationError("stray: a path was sealed under another key, or altered") from error
        return source, key


def learn(store: sa.Engine, keys: Keys, patients: Iterable[Patient]) -> int:
    """Add what is known of patients; return how many digests are new."""
    keyer = Keyer(keys.digests)
    rows = {
        (entry.digest.to_bytes(8), entry.person.to_bytes(8), entry.kind)
        for patient in patients
        for entry in entries(patient, keyer)
    }
    with store.begin() as db:
        before = db.scalar(sa.select(sa.func.count()).select_from(stray_known)) or 0
        if rows:
            values = [{"digest": digest, "person": person, "kind": kind} for digest, person, kind in sorted(rows)]
            db.execute(insert(stray_known).on_conflict_do_nothing(), values)
        return (db.scalar(sa.select(sa.func.count()).select_from(stray_known)) or 0) - before


def forget(store: sa.Engine) -> None:
    """Take every known patient out of the dictionary."""
    with store.begin() as db:
        db.execute(sa.delete(stray_known))


def known(db: sa.Connection) -> Table:
    """Return the dictionary."""
    rows = db.execute(sa.select(stray_known.c.digest, stray_known.c.person).order_by(stray_known.c.digest)).all()
    digests = np.frombuffer(b"".join(row.digest for row in rows), ">u8").astype(np.uint64)
    persons = np.frombuffer(b"".join(row.person for row in rows), ">u8").astype(np.uint64)
    return Table(digests, persons)


def rules(db: sa.Connection, pictures: str) -> str:
    """Return what a search by today's rules and dictionary is called; a file searched by another is searched again."""
    count, last = db.execute(sa.select(sa.func.count(), sa.func.max(sa.text("rowid"))).select_from(stray_known)).one()
    return f"{VERSION}.{count}.{last or 0}.{pictures}"


def begin(db: sa.Connection, source: str, shown: str, at: datetime, *, everything: bool) -> int:
    """Return the number of a new scan, or of one of the same kind that was cut off."""
    columns = stray_scan.c
    cut = sa.select(columns.number).where(columns.source == source, columns.ended_at.is_(None))
    number = db.scalar(cut.where(columns.everything == everything))
    if number is not None:
        return int(number)
    values = {"source": source, "shown": shown, "everything": everything, "began_at": at.isoformat(), "counts": "{}"}
    made = db.execute(sa.insert(stray_scan).values(values))
    return int(made.inserted_primary_key[0]) if made.inserted_primary_key else 0


def stamps(db: sa.Connection, source: str) -> dict[str, tuple[int, str, str, int]]:
    """Return size, stamp, rules and the scan that read it last of each file of a source, by id."""
    columns = stray_file.c
    query = sa.select(columns.id, columns.size, columns.stamp, columns.rules, columns.searched)
    return {
        row.id: (row.size, row.stamp, row.rules, row.searched)
        for row in db.execute(query.where(columns.source == source))
    }


def seen(db: sa.Connection, ids: list[str], scan: int) -> None:
    """Note that files are there still, unchanged."""
    for start in range(0, len(ids), _IN_ONE):
        some = ids[start : start + _IN_ONE]
        db.execute(sa.update(stray_file).where(stray_file.c.id.in_(some)).values(scan=scan))


def keep(
    db: sa.Connection, id_: str, source: str, sealed: bytes, item: Item, report: Report, scan: int, rule: str
) -> None:
    """Keep what was found in a file, in place of what was known of it."""
    db.execute(sa.delete(stray_finding).where(stray_finding.c.file == id_))
    values = {
        "id": id_, "source": source, "sealed": sealed, "shown": report.shown, "owner": item.owner, "size": item.size,
        "stamp": item.stamp, "rules": rule, "scan": scan, "searched": scan, "content": report.content,
        "persons": report.persons, "faults": json.dumps(report.faults), "more": report.more, "picture": report.picture,
    }  # fmt: skip
    db.execute(insert(stray_file).values(values).on_conflict_do_update(index_elements=["id"], set_=values))
    if report.findings:
        db.execute(
            sa.insert(stray_finding),
            [
                {
                    "file": id_, "kind": one.kind.value, "rule": one.rule, "digest": one.digest, "place": one.place,
                    "confidence": int(one.confidence), "risk": int(one.risk), "times": one.times,
                }
                for one in report.findings
            ],
        )  # fmt: skip


def end(db: sa.Connection, scan: int, source: str, at: datetime, counts: dict[str, int]) -> dict[str, int]:
    """Forget files that are gone, close the scan, and return its counts with the files by their gravest open risk."""
    db.execute(sa.delete(stray_file).where(stray_file.c.source == source, stray_file.c.scan != scan))
    of_risk = {risk.word: 0 for risk in sorted(Risk, reverse=True)}
    for one in files(db):
        if one.source == source and one.risk is not None:
            of_risk[one.risk.word] += 1
    told = {**counts, **of_risk}
    db.execute(
        sa.update(stray_scan)
        .where(stray_scan.c.number == scan)
        .values(ended_at=at.isoformat(), counts=json.dumps(told))
    )
    return told


@dataclass(frozen=True, slots=True)
class File:
    """A file that was searched, with its findings; `open` are those that nobody has accepted as it is now."""

    id: str
    source: str
    shown: str
    owner: str
    size: int
    persons: int
    content: str
    findings: tuple[Any, ...]
    open: tuple[Any, ...]
    faults: tuple[tuple[str, str], ...]
    more: int
    picture: bytes | None
    sealed: bytes

    @property
    def risk(self) -> Risk | None:
        """The gravest of what is open."""
        return Risk(max(one.risk for one in self.open)) if self.open else None


def files(db: sa.Connection) -> Iterator[File]:
    """Yield every file with a finding or a fault, gravest first."""
    findings: dict[str, list[Any]] = {}
    for row in db.execute(sa.select(stray_finding).order_by(stray_finding.c.risk.desc(), stray_finding.c.place)):
        findings.setdefault(row.file, []).append(row)
    accepted: dict[tuple[str, str], set[tuple[str, ...]]] = {}
    query = sa.select(stray_decision).where(stray_decision.c.verdict == "accepted")
    for row in db.execute(query):
        accepted.setdefault((row.file, row.content), set()).update(map(tuple, json.loads(row.covers)))
    found = []
    for row in db.execute(sa.select(stray_file)):
        mine = tuple(findings.get(row.id, ()))
        faults = tuple((place, reason) for place, reason in json.loads(row.faults))
        if not mine and not faults:
            continue
        covered = accepted.get((row.id, row.content), set())
        left = tuple(one for one in mine if (one.kind, one.rule, one.digest) not in covered)
        found.append(
            File(row.id, row.source, row.shown, row.owner, row.size, row.persons, row.content, mine, left, faults,
                 row.more, row.picture, row.sealed)
        )  # fmt: skip
    yield from sorted(found, key=lambda one: (-(one.risk or 0), -one.persons, -len(one.open), one.shown, one.id))


def find(db: sa.Connection, name: str) -> File:
    """Return the file with an id, or the one whose id begins so.

    Raises: ConfigurationError if none does, or several.
    """
    matching = [one for one in files(db) if len(name) >= _MIN_ID and one.id.startswith(name.lower())]
    if len(matching) != 1:
        raise ConfigurationError(
            "no such file: name it by its id, or how it begins (6 digits or more, of one file alone)"
        )
    return matching[0]


def scans(db: sa.Connection) -> list[dict[str, Any]]:
    """Return every scan that ended, oldest first."""
    query = sa.select(stray_scan).where(stray_scan.c.ended_at.is_not(None)).order_by(stray_scan.c.number)
    return [
        {
            "number": row.number,
            "source": row.source,
            "place": row.shown,
            "ended_at": row.ended_at,
            **json.loads(row.counts),
        }
        for row in db.execute(query)
    ]

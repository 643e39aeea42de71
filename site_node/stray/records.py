"""What is kept of searches: files sealed and masked, findings, scans and their trend."""

from __future__ import annotations

import json
import os
from collections import Counter
from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING, Any, NamedTuple

import sqlalchemy as sa
from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import AESGCM
from sqlalchemy.dialects.sqlite import insert

from site_node.errors import ConfigurationError
from site_node.store import stray_decision, stray_file, stray_finding, stray_scan
from site_node.stray import known
from site_node.stray.finding import Risk

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence
    from datetime import datetime

    from site_node.deidentify.pseudonym import Pseudonymiser
    from site_node.stray.inspection import Report
    from site_node.stray.origin import Item

_NONCE = 12
_MIN_ID = 6
_IN_ONE = 500
# Scans that did not end, and after which none of the place did.
_LATER = stray_scan.alias()
_CUT_OFF = stray_scan.c.ended_at.is_(None) & ~sa.exists().where(
    _LATER.c.source == stray_scan.c.source, _LATER.c.number > stray_scan.c.number, _LATER.c.ended_at.is_not(None)
)


@dataclass(frozen=True)
class Keys:
    """The keys of the search, which follow from the site's pseudonym key and are gone with it."""

    digests: bytes
    paths: bytes

    @classmethod
    def of(cls, pseudonymiser: Pseudonymiser) -> Keys:
        """Return the site's."""
        return cls(pseudonymiser.subkey(known.DIGESTS), pseudonymiser.subkey("stray-paths"))

    @cached_property
    def _cipher(self) -> AESGCM:
        return AESGCM(self.paths)

    def seal(self, source: str, key: str) -> bytes:
        """Return where a file lies, for those with the key alone."""
        nonce = os.urandom(_NONCE)
        plain = json.dumps([source, key]).encode()
        return nonce + self._cipher.encrypt(nonce, plain, b"stray")

    def open(self, sealed: bytes) -> tuple[str, str]:
        """Return place and path.

        Raises: ConfigurationError if they were sealed under another key.
        """
        try:
            source, key = json.loads(self._cipher.decrypt(sealed[:_NONCE], sealed[_NONCE:], b"stray"))
        except InvalidTag as error:
            raise ConfigurationError("stray: a path was sealed under another key, or altered") from error
        return source, key


def begin(db: sa.Connection, source: str, shown: str, at: datetime, *, everything: bool) -> int:
    """Return the number of a new scan, or of one of the same kind that was cut off."""
    columns = stray_scan.c
    cut = sa.select(columns.number).where(_CUT_OFF, columns.source == source, columns.everything == everything)
    number = db.scalar(cut)
    if number is not None:
        return int(number)
    values = {"source": source, "shown": shown, "everything": everything, "began_at": at.isoformat(), "counts": "{}"}
    made = db.execute(sa.insert(stray_scan).values(values))
    return int(made.inserted_primary_key[0]) if made.inserted_primary_key else 0


def cut_off(db: sa.Connection) -> list[tuple[str, str]]:
    """Return place and beginning of each scan that did not end, or has not ended yet."""
    query = sa.select(stray_scan.c.shown, stray_scan.c.began_at).where(_CUT_OFF).order_by(stray_scan.c.number)
    return [(row.shown, row.began_at) for row in db.execute(query)]


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


class Searched(NamedTuple):
    """A file that was looked through; `sealed` is where it lies."""

    id: str
    sealed: bytes
    item: Item
    report: Report


def keep(db: sa.Connection, batch: Sequence[Searched], source: str, scan: int, rule: str) -> None:
    """Keep what was found in some files, in place of what was known of them."""
    db.execute(sa.delete(stray_finding).where(stray_finding.c.file.in_([one.id for one in batch])))
    rows = [
        {
            "id": one.id, "source": source, "sealed": one.sealed, "shown": one.report.shown + one.item.suffix,
            "owner": one.item.owner, "size": one.item.size, "stamp": one.item.stamp, "rules": rule,
            "scan": scan, "searched": scan,
            "content": one.report.content, "persons": one.report.persons, "faults": json.dumps(one.report.faults),
            "left_out": json.dumps(one.report.left_out), "more": one.report.more, "picture": one.report.picture,
        }
        for one in batch
    ]  # fmt: skip
    new = insert(stray_file)
    db.execute(
        new.on_conflict_do_update(index_elements=["id"], set_={name: new.excluded[name] for name in rows[0]}), rows
    )
    findings = [
        {
            "file": one.id, "kind": found.kind.value, "rule": found.rule, "digest": found.digest, "place": found.place,
            "confidence": int(found.confidence), "risk": int(found.risk), "times": found.times,
        }
        for one in batch
        for found in one.report.findings
    ]  # fmt: skip
    if findings:
        db.execute(sa.insert(stray_finding), findings)


def end(db: sa.Connection, source: str, scan: int) -> None:
    """Forget files of a place that are gone."""
    db.execute(sa.delete(stray_file).where(stray_file.c.source == source, stray_file.c.scan != scan))


def close(db: sa.Connection, scan: int, at: datetime, counts: Mapping[str, int]) -> None:
    """Note that a scan ended, and what it saw."""
    values = {"ended_at": at.isoformat(), "counts": json.dumps(counts)}
    db.execute(sa.update(stray_scan).where(stray_scan.c.number == scan).values(values))


def left_out(db: sa.Connection, source: str) -> dict[str, int]:
    """Return how many files of a place hold what nobody wanted to be looked into, by what that is."""
    column = stray_file.c.left_out
    told: Counter[str] = Counter()
    query = sa.select(column, sa.func.count()).where(stray_file.c.source == source).group_by(column)
    for what, count in db.execute(query):
        told.update(dict.fromkeys(json.loads(what), count))
    return dict(told)


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


def files(db: sa.Connection, source: str | None = None) -> Iterator[File]:
    """Yield every file with a finding or a fault, gravest first; those of one place alone if it is named."""
    of_place = stray_file.c.source == source if source is not None else sa.true()
    findings: dict[str, list[Any]] = {}
    query = sa.select(stray_finding).join(stray_file, stray_file.c.id == stray_finding.c.file).where(of_place)
    for row in db.execute(query.order_by(stray_finding.c.risk.desc(), stray_finding.c.place)):
        findings.setdefault(row.file, []).append(row)
    accepted: dict[tuple[str, str], set[tuple[str, ...]]] = {}
    for row in db.execute(sa.select(stray_decision).where(stray_decision.c.verdict == "accepted")):
        accepted.setdefault((row.file, row.content), set()).update(map(tuple, json.loads(row.covers)))
    found = []
    for row in db.execute(sa.select(stray_file).where(of_place)):
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
    query = sa.select(stray_scan).where(stray_scan.c.ended_at.is_not(None)).order_by(stray_scan.c.ended_at)
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

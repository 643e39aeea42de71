"""Keeps what was read from each consent beside its source text, so that no process reads the same text again.

A reading is kept as a shape, once for all consents that share it, and the moments of its own. It is what
`consent.parse_consent` made of the text, with the studies it names as the catalogue knows them and with the doubt under
which it is held. A shape carries the version of the reading code: what another version has kept is not used, and the
text is read anew. A row of consent_record never changes but for being superseded, and so no reading of it does.
"""

from __future__ import annotations

import hashlib
import json
from dataclasses import replace
from datetime import datetime
from functools import cache
from importlib import metadata
from pathlib import Path
from typing import TYPE_CHECKING

import sqlalchemy as sa

import consent
from consent import UNRESOLVED, Reading, Shape, parse_consent
from site_node.store import among, consent_reading, consent_record, consent_shape

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping, Sequence

    from consent import ConsentRecord, Provision

NO_STUDIES = "{}"
_AT_ONCE = 1000
_READS = ("errors", "purpose", "record", "rules", "broad", "fhir", "reading")
"""The modules of `consent` that make a reading of a text, beside this one."""


@cache
def version() -> str:
    """Return the version of the code that reads: what it is made of, by digest."""
    folder = Path(consent.__file__).parent
    sources = [*(folder / f"{name}.py" for name in _READS), Path(__file__)]
    digest = hashlib.sha256(f"pydantic {metadata.version('pydantic')}".encode())
    for path in sources:
        digest.update(hashlib.sha256(path.read_bytes()).digest())
    return digest.hexdigest()


def reading_of(record: ConsentRecord, studies: str, doubt: str | None) -> Reading:
    """Return a record as this site understands it: `studies` (JSON) are the pseudonyms of those it names."""
    root = _with_pseudonyms(record.root, json.loads(studies)) if studies != NO_STUDIES else record.root
    return Reading.of(replace(record, root=root, review=doubt or record.review))


def keep(db: sa.Connection, readings: Mapping[int, Reading]) -> None:
    """Keep the readings of consent records, by the records' numbers, in the transaction that stores these."""
    digests = {reading.shape.text: _digest(reading.shape.text) for reading in readings.values()}
    known = _numbers(db, digests.values())
    new = [{"reader": version(), "digest": d, "text": t} for t, d in digests.items() if d not in known]
    if new:
        db.execute(sa.insert(consent_shape), new)
        known = _numbers(db, digests.values())
    rows = [
        {
            "number": number,
            "consent_id": reading.consent_id,
            "shape": known[digests[reading.shape.text]],
            "moments": " ".join(moment.isoformat() for moment in reading.moments),
        }
        for number, reading in readings.items()
    ]
    if rows:
        db.execute(sa.insert(consent_reading), rows)


class Readings:
    """Reads the readings of consent records by number; keeps the shapes it has met."""

    def __init__(self) -> None:
        self._shapes: dict[int, Shape | None] = {}  # None: of another version

    def read(self, db: sa.Connection, numbers: Sequence[int]) -> Iterator[tuple[int, Reading]]:
        """Yield the reading of each consent record, from what is kept or else from its text."""
        for start in range(0, len(numbers), _AT_ONCE):
            some = numbers[start : start + _AT_ONCE]
            kept = dict(self._kept(db, some))
            yield from kept.items()
            yield from _read_anew(db, [number for number in some if number not in kept])

    def _kept(self, db: sa.Connection, numbers: Sequence[int]) -> Iterator[tuple[int, Reading]]:
        columns = consent_reading.c
        wanted = sa.select(columns.number, columns.consent_id, columns.shape, columns.moments)
        rows = db.execute(wanted.where(among(columns.number, numbers))).all()
        self._meet(db, {shape for _, _, shape, _ in rows} - self._shapes.keys())
        for number, consent_id, place, moments in rows:
            shape = self._shapes.get(place)
            if shape is not None:
                yield number, Reading(consent_id, shape, tuple(map(datetime.fromisoformat, moments.split())))

    def _meet(self, db: sa.Connection, numbers: set[int]) -> None:
        if not numbers:
            return
        columns = consent_shape.c
        for row in db.execute(sa.select(consent_shape).where(among(columns.number, sorted(numbers)))):
            # Its digest as well: a text that was damaged is not what was kept.
            is_sound = row.reader == version() and row.digest == _digest(row.text)
            self._shapes[row.number] = Shape(row.text) if is_sound else None


def _read_anew(db: sa.Connection, numbers: Sequence[int]) -> Iterator[tuple[int, Reading]]:
    if not numbers:
        return
    columns = consent_record.c
    wanted = sa.select(columns.number, columns.resource, columns.studies, columns.doubt)
    for number, resource, studies, doubt in db.execute(wanted.where(among(columns.number, numbers))):
        yield number, reading_of(parse_consent(json.loads(resource)).record, studies, doubt)


def _numbers(db: sa.Connection, digests: Iterable[str]) -> dict[str, int]:
    columns = consent_shape.c
    query = sa.select(columns.digest, columns.number).where(columns.reader == version(), among(columns.digest, digests))
    return {row.digest: row.number for row in db.execute(query)}


def _digest(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()


def _with_pseudonyms(rule: Provision, known: Mapping[str, Sequence[str]]) -> Provision:
    """Return `rule` with the studies it names as the catalogue knows them."""
    return replace(
        rule,
        # Both, since a site may keep its UIDs (retain_uids); entries of a list are alternatives.
        data_references=tuple(
            uid for named in rule.data_references for uid in (named, *known.get(named, (UNRESOLVED,)))
        ),
        children=tuple(_with_pseudonyms(child, known) for child in rule.children),
    )

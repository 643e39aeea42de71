"""Brings here what a FHIR server says about consents, and notices what it says no more."""

from __future__ import annotations

import json
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from site_node import consents, sources

if TYPE_CHECKING:
    from collections.abc import Callable
    from datetime import datetime

    import sqlalchemy as sa

    from site_node.deidentify.pseudonym import Pseudonymiser
    from site_node.fhir_server import FhirServer


@dataclass(frozen=True, slots=True)
class Fetched:
    """What a reading brought, and up to when the source is known since.

    `doubted` are records held before that went to review because of a fault, `missed` because the server has them no
    more.
    """

    as_of: datetime
    records: int
    faults: tuple[tuple[str, str], ...]
    doubted: int
    missed: int
    stand_ins: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Fetcher:
    """Reads servers into the records of one hospital."""

    store: sa.Engine
    pseudonymiser: Pseudonymiser
    patient_system: str
    now: Callable[[], datetime]

    def fetch(self, server: FhirServer, source: str, *, whole: bool = False) -> Fetched:
        """Take in the consents that were changed since the source was read last, all of them if `whole`.

        Where the server has fewer consents than it showed before, all are read: those that are gone go to review.

        Raises: PeerError if the reading is none; what was taken in by then stays, and the source is as old as before.
        """
        as_of, read = self.now(), _Read()
        with self.store.connect() as db:
            since = None if whole else sources.known(db).get(source)
            before = sources.shown(db, source)
        known = before if since is None else before | self._read(server, since, read)
        if since is None or server.count() < len(known):
            known = self._read(server, None, read)
        with self.store.begin() as db:
            missed = consents.miss(db, before - known, self.now())
            sources.show(db, source, known)
        sources.note(self.store, source, as_of, self.now())
        return Fetched(as_of, read.records, tuple(read.faults.items()), read.doubted, missed, tuple(read.stand_ins))

    def _read(self, server: FhirServer, since: datetime | None, read: _Read) -> frozenset[str]:
        """Take in what a search finds, and return the ids of what it showed."""
        ids: set[str] = set()
        for page in server.consents(since, self.now(), self.patient_system):
            document = {"resourceType": "Bundle", "type": "collection", "entry": [{"resource": one} for one in page]}
            loaded = consents.load(
                self.store, json.dumps(document).encode(), self.pseudonymiser, self.now(), self.patient_system
            )
            ids.update(str(one.get("id")) for one in page)
            read.records += loaded.records
            read.doubted += loaded.doubted
            read.faults |= loaded.faults
            read.stand_ins += loaded.stand_ins
        return frozenset(ids)


@dataclass(slots=True)
class _Read:
    """What was taken in so far."""

    records: int = 0
    doubted: int = 0
    faults: dict[str, str] = field(default_factory=dict)
    stand_ins: list[str] = field(default_factory=list)

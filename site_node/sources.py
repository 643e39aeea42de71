"""Where consents come from, and as of which moment each source is known; `consent.access` says whether that is recent.

A source is noted after what it said was committed: a crash in between leaves it older than it is, never newer.
"""

from __future__ import annotations

from datetime import datetime
from typing import TYPE_CHECKING

import sqlalchemy as sa

from site_node import ledger
from site_node.errors import ConfigurationError
from site_node.store import consent_shown, consent_source

if TYPE_CHECKING:
    from collections.abc import Collection, Mapping


def note(store: sa.Engine, name: str, as_of: datetime, at: datetime) -> None:
    """Note that all a source said up to `as_of` is known here; an earlier moment changes nothing.

    Raises: ConfigurationError if the source has no name, or `as_of` is still to come.
    """
    if not name.strip():
        raise ConfigurationError("a source of consents has a name")
    if as_of > at:
        raise ConfigurationError(f"source {name}: it cannot be current as of a moment to come")
    with store.begin() as db:
        held = known(db).get(name)
        if held is None:
            db.execute(sa.insert(consent_source).values(name=name, as_of=as_of.isoformat()))
            ledger.write(db, at, "site:source:added", source=name)
        elif held < as_of:
            db.execute(sa.update(consent_source).where(consent_source.c.name == name).values(as_of=as_of.isoformat()))


def retire(store: sa.Engine, name: str, by: str, at: datetime) -> None:
    """Expect nothing more of a source; what it said stays.

    Raises: ConfigurationError if there is no such source.
    """
    with store.begin() as db:
        gone = db.execute(sa.delete(consent_source).where(consent_source.c.name == name))
        if gone.rowcount != 1:
            raise ConfigurationError(f"source {name} is not known here")
        db.execute(sa.delete(consent_shown).where(consent_shown.c.source == name))
        ledger.write(db, at, "site:source:retired", source=name, by=by)


def known(db: sa.Connection) -> Mapping[str, datetime]:
    """Return the sources, and as of when each is known."""
    rows = db.execute(sa.select(consent_source).order_by(consent_source.c.name))
    return {row.name: datetime.fromisoformat(row.as_of) for row in rows}


def shown(db: sa.Connection, name: str) -> frozenset[str]:
    """Return the ids of the consents that a source has, as far as is known here."""
    return frozenset(db.scalars(sa.select(consent_shown.c.consent_id).where(consent_shown.c.source == name)))


def show(db: sa.Connection, name: str, consent_ids: Collection[str]) -> None:
    """Note that a source has exactly these consents."""
    before = shown(db, name)
    for gone in before.difference(consent_ids):
        db.execute(sa.delete(consent_shown).where(consent_shown.c.source == name, consent_shown.c.consent_id == gone))
    if new := [{"source": name, "consent_id": one} for one in sorted({*consent_ids} - before)]:
        db.execute(sa.insert(consent_shown), new)

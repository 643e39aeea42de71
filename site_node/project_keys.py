"""A project's pseudonym keys: made, rotated, destroyed, each on the record.

One project, one random key; two projects' pseudonyms have nothing in common. A rotation begins a new generation and
leaves the old one for reading. A destruction is for good: nobody can make or undo the pseudonyms of that key again.
Does not make pseudonyms (deidentify.pseudonym) and keeps no identities (reidentification).
"""

from __future__ import annotations

import os
from dataclasses import dataclass
from typing import TYPE_CHECKING

import sqlalchemy as sa

from site_node import keys, ledger
from site_node.deidentify.pseudonym import Pseudonymiser
from site_node.errors import ConfigurationError
from site_node.store import identity, project_key, reading, site_key

if TYPE_CHECKING:
    from datetime import datetime
    from pathlib import Path

FOLDER = "identity/projects"


@dataclass(frozen=True, slots=True)
class ProjectKey:
    """One generation of a project's key."""

    key_id: str
    project: str
    generation: int
    reference: str
    made_at: str
    retired_at: str | None
    destroyed_at: str | None
    erased_at: str | None

    @property
    def state(self) -> str:
        """`current`, `retired`, `destroyed`, or `destroying` while the key itself may still be there."""
        if self.destroyed_at:
            return "destroyed" if self.erased_at else "destroying"
        return "retired" if self.retired_at else "current"


def create(store: sa.Engine, root: Path, project: str, by: str, at: datetime, reference: str | None = None) -> str:
    """Give a project its first key and return the key's id; `reference` names one that is on a token already.

    Raises: ConfigurationError if the project has a key, or the reference is of no use.
    """
    if not project.strip():
        raise ConfigurationError("a project has a name")
    with store.begin() as db:
        if _current(db, project) is not None:
            raise ConfigurationError(f"project {project} has a key: rotate it")
        return _begin(db, root, project, by, at, reference, "site:key:created")


def rotate(store: sa.Engine, root: Path, project: str, by: str, at: datetime, reference: str | None = None) -> str:
    """Begin a new generation of a project's key and return its id; the one before is for reading alone.

    Raises: ConfigurationError if the project has no key, or the reference is of no use.
    """
    with store.begin() as db:
        before = _current(db, project)
        if before is None:
            raise ConfigurationError(f"project {project} has no key: create one")
        db.execute(
            sa.update(project_key).where(project_key.c.key_id == before.key_id).values(retired_at=at.isoformat())
        )
        return _begin(db, root, project, by, at, reference, "site:key:rotated")


def destroy(
    store: sa.Engine, root: Path, project: str, by: str, at: datetime, generation: int | None = None
) -> tuple[str, ...]:
    """Destroy a project's keys, or one generation, with the identities sealed under them; return their ids.

    First the record says that they are no longer used, then they are overwritten. What a crash or a token that refuses
    leaves between the two is `destroying`: nobody can use it, and destroying it again finishes it.
    Raises: ConfigurationError if there is no such key, or a key cannot be destroyed from here.
    """
    _check_person(by)
    with store.begin() as db:
        doomed = [
            key for key in generations(db, project) if key.erased_at is None and generation in {None, key.generation}
        ]
        if not doomed:
            raise ConfigurationError(f"project {project} has no such key")
        for key in doomed:
            if key.destroyed_at is not None:  # on record already, and to be finished
                continue
            db.execute(
                sa.update(project_key)
                .where(project_key.c.key_id == key.key_id)
                .values(destroyed_by=by, destroyed_at=at.isoformat())
            )
            rows = db.execute(sa.delete(identity).where(identity.c.key_id == key.key_id)).rowcount
            ledger.write(
                db,
                at,
                "site:key:destroyed",
                project=project,
                generation=key.generation,
                key=key.key_id,
                identities=rows,
                by=by,
            )
    for key in doomed:
        keys.destroy(key.reference, root)
        with store.begin() as db:
            db.execute(
                sa.update(project_key).where(project_key.c.key_id == key.key_id).values(erased_at=at.isoformat())
            )
            ledger.write(db, at, "site:key:erased", project=project, generation=key.generation, key=key.key_id)
    return tuple(key.key_id for key in doomed)


def generations(db: sa.Connection, project: str | None = None) -> list[ProjectKey]:
    """Return the keys of a project, or of all, oldest first."""
    columns = project_key.c
    query = sa.select(*(columns[name] for name in ProjectKey.__slots__)).order_by(columns.project, columns.generation)
    if project is not None:
        query = query.where(columns.project == project)
    return [ProjectKey(*row) for row in db.execute(query)]


def pseudonymiser(db: sa.Connection, root: Path, project: str) -> Pseudonymiser:
    """Return what makes the pseudonyms of a project now.

    Raises: ConfigurationError if the project has no key, or the key is not the one on record.
    """
    key = _current(db, project)
    if key is None:
        raise ConfigurationError(f"project {project} has no key: run `filmroom-site keys create`")
    return _open(key, root)


def by_id(db: sa.Connection, root: Path, key_id: str) -> Pseudonymiser | None:
    """Return what made the pseudonyms of one generation; None if it is destroyed or was never here.

    Raises: ConfigurationError if the key is not the one on record.
    """
    found = [key for key in generations(db) if key.key_id == key_id and key.destroyed_at is None]
    return _open(found[0], root) if found else None


def _open(key: ProjectKey, root: Path) -> Pseudonymiser:
    opened = _pseudonymiser(root, key.reference, key.project)
    if opened.key_id != key.key_id:
        raise ConfigurationError(f"project {key.project}: the key is not the one on record ({key.key_id})")
    return opened


def _pseudonymiser(root: Path, reference: str, project: str) -> Pseudonymiser:
    return Pseudonymiser(keys.load(reference, root, f"project/{project}"))


def _current(db: sa.Connection, project: str) -> ProjectKey | None:
    return next((key for key in generations(db, project) if key.state == "current"), None)


def _begin(
    db: sa.Connection, root: Path, project: str, by: str, at: datetime, reference: str | None, entry: str
) -> str:
    """Put a key on the record, in the transaction of `db`; a new one is on disk before it is on record."""
    _check_person(by)
    if reference is None:
        key = os.urandom(keys.KEY_BYTES)
        reference = f"file:{FOLDER}/{Pseudonymiser(key).key_id}.key"
        keys.make_file(root / reference.removeprefix("file:"), key)
    # A key that two share could not be destroyed for one of them.
    if db.execute(sa.select(project_key.c.key_id).where(project_key.c.reference == reference)).first():
        raise ConfigurationError("a project's key is its own: this reference is in use, or was")
    key_id = _pseudonymiser(root, reference, project).key_id
    if db.execute(sa.select(project_key.c.key_id).where(project_key.c.key_id == key_id)).first():
        raise ConfigurationError("a project's key is its own: this one is in use, or was")
    number = 1 + max((key.generation for key in generations(db, project)), default=0)
    db.execute(
        sa.insert(project_key).values(
            key_id=key_id,
            project=project,
            generation=number,
            reference=reference,
            made_by=by,
            made_at=at.isoformat(),
        )
    )
    ledger.write(db, at, entry, project=project, generation=number, key=key_id, by=by)
    return key_id


def check_site_key(store: sa.Engine, pseudonyms: Pseudonymiser) -> None:
    """Check that the site's pseudonyms are made with the key they were always made with; the first is remembered.

    With another one a withdrawal would find no patient, and nothing would say so.
    Raises: ConfigurationError if it is another key.
    """
    with reading(store).connect() as db:
        known = db.execute(sa.select(site_key.c.key_id)).scalar()
    if known is None:
        with store.begin() as db:
            db.execute(sa.insert(site_key).prefix_with("OR IGNORE").values(id=1, key_id=pseudonyms.key_id))
            known = db.execute(sa.select(site_key.c.key_id)).scalar_one()
    if known != pseudonyms.key_id:
        raise ConfigurationError(f"pseudonym_key: not the key of this site's pseudonyms ({known}): name that one again")


def _check_person(by: str) -> None:
    if not by.strip():
        raise ConfigurationError("the record says who did it")

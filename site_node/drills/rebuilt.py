"""Whether a site rebuilt from a snapshot is this site: its keys, its database, its record, its decisions, its place.

Nothing is written to the running site, and nothing leaves but the question for the tasks the coordinator offers, asked
with the keys that came back.
"""

from __future__ import annotations

import sqlite3
from contextlib import closing
from dataclasses import dataclass
from typing import TYPE_CHECKING

import sqlalchemy as sa

from consent import Deny
from site_node import claims, permissions, project_keys, release
from site_node.audit import Audited, audit
from site_node.config import SiteHome
from site_node.consents import current_epoch
from site_node.deidentify.pseudonym import Pseudonymiser
from site_node.drills.report import Rebuilt
from site_node.errors import ConfigurationError, PeerError
from site_node.gate import Gate
from site_node.keys import IDENTITIES, SITE_PSEUDONYMS, is_file, load, read_signing_key
from site_node.store import APPEND_ONLY, consent_record, metadata, open_store, project_key

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from datetime import datetime
    from pathlib import Path

    from site_node.config import Identity, SiteConfig
    from site_node.gate import Snapshot


@dataclass(frozen=True, slots=True)
class Running:
    """The site that the drill runs at."""

    home: SiteHome
    config: SiteConfig
    store: sa.Engine


@dataclass(frozen=True, slots=True)
class _Pair:
    """The rebuilt site beside the running one, at one moment."""

    home: SiteHome
    config: SiteConfig
    store: sa.Engine
    running: Running
    at: datetime


def prove(root: Path, running: Running, at: datetime) -> tuple[Rebuilt, list[str]]:
    """Return what the site in the folder `root` proved to be, and what is wrong with it."""
    home = SiteHome(root)
    damage = _damage(home.database)
    if damage:
        nothing = dict.fromkeys((check for check in CHECKS), False)
        return Rebuilt(**nothing, records_behind=0), damage
    pair = _Pair(home, home.load_config(), open_store(home.database), running, at)
    try:
        found = {check: list(problems(pair)) for check, problems in CHECKS.items()}
        behind = max(0, _records(running.store) - _records(pair.store))
    finally:
        pair.store.dispose()
    passed = {check: not problems for check, problems in found.items()}
    return Rebuilt(**passed, records_behind=behind), [one for problems in found.values() for one in problems]


def _damage(database: Path) -> list[str]:
    """Return what SQLite finds wrong in the file itself."""
    try:
        with closing(sqlite3.connect(database)) as db:
            whole = db.execute("PRAGMA integrity_check(1)").fetchone() == ("ok",)
            fits = db.execute("PRAGMA foreign_key_check").fetchone() is None
    except sqlite3.DatabaseError:
        whole = fits = False
    return [] if whole and fits else ["the rebuilt database is damaged"]


def _keys(pair: _Pair) -> Iterator[str]:
    """Compare the keys that came back with those the site signs and is known with."""
    root = pair.home.root
    try:
        signing = read_signing_key(pair.home.load_identity().receipt_key).public_key()
        current = read_signing_key(pair.running.home.load_identity().receipt_key).public_key()
        with pair.running.store.connect() as db:
            known = {key.public_bytes_raw() for key in claims.signers(db)}
        if signing.public_bytes_raw() != current.public_bytes_raw():
            was_ours = signing.public_bytes_raw() in known
            yield "the receipt key was changed since: take a snapshot" if was_ours else "the receipt key is not ours"
        pseudonyms = Pseudonymiser(load(_inside(pair.config.pseudonym_key, root), root, SITE_PSEUDONYMS))
        project_keys.check_site_key(pair.running.store, pseudonyms)
        with pair.store.connect() as db:
            columns = project_key.c
            live = sa.select(columns.reference, columns.project).where(columns.destroyed_at.is_(None))
            references = [(reference, f"project/{project}") for reference, project in db.execute(live)]
        if not is_file(pair.config.identity_key) or (root / pair.config.identity_key.removeprefix("file:")).exists():
            references.append((pair.config.identity_key, IDENTITIES))
        for reference, use in references:
            load(_inside(reference, root), root, use)
    except (ConfigurationError, OSError, ValueError) as error:
        yield _told("a key did not come back", error)


def _inside(reference: str, root: Path) -> str:
    """Return the reference of a key that the snapshot holds, or that a token does.

    Raises: ConfigurationError if it lies in a file that no snapshot holds.
    """
    path = (root / reference.removeprefix("file:")).resolve()
    if is_file(reference) and not path.is_relative_to((root / "identity").resolve()):
        raise ConfigurationError("a key lies outside the folder identity, so no snapshot holds it")
    return reference


def _database(pair: _Pair) -> Iterator[str]:
    """Compare what may only be appended to with the running site's: it has to be the beginning of it."""
    with closing(sqlite3.connect(pair.home.database, uri=True)) as db:
        db.execute("ATTACH ? AS running", (f"file:{pair.running.home.database.absolute()}?mode=ro",))
        for table in APPEND_ONLY:
            columns = ", ".join(f'"{column.name}"' for column in metadata.tables[table].c)
            query = f"SELECT {columns} FROM main.{table} EXCEPT SELECT {columns} FROM running.{table}"  # noqa: S608 -- our own names
            other = db.execute(f"SELECT count(*) FROM ({query})").fetchone()[0]  # noqa: S608 -- as above
            if other:
                yield f"{other} rows of {table} came back as others than the running site has"


def _replay(pair: _Pair) -> Iterator[str]:
    """Let the auditor replay the rebuilt record; its files are compared with the catalogue elsewhere."""
    identity = _identity(pair)
    if identity is None:
        return
    try:
        authority = identity.authority.read_bytes()
    except OSError as error:
        yield _told("the certificate of the federation's authority did not come back", error)
        return
    audited = Audited(pair.home.root, identity.federation, identity.site, authority)
    for found in audit(pair.store, audited, read_files=False):
        if found.faults:
            yield f"replay of the rebuilt record, {found.what}: {len(found.faults)} faults"


def _consents(pair: _Pair) -> Iterator[str]:
    """Decide for each task as the running site does, about the patients of whom both hold the same consents."""
    identity = _identity(pair)
    if identity is None:
        return
    with pair.store.connect() as db, pair.running.store.connect() as running:
        tasks = sorted(digest for digest, offered in permissions.tasks(db).items() if offered.approval)
        last = db.execute(sa.select(sa.func.max(consent_record.c.number))).scalar() or 0
        newer = set(running.scalars(sa.select(consent_record.c.patient).where(consent_record.c.number > last)))
        same_epoch = current_epoch(db) == current_epoch(running)
    sites = ((pair.store, pair.config), (pair.running.store, pair.running.config))
    gates = [
        Gate(store, identity.federation, config.minimum_studies, config.max_consent_age) for store, config in sites
    ]
    for digest in tasks:
        here, there = (gate.explained(digest, pair.at) for gate in gates)
        if isinstance(here, Deny) or isinstance(there, Deny):
            if same_epoch and isinstance(here, Deny) != isinstance(there, Deny):
                yield f"task {digest[:12]}: the rebuilt site would not decide as this one does"
            continue
        verdicts = [_verdicts(one, frozenset() if same_epoch else newer) for one in (here, there)]
        shared = verdicts[0].keys() & verdicts[1].keys()
        if any(verdicts[0][study] != verdicts[1][study] for study in shared):
            yield f"task {digest[:12]}: the rebuilt site decides otherwise than this one"


def _verdicts(snapshot: Snapshot, without: frozenset[str] | set[str]) -> dict[str, str]:
    return {
        study.StudyInstanceUID: snapshot.cohort.verdicts[study.StudyInstanceUID].outcome.value
        for study in snapshot.cohort.asked
        if study.patient not in without
    }


def _federation(pair: _Pair) -> Iterator[str]:
    """Ask the coordinator with the keys that came back."""
    identity = _identity(pair)
    if identity is None:
        yield "the rebuilt site is no member of a federation"
        return
    try:
        release.offered_tasks(identity.fleet_address, identity)
    except (PeerError, OSError, ValueError) as error:
        yield _told("the coordinator did not answer the rebuilt site", error)


def _identity(pair: _Pair) -> Identity | None:
    try:
        return pair.home.load_identity()
    except ConfigurationError:
        return None


def _records(store: sa.Engine) -> int:
    with store.connect() as db:
        return int(db.execute(sa.select(sa.func.count()).select_from(consent_record)).scalar_one())


def _told(what: str, error: Exception) -> str:
    return f"{what}: {type(error).__name__}"


CHECKS: dict[str, Callable[[_Pair], Iterator[str]]] = {
    "keys": _keys,
    "database": _database,
    "replay": _replay,
    "consents": _consents,
    "federation": _federation,
}

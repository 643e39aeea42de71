"""Makes and opens a site's folder.

The one place, with the command line and the service, that reads a clock.
"""

from __future__ import annotations

import os
import sys
from dataclasses import dataclass
from datetime import UTC, datetime
from functools import cache
from typing import TYPE_CHECKING

import sqlalchemy as sa

from consent import Deny
from site_node import keys, project_keys, reidentification
from site_node.config import CONFIG_NAME, OWN_FOLDERS, ConsentServer, SiteConfig, SiteHome
from site_node.deidentify.pseudonym import Pseudonymiser
from site_node.errors import ConfigurationError
from site_node.fetching import Fetched, Fetcher
from site_node.store import locked_object, open_store

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from site_node.archive.locked.places import Places
    from site_node.archive.locked.sealing import Seal
    from site_node.archive.locked.worm import Copy
    from site_node.archive.snapshot import Archive
    from site_node.archive.tiers.recall import Recalling
    from site_node.archive.tiers.tiering import Bar, Tiering
    from site_node.drills.drill import Drills
    from site_node.intake.folder import Intake


def now() -> datetime:
    """Return the moment, in UTC."""
    return datetime.now(UTC)


@dataclass(frozen=True, slots=True)
class Site:
    """An opened site folder: configuration, database and the keeper of pseudonyms."""

    home: SiteHome
    config: SiteConfig
    store: sa.Engine
    pseudonymiser: Pseudonymiser


def open_intake(site: Site) -> Intake:
    """Return where the site takes images in, by the rules of its configuration."""
    from site_node.intake.folder import Intake  # noqa: PLC0415 -- pydicom is slow to import and few commands need it

    vault = open_vault(site, site.pseudonymiser)
    settings = site.config.deidentify
    return Intake(site.home.root, site.store, site.pseudonymiser, settings, vault, recall=Recall(site.home.root))


@dataclass(frozen=True, slots=True)
class Recall:
    """Brings a file that is away back when it is opened; can be sent to another process."""

    root: Path

    def __call__(self, path: Path) -> None:
        """Bring a file back, and its series with it.

        Raises: OSError, with the file's name, if it cannot be had.
        """
        _recalling(self.root).recall(path)


@cache
def _recalling(root: Path) -> Recalling:
    return open_recalling(open_site(root), lambda line: print(line, file=sys.stderr))  # noqa: T201 -- one line per problem, to whoever waits


def open_recalling(site: Site, say: Callable[[str], None]) -> Recalling:
    """Return the way back of files that are away.

    Raises: ConfigurationError if the site has no tiers.
    """
    from site_node.archive.locked.sealing import open_seal  # noqa: PLC0415 -- as above
    from site_node.archive.tiers.recall import Recalling  # noqa: PLC0415 -- few commands need it

    folder, seal = tier_folder(site), open_seal(site.home.root)
    # Not by the clock that judges expiry: one that is refused must not keep a file from who needs it.
    return Recalling(site.store, site.home.root, site.config.tiers, folder, seal, open_copies(site), now, say)


def archive_seal(site: Site) -> Seal:
    """Return the seal of the site's locked copies; a site that never sealed anything is given its keys.

    Raises: ConfigurationError if a key is missing.
    """
    from site_node.archive.locked import sealing  # noqa: PLC0415 -- few commands need it

    with site.store.connect() as db:
        is_new = db.execute(sa.select(locked_object.c.name)).first() is None
    if is_new:
        sealing.make_keys(site.home.root)
    return sealing.open_seal(site.home.root)


def open_tiering(site: Site, bar: Bar, say: Callable[[str], None]) -> Tiering:
    """Return what moves files out of the site's folder; copies that are not compliant are said, and not used.

    Raises: ConfigurationError if the site has no tiers; ClockRefused.
    """
    from site_node.archive.locked.clock import Clock  # noqa: PLC0415 -- few commands need it
    from site_node.archive.locked.worm import Locking  # noqa: PLC0415 -- as above
    from site_node.archive.tiers.tiering import Tiering  # noqa: PLC0415 -- as above

    folder, clock, root = tier_folder(site), Clock(site.store), site.home.root
    verdicts, copies = lock_places(site).verdicts(clock.now()), open_copies(site)
    refused = {copy.name: verdict.reason for copy in copies if isinstance(verdict := verdicts[copy.name], Deny)}
    for name, reason in refused.items():
        say(f"refused: {name} is not compliant: {reason}")
    usable = [copy for copy in copies if copy.name not in refused]
    locking = Locking(site.store, root, archive_seal(site), usable, clock.now, say, refused)
    return Tiering(
        site.store, root, folder, site.config.tiers, site.config.locked, locking,
        lambda: lock_places(site).verdicts(clock.now()), site.pseudonymiser.patient, bar, say,
    )  # fmt: skip


def tier_folder(site: Site) -> Path:
    """Return the folder whose files are moved.

    Raises: ConfigurationError if the site has no tiers, its copies cannot give what the mode demands, or its
        folder is one that the site keeps itself.
    """
    from site_node.archive.tiers import placement  # noqa: PLC0415 -- few commands need it

    tiers = site.config.tiers
    if not tiers.mode:
        raise ConfigurationError("no tiers: name a mode and the folder in [tiers] of site.toml")
    verdict = placement.possible(tiers, site.config.locked)
    if isinstance(verdict, Deny):
        raise ConfigurationError(f"tiers.mode: {verdict.reason}")
    folder = site.home.root / tiers.folder
    if any(_overlap(folder.resolve(), (site.home.root / name).resolve()) for name in OWN_FOLDERS):
        raise ConfigurationError(f"tiers.folder: what the site keeps itself must not leave: {', '.join(OWN_FOLDERS)}")
    return folder


def _overlap(one: Path, other: Path) -> bool:
    return one.is_relative_to(other) or other.is_relative_to(one)


def open_copies(site: Site) -> list[Copy]:
    """Return the places of locked copies; those of snapshots are none."""
    from site_node.archive.locked.worm import Copy  # noqa: PLC0415 -- few commands need it

    places = lock_places(site)
    return [Copy(copy, places.bucket(copy)) for copy in site.config.locked.copies if not copy.snapshots]


def lock_places(site: Site) -> Places:
    """Return where the site's locked copies lie."""
    from site_node.archive.locked.places import Places  # noqa: PLC0415 -- botocore is slow to import, and few commands need it

    return Places(site.home.root, site.config.locked, site.store)


def open_archive(site: Site, as_of: datetime | None = None) -> Archive:
    """Return the site's archive; with `as_of`, as its locked copy was then, to be read only.

    Raises: ConfigurationError if the site has none.
    """
    from site_node.archive.snapshot import Archive  # noqa: PLC0415 -- as above

    def elsewhere() -> Recalling | None:
        return open_recalling(site, lambda _line: None) if site.config.tiers.mode else None

    return Archive(site.home, site.config, site.store, now, as_of, elsewhere)


def open_drills(site: Site) -> Drills:
    """Return the drills of the site's archive.

    Raises: ConfigurationError if the site has none.
    """
    from site_node.drills.drill import Drills  # noqa: PLC0415 -- as above
    from site_node.drills.rebuilt import Running  # noqa: PLC0415 -- as above

    return Drills(Running(site.home, site.config, site.store), open_archive(site), now)


def open_vault(site: Site, pseudonymiser: Pseudonymiser) -> reidentification.Vault:
    """Return what seals the identities behind the pseudonyms of one key."""
    key = reidentification.open_identity_key(site.store, site.config.identity_key, site.home.root)
    return reidentification.Vault(key, pseudonymiser)


def fetch_consents(site: Site, server: ConsentServer, *, whole: bool = False) -> Fetched:
    """Read the consents of a FHIR server; its files lie below the site's folder, or where an absolute path says.

    Raises: ConfigurationError if its address or files cannot be used; PeerError if the reading is none.
    """
    from site_node import fhir_server  # noqa: PLC0415 -- httpx is slow to import, and few commands need it

    root = site.home.root
    token = keys.read_secret(root / server.token_file).decode().strip() if server.token_file else None
    authority = root / server.authority_file if server.authority_file else None
    fetcher = Fetcher(site.store, site.pseudonymiser, site.config.patient_system, now)
    with fhir_server.connect(server.fhir_url, token, authority) as connected:
        return fetcher.fetch(connected, server.source, whole=whole)


def create_site(root: Path, name: str) -> None:
    """Make a site folder: configuration, pseudonym key, database.

    Raises: ConfigurationError if there is a site already.
    """
    config = SiteConfig(name)
    if (root / CONFIG_NAME).exists():
        raise ConfigurationError(f"{root} already holds a site")
    home = SiteHome(root)
    root.mkdir(mode=0o700, parents=True, exist_ok=True)
    home.identity.mkdir(mode=0o700, exist_ok=True)
    if not home.pseudonym_key.exists():
        keys.make_file(home.pseudonym_key, os.urandom(keys.KEY_BYTES))
    open_store(home.database).dispose()
    (root / CONFIG_NAME).write_text(f'name = "{config.name}"\n')


def open_site(root: Path) -> Site:
    """Open a site folder.

    Raises: ConfigurationError if it holds no usable site.
    """
    home = SiteHome(root)
    config = home.load_config()
    for folder in (home.outbox, home.work):
        folder.mkdir(mode=0o700, exist_ok=True)
    pseudonymiser = Pseudonymiser(keys.load(config.pseudonym_key, root, keys.SITE_PSEUDONYMS))
    store = open_store(home.database)
    project_keys.check_site_key(store, pseudonymiser)
    return Site(home, config, store, pseudonymiser)

"""Makes and opens a site's folder.

The one place, with the command line and the service, that reads a clock.
"""

from __future__ import annotations

import os
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import TYPE_CHECKING

from site_node import keys, project_keys, reidentification
from site_node.config import CONFIG_NAME, ConsentServer, SiteConfig, SiteHome
from site_node.deidentify.pseudonym import Pseudonymiser
from site_node.errors import ConfigurationError
from site_node.fetching import Fetched, Fetcher
from site_node.store import open_store

if TYPE_CHECKING:
    from pathlib import Path

    import sqlalchemy as sa

    from site_node.archive.snapshot import Archive
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
    return Intake(site.home.root, site.store, site.pseudonymiser, site.config.deidentify, vault)


def open_archive(site: Site, as_of: datetime | None = None) -> Archive:
    """Return the site's archive; with `as_of`, as its locked copy was then, to be read only.

    Raises: ConfigurationError if the site has none.
    """
    from site_node.archive.snapshot import Archive  # noqa: PLC0415 -- as above

    return Archive(site.home, site.config, site.store, now, as_of)


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

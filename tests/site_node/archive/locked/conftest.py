"""One hardened lock server for all tests of the archive, and a site that uses it."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass, field
from datetime import UTC, date, datetime, timedelta
from typing import TYPE_CHECKING

import pytest

from consent import Permit
from site_node.archive.locked import sealing, worm
from site_node.archive.locked.sealing import Member
from site_node.archive.locked.series import Series, Term
from site_node.archive.locked.worm import Copy, Locking
from site_node.config import LockedCopies
from tests.site_node.archive.locked import servers

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping
    from pathlib import Path

    import sqlalchemy as sa

    from consent import Deny
    from site_node.archive.locked.worm import LockedObject
    from tests.site_node.archive.locked.servers import Ours

LATER = datetime.now(UTC).replace(microsecond=0) + timedelta(days=2)
TERM = Term(LATER, LATER)


@pytest.fixture(scope="session")
def lock_server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Ours]:
    """Yield a running lock server; tests take buckets of their own."""
    started = servers.ours(tmp_path_factory.mktemp("locks") / "server")
    yield started
    started.process.kill()


def own_name(begin: str, request: pytest.FixtureRequest) -> str:
    """Return the name of a bucket of one test's own."""
    return f"{begin}-{hashlib.sha256(request.node.nodeid.encode()).hexdigest()[:12]}"


@dataclass(slots=True)
class Site:
    """A site with a folder of files, and copies at one or more buckets."""

    store: sa.Engine
    root: Path
    images: Path
    copies: list[Copy]
    said: list[str] = field(default_factory=list)

    def locking(self, *copies: Copy) -> Locking:
        """Return the site's side, as a process that just started has it."""
        seal = sealing.open_seal(self.root)
        chosen = list(copies) or self.copies
        return Locking(self.store, self.root, seal, chosen, lambda: datetime.now(UTC), self.said.append, {})

    def series(self, files: Mapping[str, bytes], uid: str = "1.2.3") -> Series:
        """Write files, and return them as a series."""
        self.images.mkdir(exist_ok=True)
        members = []
        for name, content in files.items():
            (self.images / name).write_bytes(content)
            members.append(Member(name, len(content), hashlib.sha256(content).hexdigest()))
        return Series(uid, "patient", "CT", date(2020, 1, 1), tuple(members))

    def lock(self, series: Series, *copies: Copy, term: Term = TERM) -> LockedObject:
        """Lock a series at every copy."""
        return self.locking(*copies).lock(series, self.images, "P1", term)

    def standing(self, locked: LockedObject, at: datetime | None = None, domains: int = 2) -> Permit | Deny:
        """Return whether an object is protected, all endpoints being compliant."""
        with self.store.connect() as db:
            known = worm.records(db, locked.name)
        configured = LockedCopies(copies=tuple(copy.settings for copy in self.copies), domains=domains)
        compliant = {copy.name: Permit() for copy in self.copies}
        return worm.standing(locked, known, compliant, configured, at or datetime.now(UTC))


@pytest.fixture
def site(lock_server: Ours, store: sa.Engine, root: Path, tmp_path: Path, request: pytest.FixtureRequest) -> Site:
    """Return a site with two copies, in buckets of this test's own."""
    sealing.make_keys(root)
    copies = []
    for name, domain in (("basement", "hospital"), ("partner", "partner")):
        bucket = own_name(name, request)
        copies.append(Copy(lock_server.copy(name, bucket, domain), lock_server.bucket(bucket)))
    return Site(store, root, tmp_path / "images", copies)

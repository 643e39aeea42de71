"""Snapshots in a locked copy: locked from birth, prolonged by the job, and back after every attack on the bucket."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import time
from collections import Counter
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from site_node.archive.locked import probe_log, rolling, sealing
from site_node.archive.locked.locks import COMPLIANCE
from site_node.archive.locked.probe import CHECKS, CheckResult, ProbeResult
from site_node.archive.restoring import Wanted
from site_node.archive.snapshot import Archive
from site_node.errors import ArchiveError, ConfigurationError, NotCompliant
from site_node.store import open_store
from tests.site_node.archive.locked.conftest import own_name

if TYPE_CHECKING:
    from collections.abc import Iterator

    import sqlalchemy as sa

    from site_node.archive.locked.s3 import Bucket
    from site_node.config import SiteHome
    from tests.site_node.archive.conftest import Place
    from tests.site_node.archive.locked.servers import Ours

pytestmark = pytest.mark.skipif(shutil.which("restic") is None, reason="needs restic")
SECOND_S = 1.1  # the endpoint tells moments in whole seconds


@dataclass(frozen=True)
class Locked:
    """A site whose snapshots go to a locked copy that was not probed yet."""

    home: SiteHome
    store: sa.Engine
    originals: Path
    bucket: Bucket

    def archive(self, as_of: datetime | None = None) -> Archive:
        """Return its archive, as a process that just started has it."""
        return Archive(self.home, self.home.load_config(), self.store, lambda: datetime.now(UTC), as_of)

    def run(self, *words: str | Path) -> subprocess.CompletedProcess[str]:
        """Run a command of the site."""
        program = Path(sys.executable).with_name("filmroom-site")
        environment = os.environ | {"COLUMNS": "200", "NO_COLOR": "1"}
        command = [program, "--home", self.home.root, *words]
        return subprocess.run(command, check=False, capture_output=True, text=True, env=environment)

    def pass_probe(self) -> None:
        """Put a passed probe on record; what the probe itself finds here is shown elsewhere."""
        sealing.make_keys(self.home.root)
        (copy,) = self.home.load_config().locked.copies
        at = datetime.now(UTC).replace(microsecond=0)
        checks = tuple(CheckResult(check=name, found="") for name in CHECKS)
        expires = at + timedelta(days=1)
        made = ProbeResult(endpoint=copy.endpoint, bucket=copy.bucket, at=at, expires_at=expires, checks=checks)
        probe_log.keep(self.store, made, sealing.read_signing_key(self.home.root))


@pytest.fixture
def locked(place: Place, lock_server: Ours, request: pytest.FixtureRequest) -> Iterator[Locked]:
    """Yield a site whose [archive] names a locked copy, in a bucket of this test's own."""
    name = own_name("snaps", request)
    copy = lock_server.copy("vault", name)
    doors = ", ".join(f'"{door}"' for door in copy.back_doors)
    (place.home.root / "site.toml").write_text(f"""
name = "north"
[archive]
repository = "locked:vault"
originals = "{place.originals}"
[[locked.copies]]
name = "vault"
endpoint = "{copy.endpoint}"
bucket = "{name}"
credentials = "{copy.credentials}"
authority_file = "{copy.authority_file}"
back_doors = [{doors}]
domain = "hospital"
snapshots = true
rolling_days = 2
""")
    store = open_store(place.home.database)
    yield Locked(place.home, store, place.originals, lock_server.bucket(name, make=False))
    store.dispose()


def until(bucket: Bucket) -> dict[str, datetime | None]:
    found = [version for version in bucket.versions(rolling.PREFIX) if not version.is_marker]
    locks = {version.name: bucket.lock(version.name, version.version_id) for version in found}
    assert {lock.mode for lock in locks.values()} == {COMPLIANCE}
    return {name: lock.until for name, lock in locks.items()}


def below(folder: Path) -> dict[str, bytes]:
    return {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def attack(bucket: Bucket) -> Counter[tuple[str, str]]:
    """Delete, shorten, write over and hide all there is, with every credential; return what was answered."""
    answers: Counter[tuple[str, str]] = Counter()
    for found in list(bucket.versions(rolling.PREFIX)):
        place = {"Key": found.name, "VersionId": found.version_id}
        if not found.is_marker:
            bypass = {"BypassGovernanceRetention": True}
            answers["delete", bucket.ask("delete_object", **place, **bypass).code] += 1
            answers["shorten", bucket.ask("put_object_retention", **place, Retention={}, **bypass).code] += 1
    for name in {found.name for found in bucket.versions(rolling.PREFIX)}:
        bucket.ask("put_object", Key=name, Body=os.urandom(1000))
        bucket.ask("delete_object", Key=name)
    return answers


def test_nothing_is_made_or_called_locked_at_an_endpoint_that_was_not_probed(locked: Locked) -> None:
    with pytest.raises(NotCompliant, match="never probed"):
        locked.archive().create()

    assert not locked.bucket.is_there()  # restic would have made it, without Object Lock


def test_a_snapshot_is_locked_from_birth_and_back_after_an_attack_with_every_credential(
    locked: Locked, tmp_path: Path
) -> None:
    locked.bucket.make()
    locked.bucket.set_default_days(2)
    locked.pass_probe()
    wanted = below(locked.originals)
    locked.archive().create()
    locked.archive().take()
    born = datetime.now(UTC) + timedelta(days=2)
    assert all(date and abs(date - born) < timedelta(minutes=5) for date in until(locked.bucket).values())
    time.sleep(SECOND_S)
    before = datetime.now(UTC)
    time.sleep(SECOND_S)
    (locked.originals / "later").write_bytes(b"came after that moment")
    locked.archive().take()

    answers = attack(locked.bucket)

    assert all(code for _, code in answers)  # each one refused
    with pytest.raises(ArchiveError):
        locked.archive().restore(tmp_path / "now", Wanted())
    restored = locked.archive(before).restore(tmp_path / "back", Wanted())
    assert (restored.files, restored.missing) == (len(wanted), 0)
    assert below(tmp_path / "back" / "originals") == wanted
    done = locked.archive().lock()
    assert done is not None
    assert done.lapsing == 0
    assert {fault.split(",")[0] for _, fault in done.faults} == {"written over", "hidden behind a delete marker"}
    with pytest.raises(ArchiveError):
        locked.archive(before).create()  # a view is only read


def test_a_folder_has_no_earlier_moment(place: Place) -> None:
    with pytest.raises(ConfigurationError, match="only a locked copy"):
        Archive(place.home, place.home.load_config(), place.store, lambda: datetime.now(UTC), datetime.now(UTC))


@pytest.mark.slow
@pytest.mark.timeout(900)
def test_by_command_a_snapshot_on_alarm_is_locked_and_attacks_are_undone(locked: Locked, tmp_path: Path) -> None:
    wanted = below(locked.originals)
    assert locked.run("archive", "init").returncode == 3
    assert locked.run("locked", "probe").returncode == 4
    assert locked.run("locked", "probe", "--make-buckets").returncode == 0
    assert locked.run("archive", "init").returncode == 0
    taken = locked.run("archive", "snapshot")
    assert (taken.returncode, "locked until" in taken.stdout) == (0, True), taken.stderr
    time.sleep(SECOND_S)
    before = f"{datetime.now(UTC):%Y-%m-%dT%H:%M:%S}"
    time.sleep(SECOND_S)

    for path in (locked.originals / "study-0").iterdir():
        path.write_bytes(os.urandom(path.stat().st_size))
    alarmed = locked.run("archive", "snapshot")
    assert (alarmed.returncode, "locked until" in alarmed.stdout) == (7, True), alarmed.stderr
    assert all(date and date > datetime.now(UTC) + timedelta(days=1) for date in until(locked.bucket).values())
    assert locked.run("locked", "extend").returncode == 0

    repository = locked.archive().repository
    for snapshot in repository.snapshots():
        repository._run("forget", "--prune", snapshot.id)  # noqa: SLF001 -- what an attacker runs with the password
    assert locked.run("archive", "restore", tmp_path / "now", "--everything").returncode == 1
    for number in range(2):
        target = tmp_path / str(number)
        back = locked.run("archive", "restore", target, "--everything", "--as-of", before)
        assert back.returncode == 0, back.stderr
        assert below(target / "originals") == wanted
        attack(locked.bucket)  # first what restic forgot and pruned, then everything
    assert locked.run("locked", "extend").returncode == 1

"""Locked copies by command: cut off in the middle, attacked with every credential, one of two disks gone."""

from __future__ import annotations

import json
import os
import sqlite3
import subprocess
import sys
import time
from collections import Counter
from contextlib import closing
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from site_node.archive.locked.locks import COMPLIANCE
from tests.site_node.archive.conftest import slice_bytes
from tests.site_node.archive.locked.conftest import own_name

if TYPE_CHECKING:
    from site_node.archive.locked.s3 import Bucket
    from site_node.config import SiteHome
    from tests.site_node.archive.conftest import Place
    from tests.site_node.archive.locked.servers import Ours

pytestmark = [pytest.mark.slow, pytest.mark.timeout(900)]
PROGRAM = Path(sys.executable).with_name("filmroom-site")
SERIES, FILES = 12, 3
COPIES = ("basement", "partner")
WAIT_S = 300


@dataclass(frozen=True)
class Site:
    """A site with two copies in two domains, and a folder of series."""

    home: SiteHome
    images: Path
    buckets: dict[str, Bucket]

    def start(self, *words: str | Path) -> subprocess.Popen[str]:
        """Start a command of the site."""
        environment = os.environ | {"COLUMNS": "200", "NO_COLOR": "1"}
        command = [PROGRAM, "--home", self.home.root, "locked", *words]
        return subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env=environment)

    def run(self, *words: str | Path) -> tuple[int, str, str]:
        """Run a command of the site, and return its exit code and what it said."""
        with self.start(*words) as process:
            said, complained = process.communicate()
        return process.returncode, said, complained

    def configure(self, lock_server: Ours) -> None:
        """Write site.toml."""
        tables = []
        for name, bucket in self.buckets.items():
            copy = lock_server.copy(name, bucket.name, name)
            doors = ", ".join(f'"{door}"' for door in copy.back_doors)
            tables.append(f"""
[[locked.copies]]
name = "{name}"
endpoint = "{copy.endpoint}"
bucket = "{bucket.name}"
credentials = "{copy.credentials}"
authority_file = "{copy.authority_file}"
back_doors = [{doors}]
domain = "{copy.domain}"
""")
        (self.home.root / "site.toml").write_text('name = "north"\n' + "".join(tables))

    def noted(self) -> int:
        """Return how many copies of objects are on record."""
        with closing(sqlite3.connect(self.home.database)) as db:
            return int(db.execute("SELECT count(*) FROM locked_copy").fetchone()[0])

    def listed(self) -> list[dict[str, Any]]:
        """Return the objects as the command lists them."""
        rows: list[dict[str, Any]] = json.loads(self.run("list", "--json")[1])
        return rows


@pytest.fixture
def site(place: Place, lock_server: Ours, tmp_path: Path, request: pytest.FixtureRequest) -> Site:
    """Return a site whose copies passed their probe."""
    images = tmp_path / "images"
    for series in range(SERIES):
        (images / str(series)).mkdir(parents=True)
        for number in range(FILES):
            uid = f"1.2.826.0.1.3680043.98.{series}"
            content = slice_bytes(series % 2, series * FILES + number, SeriesInstanceUID=uid)
            (images / str(series) / f"{number}.dcm").write_bytes(content)
    buckets = {name: lock_server.bucket(own_name(name, request), make=False) for name in COPIES}
    made = Site(place.home, images, buckets)
    made.configure(lock_server)
    assert made.run("probe", "--make-buckets")[0] == 0
    return made


def below(folder: Path) -> dict[str, bytes]:
    return {path.relative_to(folder).as_posix(): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def attack(bucket: Bucket) -> None:
    """Do to every version what the site's credentials allow."""
    for found in list(bucket.versions()):
        place = {"Key": found.name, "VersionId": found.version_id}
        soon = {"Mode": COMPLIANCE, "RetainUntilDate": datetime.now(UTC) + timedelta(seconds=5)}
        for retention in (soon, {}):
            bucket.ask("put_object_retention", **place, Retention=retention, BypassGovernanceRetention=True)
        bucket.ask("delete_object", **place, BypassGovernanceRetention=True)
        bucket.ask("put_object", Key=found.name, Body=os.urandom(1000))
        bucket.ask("delete_object", Key=found.name)


def test_what_was_called_protected_before_a_put_was_killed_is_there_and_the_next_put_makes_nothing_twice(
    site: Site, tmp_path: Path
) -> None:
    process = site.start("put", site.images)
    end = time.monotonic() + WAIT_S
    while site.noted() < SERIES:  # of twice as many
        assert process.poll() is None
        assert time.monotonic() < end
        time.sleep(0.01)
    process.kill()
    process.communicate()

    protected = [row["name"] for row in site.listed() if row["state"] == "protected"]
    assert 0 < len(protected) < SERIES
    for name in COPIES:
        target = tmp_path / f"killed-{name}"
        code, said, _ = site.run("restore", target, *protected, "--copy", name, "--json")
        assert (code, json.loads(said)["objects"]) == (0, len(protected))
        assert below(target).items() <= below(site.images).items()

    assert site.run("put", site.images)[:2] == (0, f"{SERIES} objects, {SERIES} protected\n")
    for bucket in site.buckets.values():
        assert set(Counter(found.name for found in bucket.versions()).values()) == {1}
    assert not any((site.home.root / "locked").iterdir())


def test_after_an_attack_on_both_and_with_one_disk_gone_everything_comes_back(
    site: Site, lock_server: Ours, tmp_path: Path, request: pytest.FixtureRequest
) -> None:
    assert site.run("put", site.images)[0] == 0
    for bucket in site.buckets.values():
        attack(bucket)
    assert site.run("verify")[0] == 0  # what is locked is read by its version

    code, said, complained = site.run("restore", tmp_path / "both", "--json")
    assert (code, json.loads(said)["objects"]) == (0, SERIES), complained
    assert below(tmp_path / "both") == below(site.images)

    # Whoever is root of a copy's machine empties its disk, and it says that it never had anything.
    empty = lock_server.bucket(own_name("empty", request))
    Site(site.home, site.images, {"basement": empty, "partner": site.buckets["partner"]}).configure(lock_server)
    for number, database in enumerate(("kept", "lost")):
        if database == "lost":
            with closing(sqlite3.connect(site.home.database)) as db, db:
                db.execute("DELETE FROM locked_object")
        target = tmp_path / str(number)
        code, said, complained = site.run("restore", target, "--json")
        assert (code, json.loads(said)["objects"]) == (0, SERIES), complained
        assert below(target) == below(site.images)

    code, said, complained = site.run("restore", tmp_path / "never", "--as-of", "2020-01-01T00:00:00")
    assert (code, "nothing was restored" in complained) == (1, True)

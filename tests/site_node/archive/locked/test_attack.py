"""An attack with every credential of the site: delete, overwrite, encrypt, shorten, hide; and all comes back."""

from __future__ import annotations

import os
import time
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING

from site_node.archive.locked import recovery, sealing
from site_node.archive.locked.locks import COMPLIANCE, GOVERNANCE
from tests.site_node.archive.locked.conftest import LATER

if TYPE_CHECKING:
    from pathlib import Path

    from site_node.archive.locked.s3 import Bucket
    from tests.site_node.archive.locked.conftest import Site

SERIES = {f"1.2.{number}": {f"s{number}-{file}": os.urandom(5000) for file in range(3)} for number in range(4)}
CONTENTS = {name: content for files in SERIES.values() for name, content in files.items()}


def attack(bucket: Bucket, site: Site) -> None:
    """Do what the site's credentials and keys allow, to every version there is."""
    seal = sealing.open_seal(site.root)
    for found in list(bucket.versions()):
        place = {"Key": found.name, "VersionId": found.version_id}
        for retention in (
            {"Mode": GOVERNANCE, "RetainUntilDate": LATER},
            {"Mode": COMPLIANCE, "RetainUntilDate": datetime.now(UTC) + timedelta(seconds=5)},
            {},
        ):
            bucket.ask("put_object_retention", **place, Retention=retention, BypassGovernanceRetention=True)
        bucket.ask("delete_object", **place, BypassGovernanceRetention=True)
        bucket.ask("delete_objects", Delete={"Objects": [place]}, BypassGovernanceRetention=True)
        bucket.ask("put_object", Key=found.name, Body=os.urandom(found.size))
        bucket.ask("put_object", Key=found.name, Body=sealed_lie(seal, site))
        bucket.ask("delete_object", Key=found.name)
    bucket.ask("put_bucket_versioning", VersioningConfiguration={"Status": "Suspended"})
    bucket.ask("put_object_lock_configuration", ObjectLockConfiguration={})
    bucket.ask("delete_bucket")


def sealed_lie(seal: sealing.Seal, site: Site) -> bytes:
    """Return other files, sealed with the site's own stolen keys."""
    lie = site.series({"lie": b"encrypted by somebody else"}, "9.9")
    target = site.root / "lie"
    with target.open("wb") as file:
        seal.seal(site.images, lie.members, file)
    return target.read_bytes()


def restored(folder: Path) -> dict[str, bytes]:
    return {path.relative_to(folder).as_posix(): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def test_after_an_attack_with_every_credential_everything_comes_back_identical(site: Site, tmp_path: Path) -> None:
    for uid, files in SERIES.items():
        site.lock(site.series(files, uid))
    time.sleep(1.1)
    before = datetime.now(UTC)
    time.sleep(1.1)
    bucket = site.copies[0].bucket

    attack(bucket, site)
    site.store.dispose()

    # Nothing can be read by its name any more.
    assert bucket.ask("list_objects_v2").fields.get("KeyCount", 0) == 0
    seal = sealing.open_seal(site.root)
    as_of = recovery.restore(bucket, seal, None, tmp_path / "as-of", before)
    newest = recovery.restore(bucket, seal, None, tmp_path / "newest", None)
    assert (as_of.objects, as_of.files, as_of.lost) == (4, 12, ())
    assert newest == as_of
    assert restored(tmp_path / "as-of") == restored(tmp_path / "newest") == CONTENTS


def test_before_anything_was_locked_there_was_nothing(site: Site, tmp_path: Path) -> None:
    site.lock(site.series(SERIES["1.2.0"]))
    long_ago = datetime.now(UTC) - timedelta(days=1)

    done = recovery.restore(site.copies[0].bucket, sealing.open_seal(site.root), None, tmp_path / "back", long_ago)

    assert done == recovery.Restored(0, 0, 0, ())


def test_what_is_in_the_target_already_is_never_replaced(site: Site, tmp_path: Path) -> None:
    site.lock(site.series(SERIES["1.2.0"]))
    target = tmp_path / "back"
    target.mkdir()
    (target / "s0-1").write_bytes(b"mine")

    done = recovery.restore(site.copies[0].bucket, sealing.open_seal(site.root), None, target, None)

    assert done.objects == 0
    assert [why for _, why in done.lost] == ["a file of its name is there already, and differs"]
    assert restored(target) == {"s0-1": b"mine"}


def test_a_holder_of_copies_can_neither_read_nor_replace(site: Site, tmp_path: Path) -> None:
    locked = site.lock(site.series(SERIES["1.2.0"]))
    sealing.make_keys(tmp_path / "holder")
    holder = sealing.open_seal(tmp_path / "holder")
    bucket = site.copies[1].bucket
    bucket.ask("put_object", Key=locked.key, Body=sealed_lie(holder, site))

    assert recovery.restore(bucket, holder, None, tmp_path / "theirs", None).objects == 0
    assert recovery.restore(bucket, sealing.open_seal(site.root), None, tmp_path / "ours", None).objects == 1
    assert restored(tmp_path / "ours") == SERIES["1.2.0"]

"""The rolling lock pushes every version forward and moves no date back."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING

from site_node.archive.locked import rolling
from site_node.archive.locked.locks import COMPLIANCE

if TYPE_CHECKING:
    from site_node.archive.locked.s3 import Bucket
    from tests.site_node.archive.locked.servers import Ours

NOW = datetime.now(UTC).replace(microsecond=0)
SOON, LATE, LATEST = (NOW + timedelta(days=days) for days in (1, 30, 60))


def put(bucket: Bucket, name: str, until: datetime | None) -> str:
    lock = {"ObjectLockMode": COMPLIANCE, "ObjectLockRetainUntilDate": until} if until else {}
    return str(bucket.ask("put_object", Key=name, Body=name.encode(), **lock).fields["VersionId"])


def test_every_version_is_extended_the_overwritten_too_and_none_is_shortened(lock_server: Ours) -> None:
    bucket = lock_server.bucket("rolling")
    pack = put(bucket, "repo/data/1", SOON)
    garbage = put(bucket, "repo/data/1", None)
    long = put(bucket, "repo/data/2", LATEST)
    outside = put(bucket, "other/1", SOON)
    assert not bucket.ask("delete_object", Key="repo/data/1").code  # hidden, and extended all the same
    heard: list[tuple[int, int]] = []

    done = rolling.extend(bucket, "repo/", LATE, lambda *progress: heard.append(progress))

    def until(name: str, version: str) -> datetime | None:
        return bucket.lock(name, version).until

    assert (done.versions, done.extended, done.faults) == (3, 2, ())
    assert heard == [(1, 3), (2, 3), (3, 3)]
    assert until("repo/data/1", pack) == until("repo/data/1", garbage) == LATE
    assert until("repo/data/2", long) == LATEST
    assert until("other/1", outside) == SOON
    again = rolling.extend(bucket, "repo/", LATE + timedelta(hours=1))
    assert (again.versions, again.extended) == (3, 0)

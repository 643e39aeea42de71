"""The rolling lock pushes forward what a repository may need, moves no date back, and tells what restic never does."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING

import pytest

from site_node.archive.locked import rolling
from site_node.archive.locked.locks import COMPLIANCE, Version

if TYPE_CHECKING:
    from collections.abc import Sequence

    from site_node.archive.locked.s3 import Bucket
    from tests.site_node.archive.locked.servers import Ours

NOW = datetime.now(UTC).replace(microsecond=0)
SOON, LATE, LATEST = (NOW + timedelta(days=days) for days in (1, 30, 60))
TERM = timedelta(days=30)
LONG_AGO = NOW - timedelta(days=31)


def put(bucket: Bucket, name: str, until: datetime | None, content: bytes = b"pack") -> str:
    lock = {"ObjectLockMode": COMPLIANCE, "ObjectLockRetainUntilDate": until} if until else {}
    return str(bucket.ask("put_object", Key=name, Body=content, **lock).fields["VersionId"])


def test_every_version_is_extended_the_overwritten_too_and_none_is_shortened(lock_server: Ours) -> None:
    bucket = lock_server.bucket("rolling")
    pack = put(bucket, "snapshots/data/1", SOON)
    garbage = put(bucket, "snapshots/data/1", None, b"encrypted by somebody else")
    long = put(bucket, "snapshots/data/2", LATEST)
    own = put(bucket, "snapshots/locks/1", SOON)
    outside = put(bucket, "other/1", SOON)
    assert not bucket.ask("delete_object", Key="snapshots/data/1").code  # hidden, and extended all the same
    heard: list[tuple[int, int]] = []

    done = rolling.extend(bucket, NOW, TERM, lambda *progress: heard.append(progress))

    def until(name: str, version: str) -> datetime | None:
        return bucket.lock(name, version).until

    assert (done.versions, done.extended, done.lapsing, done.until) == (3, 2, 0, LATE)
    assert [name for name, _ in done.faults] == ["snapshots/data/1", "rolling"]
    assert heard == [(1, 3), (2, 3), (3, 3)]
    assert until("snapshots/data/1", pack) == until("snapshots/data/1", garbage) == LATE
    assert until("snapshots/data/2", long) == LATEST
    assert until("snapshots/locks/1", own) == until("other/1", outside) == SOON
    bucket.set_default_days(30)
    again = rolling.extend(bucket, NOW + timedelta(hours=1), TERM)
    assert (again.versions, again.extended, again.until) == (3, 0, LATE)
    assert [name for name, _ in again.faults] == ["snapshots/data/1"]


def version(
    name: str, at: datetime = LONG_AGO, *, marker: bool = False, latest: bool = True, etag: str = "e"
) -> Version:
    return Version(f"snapshots/{name}", f"{name}{at}", at, 1, is_marker=marker, is_latest=latest, etag=etag)


CONFIG = version("config")
PACK, PRUNED_PACK = version("data/1"), version("data/1", latest=False)
MARKER = version("data/1", marker=True)


@pytest.mark.parametrize(
    ("found", "due", "lapsing", "faults"),
    [
        pytest.param([CONFIG, PACK], 2, 0, [], id="what lives"),
        pytest.param([CONFIG, PRUNED_PACK, MARKER], 1, 1, [], id="pruned for more than a term"),
        pytest.param([CONFIG, PRUNED_PACK, version("data/1", NOW, marker=True)], 2, 0, [], id="pruned just now"),
        pytest.param(
            [CONFIG, PRUNED_PACK, version("data/1", marker=True, latest=False), version("data/1", NOW)], 3, 0, [],
            id="pruned and put again",
        ),
        pytest.param(
            [CONFIG, version("data/1", latest=False), version("data/1", NOW, etag="other")], 3, 0, ["data/1"],
            id="written over",
        ),
        pytest.param(
            [CONFIG, PRUNED_PACK, version("data/1", etag="other", latest=False), version("data/1", marker=True)],
            3, 0, ["data/1"], id="written over, then hidden",
        ),
        pytest.param(
            [version("config", latest=False), version("config", marker=True), PRUNED_PACK, MARKER],
            2, 0, ["config"], id="all hidden: it was not restic, and nothing lapses",
        ),
        pytest.param([CONFIG, version("locks/1"), version("locks/2", marker=True)], 1, 0, [], id="restic's own locks"),
        pytest.param([], 0, 0, [], id="nothing yet"),
    ],
)  # fmt: skip
def test_only_what_restic_pruned_a_term_ago_is_left_to_lapse(
    found: Sequence[Version], due: int, lapsing: int, faults: Sequence[str]
) -> None:
    kept, lapsed, told = rolling.judge(found, NOW - TERM)

    assert (len(kept), lapsed) == (due, lapsing)
    assert [name for name, _ in told] == [f"snapshots/{name}" for name in faults]

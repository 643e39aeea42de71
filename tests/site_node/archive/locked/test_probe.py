"""The conformance probe passes where locks hold and names what does not; nothing else is called compliant."""

from __future__ import annotations

import time
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING

import pytest

from consent import Deny, Permit, generate_signing_key
from site_node.archive.locked import probe, probe_log
from site_node.archive.locked.probe import CHECKS, CheckResult, ProbeResult, Target
from site_node.archive.locked.s3 import Bucket
from site_node.config import LockedCopy
from tests.site_node.archive.locked import servers

if TYPE_CHECKING:
    from pathlib import Path

    import sqlalchemy as sa

    from site_node.archive.locked.credentials import Credentials
    from tests.site_node.archive.locked.servers import Ours

NOON = datetime(2026, 6, 1, 12, tzinfo=UTC)
WEEK = timedelta(days=7)
ENDPOINT, BUCKET = "https://locks.example.org", "images"
COPY = LockedCopy("cloud", ENDPOINT, BUCKET, "file:cloud.ini", "cloud")


def result(**changed: object) -> ProbeResult:
    """Return a result in which every check passed."""
    checks = tuple(CheckResult(check=name, found="") for name in CHECKS)
    fields = {"endpoint": ENDPOINT, "bucket": BUCKET, "at": NOON, "expires_at": NOON + WEEK, "checks": checks}
    return ProbeResult.model_validate(fields | changed)


def probed(target: Target) -> ProbeResult:
    at = datetime.now(UTC)
    return probe.run(target, WEEK, at, lambda: datetime.now(UTC), time.sleep)


def target_at(endpoint: str, known: Credentials, *back_doors: str) -> Target:
    real, scratch = (Bucket(endpoint, "us-east-1", name, known, None) for name in ("images", "images-probe"))
    for bucket in (real, scratch):
        bucket.make()
    return Target(real, scratch, Bucket(endpoint, "us-east-1", "images-probe", None, None), back_doors)


def test_our_own_server_withstands_every_check_its_back_doors_included(lock_server: Ours) -> None:
    target = Target(
        lock_server.bucket("probed"),
        lock_server.bucket("probed-probe"),
        lock_server.bucket("probed-probe", anonymous=True),
        lock_server.server.back_doors,
    )

    made = probed(target)

    assert made.failed == ()
    assert [check.check for check in made.checks] == list(CHECKS)
    assert len(CHECKS) >= 31
    assert probe.is_compliant(made, lock_server.server.endpoint, "probed", made.at) == Permit()


@pytest.mark.slow
def test_a_double_that_only_says_yes_is_not_compliant_and_the_holes_are_named(tmp_path: Path) -> None:
    process, known = servers.moto(tmp_path)
    try:
        made = probed(target_at(f"http://127.0.0.1:{process.port}", known))
    finally:
        process.stop()

    failed = {check.check for check in made.failed}
    assert {"shorten", "downgrade", "empty-retention", "past-date", "suspend-versioning", "multipart-locked"} <= failed
    assert not failed & {"delete", "delete-bypass", "multi-delete"}  # a naive test would have been green
    refusal = probe.is_compliant(made, made.endpoint, made.bucket, made.at)
    assert isinstance(refusal, Deny)
    assert all(name in refusal.reason for name in failed)


@pytest.mark.slow
@pytest.mark.parametrize("above", [3, 1], ids=["filer", "master"])
def test_a_server_whose_back_doors_are_open_fails_by_them_alone(tmp_path: Path, above: int) -> None:
    process, known = servers.soft(tmp_path)
    time.sleep(5)
    try:
        made = probed(target_at(f"http://127.0.0.1:{process.port}", known, f"http://127.0.0.1:{process.port + above}"))
    finally:
        process.stop()

    assert [check.check for check in made.failed] == ["back-doors"]


@pytest.mark.parametrize(
    ("given", "at", "reason"),
    [
        (None, NOON, "never probed"),
        (result(), NOON - timedelta(seconds=1), "too old"),
        (result(), NOON + WEEK, "too old"),
        (result(bucket="other"), NOON, "another endpoint or bucket"),
        (result(checks=(CheckResult(check="delete", found=""),)), NOON, "never probed for"),
        (result(checks=(*result().checks, CheckResult(check="delete", found="accepted"))), NOON, "failed: delete"),
    ],
)
def test_what_was_not_probed_whole_in_time_and_passed_is_not_compliant(
    given: ProbeResult | None, at: datetime, reason: str
) -> None:
    verdict = probe.is_compliant(given, ENDPOINT, BUCKET, at)

    assert isinstance(verdict, Deny)
    assert reason in verdict.reason


def test_the_latest_result_counts_and_only_if_this_site_signed_it(store: sa.Engine) -> None:
    key, other = generate_signing_key(), generate_signing_key()

    def verdict() -> Permit | Deny:
        with store.connect() as db:
            return probe_log.verdict(db, COPY, key.public_key(), NOON)

    assert verdict() == Deny("never probed")
    probe_log.keep(store, result(), key)
    assert verdict() == Permit()
    probe_log.keep(store, result(checks=(CheckResult(check="delete", found="accepted"),)), key)
    assert isinstance(verdict(), Deny)
    probe_log.keep(store, result(), other)
    assert verdict() == Deny("the result of the probe is not this site's: bad-signature")


def test_every_check_says_why_it_is_made() -> None:
    assert all(check.why for check in CHECKS.values())

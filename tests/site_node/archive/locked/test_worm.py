"""A series is protected only when every required copy was read back with its lock; nothing acknowledged is lost."""

from __future__ import annotations

import os
import subprocess
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING

import pytest

from consent import Deny, Permit
from site_node.archive.locked import worm
from site_node.archive.locked.locks import COMPLIANCE, Lock
from site_node.archive.locked.s3 import Bucket
from site_node.archive.locked.series import Term
from site_node.archive.locked.worm import Copy
from site_node.config import LockedCopies, LockedCopy
from site_node.errors import EndpointUnreachable, LockedCopyInvalid
from tests.site_node.archive.locked.conftest import LATER

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path
    from typing import BinaryIO

    from site_node.archive.locked.worm import LockedObject
    from tests.site_node.archive.locked.conftest import Site

FILES = {"a": b"pixels" * 1000, "b": b"more pixels"}


class CutOff(Bucket):
    """An endpoint whose answer to a put never arrives, though it did what was asked."""

    def put(self, name: str, content: BinaryIO, size: int, sha256: bytes, until: datetime, *, hold: bool) -> str:
        """Do it, and lose the answer."""
        super().put(name, content, size, sha256, until, hold=hold)
        raise EndpointUnreachable("the network was cut")


class Damaging(Bucket):
    """An endpoint that gives other bytes than it was given."""

    def read(self, name: str, version: str) -> Iterator[bytes]:
        """Yield each chunk with a bit flipped."""
        for chunk in super().read(name, version):
            yield bytes([chunk[0] ^ 1]) + chunk[1:]


class Forgetful(Bucket):
    """An endpoint that takes a lock and tells another."""

    def lock(self, name: str, version: str) -> Lock:
        """Tell a weaker lock."""
        told = super().lock(name, version)
        return Lock("GOVERNANCE", told.until, hold=told.hold)


def as_kind(kind: type[Bucket], copy: Copy) -> Copy:
    """Return a copy whose endpoint misbehaves as `kind` does."""
    bucket = kind.__new__(kind)
    bucket.__dict__.update(copy.bucket.__dict__)
    return Copy(copy.settings, bucket)


def unreachable(copy: Copy) -> Copy:
    """Return a copy at an address where nobody listens."""
    return Copy(copy.settings, Bucket("http://127.0.0.1:1", "us-east-1", copy.bucket.name, None, None))


def spooled(site: Site) -> list[str]:
    return sorted(path.name for path in (site.root / worm.SPOOL).iterdir())


def content_at(site: Site, locked: LockedObject, place: int) -> list[bytes | None]:
    bucket = site.copies[place].bucket
    return [bucket.content(found.name, found.version_id) for found in bucket.versions(locked.key)]


def test_a_series_is_locked_at_every_copy_and_protected(site: Site) -> None:
    locked = site.lock(site.series(FILES))

    assert site.standing(locked) == Permit()
    assert spooled(site) == []
    for copy in site.copies:
        (found,) = copy.bucket.versions(locked.key)
        assert copy.bucket.lock(locked.key, found.version_id) == Lock(COMPLIANCE, LATER, hold=False)
        assert b"pixels" not in (copy.bucket.content(locked.key, found.version_id) or b"pixels")
        assert copy.bucket.ask("delete_object", Key=locked.key, VersionId=found.version_id).code


def test_locking_again_makes_nothing_new_and_never_shortens(site: Site) -> None:
    series = site.series(FILES)
    first = site.lock(series)
    again = site.lock(series, term=Term(LATER - timedelta(days=1), LATER - timedelta(days=1)))

    assert again == first
    assert [len(content_at(site, first, place)) for place in (0, 1)] == [1, 1]


def test_a_later_legal_date_is_brought_to_every_copy(site: Site) -> None:
    series, later = site.series(FILES), LATER + timedelta(days=1)
    site.lock(series)
    locked = site.lock(series, term=Term(later, later))

    for copy in site.copies:
        (found,) = copy.bucket.versions(locked.key)
        assert copy.bucket.lock(locked.key, found.version_id).until == later


def test_a_copy_that_is_down_leaves_the_series_unprotected_and_gets_it_later(site: Site) -> None:
    basement, partner = site.copies
    locked = site.lock(site.series(FILES), basement, unreachable(partner))

    assert isinstance(site.standing(locked), Deny)
    assert spooled(site) == [locked.name]
    assert len(site.said) == 1
    assert "partner" in site.said[0]

    (site.images / "a").unlink()  # what waits is sealed already
    site.locking().finish(lambda _done, _total: None)

    assert site.standing(locked) == Permit()
    assert spooled(site) == []


def test_a_new_copy_is_filled_from_another_when_the_files_are_gone(site: Site) -> None:
    basement, _ = site.copies
    locked = site.lock(site.series(FILES), basement)
    for name in FILES:
        (site.images / name).unlink()

    site.locking().finish(lambda _done, _total: None)

    assert site.standing(locked) == Permit()
    assert content_at(site, locked, 0) == content_at(site, locked, 1)


def test_an_object_whose_answer_was_lost_is_found_again_and_not_doubled(site: Site) -> None:
    basement, partner = site.copies
    locked = site.lock(site.series(FILES), as_kind(CutOff, basement), partner)
    refusal = site.standing(locked)

    site.locking().finish(lambda _done, _total: None)

    assert isinstance(refusal, Deny)
    assert "basement: not there yet" in refusal.reason
    assert site.standing(locked) == Permit()
    assert len(content_at(site, locked, 0)) == 1


def test_objects_of_a_lost_database_are_taken_on_record_again(site: Site) -> None:
    series = site.series(FILES)
    locked = site.lock(series)
    with site.store.begin() as db:
        db.exec_driver_sql("DELETE FROM locked_copy")
        db.exec_driver_sql("DELETE FROM locked_object")

    again = site.lock(series)  # sealed anew, it is another ciphertext of the same files

    assert again.name == locked.name
    assert site.standing(again) == Permit()
    assert [len(content_at(site, again, place)) for place in (0, 1)] == [1, 1]


def test_a_name_that_somebody_else_took_is_never_counted(site: Site) -> None:
    series = site.series(FILES)
    name = worm.PREFIX + site.locking().seal.name(series.members)
    assert not site.copies[0].bucket.ask("put_object", Key=name, Body=b"something else").code

    locked = site.lock(series)

    refusal = site.standing(locked)
    assert isinstance(refusal, Deny)
    assert "basement: not there yet" in refusal.reason
    assert any("taken by something else" in line for line in site.said)


@pytest.mark.parametrize(("kind", "fault"), [(Damaging, "read back"), (Forgetful, "weaker")])
def test_an_endpoint_that_does_not_hold_what_it_took_is_never_counted(
    site: Site, kind: type[Bucket], fault: str
) -> None:
    basement, partner = site.copies
    locked = site.lock(site.series(FILES), as_kind(kind, basement), partner)

    assert isinstance(site.standing(locked), Deny)
    assert any(fault in line for line in site.said)
    assert spooled(site) == [locked.name]


def test_reading_back_finds_what_was_damaged_and_takes_the_protection_away(site: Site) -> None:
    basement, partner = site.copies
    locked = site.lock(site.series(FILES))

    assert site.locking().verify(locked)
    assert not site.locking(as_kind(Damaging, basement), partner).verify(locked)

    refusal = site.standing(locked)
    assert isinstance(refusal, Deny)
    assert "basement: its bytes" in refusal.reason
    assert site.locking().verify(locked)
    assert site.standing(locked) == Permit()


def test_a_copy_that_does_not_answer_keeps_its_record_and_grows_old(site: Site) -> None:
    basement, partner = site.copies
    late = LATER + timedelta(days=365)
    locked = site.lock(site.series(FILES), term=Term(late, late))

    site.locking(unreachable(basement), partner).verify(locked)

    assert site.standing(locked) == Permit()
    old = site.standing(locked, at=datetime.now(UTC) + timedelta(days=91))
    assert isinstance(old, Deny)
    assert "not read back for too long" in old.reason


@pytest.mark.parametrize(("hold", "reason"), [(False, "vault: its lock has ended"), (True, "")])
def test_what_is_past_its_date_is_protected_only_while_it_is_held(hold: bool, reason: str) -> None:  # noqa: FBT001 -- the one thing that differs
    copy = LockedCopy("vault", "https://locks.example.org", "images", "file:vault.ini", "hospital")
    locked = worm.LockedObject("name", "series", "P1", "CT", None, 1, 1, LATER, hold)
    record = worm.CopyRecord("vault", worm.place_of(copy), "v1", "00", 1, LATER, hold, LATER, "")
    settings = LockedCopies(copies=(copy,), domains=1)

    standing = worm.standing(locked, {"vault": record}, {"vault": Permit()}, settings, LATER)

    assert standing == (Deny(reason) if reason else Permit())


def test_two_copies_in_one_domain_do_not_protect(site: Site) -> None:
    locked = site.lock(site.series(FILES))

    assert site.standing(locked, domains=2) == Permit()
    assert site.standing(locked, domains=3) == Deny("in 2 of 3 administrative domains")


def test_a_copy_whose_probe_failed_does_not_protect(site: Site) -> None:
    locked = site.lock(site.series(FILES))
    with site.store.connect() as db:
        known = worm.records(db, locked.name)
    settings = LockedCopies(copies=tuple(copy.settings for copy in site.copies))
    compliant: dict[str, Permit | Deny] = {"basement": Permit(), "partner": Deny("the probe failed: shorten")}

    refusal = worm.standing(locked, known, compliant, settings, datetime.now(UTC))

    assert refusal == Deny("partner: not compliant (the probe failed: shorten)")
    assert isinstance(worm.standing(locked, known, {}, settings, datetime.now(UTC)), Deny)


def test_a_legal_hold_is_at_every_copy_and_refuses_until_it_is_lifted(site: Site) -> None:
    locked = site.lock(site.series(FILES))
    held = site.locking().hold(locked, "ann", "case", on=True)
    (found,) = site.copies[0].bucket.versions(locked.key)

    assert site.copies[0].bucket.lock(locked.key, found.version_id).hold
    assert site.standing(held) == Permit()

    site.locking().hold(held, "ann", "closed", on=False)
    assert not site.copies[0].bucket.lock(locked.key, found.version_id).hold


def test_a_hold_that_a_copy_missed_is_not_called_protected(site: Site) -> None:
    basement, partner = site.copies
    locked = site.lock(site.series(FILES))

    held = site.locking(basement, unreachable(partner)).hold(locked, "ann", "case", on=True)
    assert isinstance(site.standing(held), Deny)

    site.locking().finish(lambda _done, _total: None)
    assert site.standing(held) == Permit()


def test_what_was_damaged_while_it_waited_is_sealed_anew(site: Site) -> None:
    basement, partner = site.copies
    series = site.series(FILES)
    locked = site.lock(series, unreachable(basement), unreachable(partner))
    (site.root / worm.SPOOL / locked.name).write_bytes(b"damaged")

    site.lock(series)

    assert site.standing(locked) == Permit()


def test_a_file_that_changed_meanwhile_leaves_no_trace(site: Site) -> None:
    series = site.series(FILES)
    (site.images / "a").write_bytes(b"changed")

    with pytest.raises(LockedCopyInvalid, match="changed"):
        site.lock(series)

    with site.store.connect() as db:
        assert worm.objects(db) == []
    assert spooled(site) == []


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can make a small disk")
def test_a_full_disk_acknowledges_nothing(site: Site) -> None:
    series = site.series({"a": os.urandom(2**20)})
    spool: Path = site.root / worm.SPOOL
    spool.mkdir()
    mounted = subprocess.run(["mount", "-t", "tmpfs", "-o", "size=256k", "tmpfs", spool], check=False)  # noqa: S607 -- the system's own
    if mounted.returncode:
        pytest.skip("this system lets nobody mount a disk")
    try:
        with pytest.raises(OSError, match="No space left"):
            site.lock(series)
        assert list(spool.iterdir()) == []
    finally:
        subprocess.run(["umount", spool], check=True)  # noqa: S607 -- the system's own

    with site.store.connect() as db:
        assert worm.objects(db) == []
    assert site.standing(site.lock(series)) == Permit()

"""The conformance probe: whether an endpoint keeps what S3 Object Lock promises.

Every check tries what an attacker or a careless administrator would try, with the credentials of the site, on a bucket
beside the real one; then it looks whether the object is still there, byte for byte, with its lock. An endpoint is
compliant while a signed result of this table is at hand in which every check passed, and has not expired.
Does not prove what the endpoint's own administrators can do below S3.
"""

from __future__ import annotations

import hashlib
import secrets
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Annotated, Any, Final

from pydantic import AwareDatetime, Field

from consent import Deny, Permit
from consent.errors import StatementInvalid
from consent.statement import Claim, StatementForm, Text
from site_node.archive.locked.locks import COMPLIANCE, GOVERNANCE
from site_node.errors import EndpointRefused

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey, Ed25519PublicKey

    from site_node.archive.locked.s3 import Answer, Bucket

RESULT_TYPE: Final = "https://filmroom.org/lock-probe/v1"
MAX_RESULT_BYTES: Final = 65_536
PREFIX = "filmroom-probe/"
KEPT = timedelta(hours=1)  # how long objects of the probe stay locked
_SHORT = timedelta(seconds=3)
_MARGIN = timedelta(seconds=2)
_MAX_CLOCK_DIFFERENCE = timedelta(minutes=5)
_PART = 5 * 2**20  # the smallest part of a multipart upload that is not the last


class ProbeInvalid(StatementInvalid):
    """The result of a probe was refused."""


class CheckResult(Claim):
    """What came of one check; `found` is empty where it passed."""

    check: Text
    found: Annotated[str, Field(max_length=256)]


class ProbeResult(Claim):
    """What a site says of an endpoint: which checks it made when, and what came of each."""

    endpoint: Text
    bucket: Text
    at: AwareDatetime
    expires_at: AwareDatetime
    checks: Annotated[tuple[CheckResult, ...], Field(min_length=1, max_length=256)]

    @property
    def failed(self) -> tuple[CheckResult, ...]:
        """The checks that did not pass."""
        return tuple(check for check in self.checks if check.found)


_FORM: Final = StatementForm(
    RESULT_TYPE,
    ProbeResult,
    subject="bucket",
    subjects=lambda result: [hashlib.sha256(f"{result.endpoint}/{result.bucket}".encode()).hexdigest()],
    predicate=lambda result: result.model_dump(mode="json"),
    fields=lambda statement: dict(statement["predicate"]),
    refused=ProbeInvalid,
)


def sign_result(result: ProbeResult, key: Ed25519PrivateKey) -> bytes:
    """Return the signed envelope of `result`."""
    return _FORM.sign(result, key)


def open_result(envelope: bytes, key: Ed25519PublicKey) -> ProbeResult:
    """Return the result in `envelope`, if the holder of `key` signed it.

    Raises: ProbeInvalid, as `StatementForm.open` says.
    """
    return _FORM.open(envelope, key, MAX_RESULT_BYTES)


def is_compliant(result: ProbeResult | None, endpoint: str, bucket: str, at: datetime) -> Permit | Deny:
    """Return whether this bucket may be called compliant at a moment of the site's clock."""
    if result is None:
        return Deny("never probed")
    if (result.endpoint, result.bucket) != (endpoint, bucket):
        return Deny("the probe was of another endpoint or bucket")
    if result.failed:
        return Deny("the probe failed: " + ", ".join(check.check for check in result.failed))
    missing = CHECKS.keys() - {check.check for check in result.checks}
    if missing:
        return Deny("never probed for: " + ", ".join(sorted(missing)))
    if not result.at <= at < result.expires_at:
        return Deny(f"the probe of {result.at:%Y-%m-%d %H:%M} UTC is too old")
    return Permit()


@dataclass(frozen=True, slots=True)
class Target:
    """What is probed: the real bucket, one beside it for what could do harm, and both without a login."""

    real: Bucket
    scratch: Bucket
    anonymous: Bucket
    back_doors: tuple[str, ...] = ()


@dataclass(slots=True)
class Probing:
    """One probe under way. `now` reads the wall clock, `wait` lets so many seconds pass."""

    target: Target
    now: Callable[[], datetime]
    wait: Callable[[float], None]
    _number: int = 0
    _run: str = field(default_factory=lambda: secrets.token_hex(6))

    @property
    def scratch(self) -> Bucket:
        """The bucket beside the real one."""
        return self.target.scratch

    def name(self) -> str:
        """Return a name that no object has."""
        self._number += 1
        return f"{PREFIX}{self._run}-{self._number}"

    def locked(self, bucket: Bucket | None = None, kept: timedelta = KEPT, **parameters: Any) -> Locked:  # noqa: ANN401 -- S3's own
        """Put an object under COMPLIANCE.

        Raises: CheckFailed if the endpoint does not take it.
        """
        bucket = bucket or self.scratch
        name, content, until = self.name(), secrets.token_bytes(64), self.until(kept)
        answer = bucket.ask(
            "put_object",
            Key=name,
            Body=content,
            ObjectLockMode=COMPLIANCE,
            ObjectLockRetainUntilDate=until,
            **parameters,
        )
        accepted(answer)
        return Locked(bucket, name, str(answer.fields.get("VersionId", "")), content, until)

    def until(self, kept: timedelta) -> datetime:
        """Return a date, in whole seconds as the API's are, so far from now."""
        return (self.now() + kept).replace(microsecond=0)


@dataclass(frozen=True, slots=True)
class Locked:
    """An object of the probe that was put under COMPLIANCE."""

    bucket: Bucket
    name: str
    version: str
    content: bytes
    until: datetime

    @property
    def place(self) -> dict[str, str]:
        """Name and version, as requests take them."""
        return {"Key": self.name, "VersionId": self.version}

    def attack(self, operation: str, **parameters: Any) -> None:  # noqa: ANN401 -- S3's own
        """Send a request that must be refused, and look whether the object stands.

        Raises: CheckFailed
        """
        answer = self.bucket.ask(operation, **parameters)
        self.stands()
        refused(answer)

    def stands(self) -> None:
        """Look whether the object is there, byte for byte, with a lock no weaker than it was.

        Raises: CheckFailed
        """
        if self.bucket.content(self.name, self.version) != self.content:
            raise CheckFailed("the locked version is gone or changed")
        head = self.bucket.ask("head_object", **self.place).fields
        if head.get("ObjectLockMode") != COMPLIANCE:
            raise CheckFailed("the mode is COMPLIANCE no longer")
        until = head.get("ObjectLockRetainUntilDate")
        if until is None or until < self.until:
            raise CheckFailed("the date was moved back")


class CheckFailed(Exception):
    """What an endpoint did that it must not, or did not that it must; stays within the probe."""


def accepted(answer: Answer) -> None:
    """Expect that a request was carried out."""
    if answer.code:
        raise CheckFailed(f"refused: {answer.code}")


def refused(answer: Answer) -> None:
    """Expect that a request was refused."""
    if not answer.code:
        raise CheckFailed("accepted")


@dataclass(frozen=True, slots=True)
class Check:
    """One check, and why it is made."""

    why: str
    make: Callable[[Probing], None]


# ------------------------------------------------------------------ the real bucket


def _lock_is_enabled(probing: Probing) -> None:
    answer = probing.target.real.ask("get_object_lock_configuration")
    accepted(answer)
    if answer.fields.get("ObjectLockConfiguration", {}).get("ObjectLockEnabled") != "Enabled":
        raise CheckFailed("Object Lock is not enabled")


def _versions_are_kept(probing: Probing) -> None:
    answer = probing.target.real.ask("get_bucket_versioning")
    accepted(answer)
    if answer.fields.get("Status") != "Enabled":
        raise CheckFailed("versioning is not enabled")


def _real_bucket_refuses(probing: Probing) -> None:
    locked = probing.locked(probing.target.real)
    locked.attack("delete_object", **locked.place, BypassGovernanceRetention=True)


# ------------------------------------------------------------------ putting


def _put_is_locked(probing: Probing) -> None:
    probing.locked().stands()


def _retention_is_told(probing: Probing) -> None:
    locked = probing.locked()
    answer = probing.scratch.ask("get_object_retention", **locked.place)
    accepted(answer)
    told = answer.fields.get("Retention", {})
    if told.get("Mode") != COMPLIANCE or told.get("RetainUntilDate") != locked.until:
        raise CheckFailed("another retention was told")


def _wrong_checksum(probing: Probing) -> None:
    refused(probing.scratch.ask("put_object", Key=probing.name(), Body=b"content", ChecksumSHA256="A" * 43 + "="))


def _taken_name(probing: Probing) -> None:
    locked = probing.locked(IfNoneMatch="*")
    locked.attack("put_object", Key=locked.name, Body=b"other", IfNoneMatch="*")


def _put_in_the_past(probing: Probing) -> None:
    refused(
        probing.scratch.ask(
            "put_object",
            Key=probing.name(),
            Body=b"content",
            ObjectLockMode=COMPLIANCE,
            ObjectLockRetainUntilDate=probing.until(-timedelta(days=1)),
        )
    )


def _put_without_date(probing: Probing) -> None:
    refused(probing.scratch.ask("put_object", Key=probing.name(), Body=b"content", ObjectLockMode=COMPLIANCE))


# ------------------------------------------------------------------ deleting


def _delete(bypass: bool) -> Callable[[Probing], None]:  # noqa: FBT001 -- the one thing that differs
    def check(probing: Probing) -> None:
        locked = probing.locked()
        locked.attack("delete_object", **locked.place, **_bypass(bypass))

    return check


def _delete_many(bypass: bool) -> Callable[[Probing], None]:  # noqa: FBT001 -- as above
    def check(probing: Probing) -> None:
        locked, free = probing.locked(), probing.name()
        put = probing.scratch.ask("put_object", Key=free, Body=b"free")
        objects = [locked.place, {"Key": free, "VersionId": put.fields.get("VersionId", "")}]
        answer = probing.scratch.ask("delete_objects", Delete={"Objects": objects}, **_bypass(bypass))
        locked.stands()
        if not answer.code and not answer.fields.get("Errors"):
            raise CheckFailed("accepted")

    return check


def _hide(probing: Probing) -> None:
    locked = probing.locked()
    answer = probing.scratch.ask("delete_object", Key=locked.name)
    accepted(answer)
    locked.stands()
    marker = str(answer.fields.get("VersionId", ""))
    accepted(probing.scratch.ask("delete_object", Key=locked.name, VersionId=marker))
    if probing.scratch.ask("head_object", Key=locked.name).code:
        raise CheckFailed("it stays hidden after its delete marker was removed")


def _versions_are_listed(probing: Probing) -> None:
    locked = probing.locked()
    accepted(probing.scratch.ask("put_object", Key=locked.name, Body=b"newer"))
    accepted(probing.scratch.ask("delete_object", Key=locked.name))
    listed = list(probing.scratch.versions(locked.name))
    if locked.version not in {found.version_id for found in listed} or sum(found.is_marker for found in listed) != 1:
        raise CheckFailed("a version or a delete marker is not listed")


def _anonymous_delete(probing: Probing) -> None:
    locked = probing.locked()
    answer = probing.target.anonymous.ask("delete_object", **locked.place)
    locked.stands()
    refused(answer)


def _anonymous_read(probing: Probing) -> None:
    locked = probing.locked()
    refused(probing.target.anonymous.ask("get_object", **locked.place))


# ------------------------------------------------------------------ weakening the lock


def _retention(retention: Callable[[Probing, Locked], Mapping[str, Any]], bypass: bool) -> Callable[[Probing], None]:  # noqa: FBT001 -- as above
    def check(probing: Probing) -> None:
        locked = probing.locked()
        locked.attack("put_object_retention", **locked.place, Retention=retention(probing, locked), **_bypass(bypass))

    return check


def _shorter(probing: Probing, _locked: Locked) -> Mapping[str, Any]:
    return {"Mode": COMPLIANCE, "RetainUntilDate": probing.until(KEPT / 2)}


def _weaker(_probing: Probing, locked: Locked) -> Mapping[str, Any]:
    return {"Mode": GOVERNANCE, "RetainUntilDate": locked.until}


def _past(probing: Probing, _locked: Locked) -> Mapping[str, Any]:
    return {"Mode": COMPLIANCE, "RetainUntilDate": probing.until(-timedelta(days=1))}


def _empty(_probing: Probing, _locked: Locked) -> Mapping[str, Any]:
    return {}


def _extend(probing: Probing) -> None:
    locked, later = probing.locked(), probing.until(KEPT * 2)
    accepted(
        probing.scratch.ask(
            "put_object_retention", **locked.place, Retention={"Mode": COMPLIANCE, "RetainUntilDate": later}
        )
    )
    extended = Locked(locked.bucket, locked.name, locked.version, locked.content, later)
    extended.stands()
    extended.attack(
        "put_object_retention", **locked.place, Retention={"Mode": COMPLIANCE, "RetainUntilDate": locked.until}
    )


def _expiry(probing: Probing) -> None:
    locked = probing.locked(kept=_SHORT)
    locked.attack("delete_object", **locked.place)
    _pass_by(probing, locked.until)
    accepted(probing.scratch.ask("delete_object", **locked.place))
    if probing.scratch.content(locked.name, locked.version) is not None:
        raise CheckFailed("what expired and was deleted can be read still")


# ------------------------------------------------------------------ overwriting


def _overwrite(probing: Probing) -> None:
    locked = probing.locked()
    accepted(probing.scratch.ask("put_object", Key=locked.name, Body=b"encrypted by somebody else"))
    locked.stands()


def _overwrite_by_copy(probing: Probing) -> None:
    locked, other = probing.locked(), probing.locked()
    source = {"Bucket": other.bucket.name, "Key": other.name, "VersionId": other.version}
    accepted(probing.scratch.ask("copy_object", Key=locked.name, CopySource=source))
    locked.stands()


# ------------------------------------------------------------------ the bucket's own settings


def _suspend_versioning(probing: Probing) -> None:
    locked = probing.locked()
    try:
        locked.attack("put_bucket_versioning", VersioningConfiguration={"Status": "Suspended"})
    finally:
        probing.scratch.ask("put_bucket_versioning", VersioningConfiguration={"Status": "Enabled"})


def _delete_bucket(probing: Probing) -> None:
    locked = probing.locked()
    locked.attack("delete_bucket")


def _disable_lock(probing: Probing) -> None:
    locked = probing.locked()
    probing.scratch.ask("put_object_lock_configuration", ObjectLockConfiguration={})
    locked.stands()
    answer = probing.scratch.ask("get_object_lock_configuration")
    if answer.fields.get("ObjectLockConfiguration", {}).get("ObjectLockEnabled") != "Enabled":
        raise CheckFailed("Object Lock can be switched off")
    locked.attack("delete_object", **locked.place)


def _default_retention(probing: Probing) -> None:
    rule = {"DefaultRetention": {"Mode": COMPLIANCE, "Days": 1}}
    enabled = {"ObjectLockEnabled": "Enabled"}
    set_up = probing.scratch.ask("put_object_lock_configuration", ObjectLockConfiguration=enabled | {"Rule": rule})
    try:
        accepted(set_up)
        told = probing.scratch.ask("get_object_lock_configuration")
        accepted(told)
        if told.fields.get("ObjectLockConfiguration", {}).get("Rule") != rule:
            raise CheckFailed("another rule was told")
        name, content = probing.name(), secrets.token_bytes(64)
        put = probing.scratch.ask("put_object", Key=name, Body=content)
        accepted(put)
    finally:
        probing.scratch.ask("put_object_lock_configuration", ObjectLockConfiguration=enabled)
    # The rule is gone again; what was put under it stays locked.
    version = str(put.fields.get("VersionId", ""))
    kept = Locked(probing.scratch, name, version, content, probing.until(timedelta(hours=23)))
    kept.attack("delete_object", **kept.place, BypassGovernanceRetention=True)


# ------------------------------------------------------------------ legal hold


def _held(probing: Probing) -> tuple[str, str]:
    name = probing.name()
    answer = probing.scratch.ask("put_object", Key=name, Body=b"held", ObjectLockLegalHoldStatus="ON")
    accepted(answer)
    return name, str(answer.fields.get("VersionId", ""))


def _hold_refuses(probing: Probing) -> None:
    name, version = _held(probing)
    refused(probing.scratch.ask("delete_object", Key=name, VersionId=version, BypassGovernanceRetention=True))
    if probing.scratch.content(name, version) != b"held":
        raise CheckFailed("the held version is gone or changed")


def _hold_is_lifted(probing: Probing) -> None:
    name, version = _held(probing)
    place = {"Key": name, "VersionId": version}
    accepted(probing.scratch.ask("put_object_legal_hold", **place, LegalHold={"Status": "OFF"}))
    accepted(probing.scratch.ask("delete_object", **place))


def _hold_outlives_the_date(probing: Probing) -> None:
    locked = probing.locked(kept=_SHORT, ObjectLockLegalHoldStatus="ON")
    _pass_by(probing, locked.until)
    answer = probing.scratch.ask("delete_object", **locked.place)
    if probing.scratch.content(locked.name, locked.version) != locked.content:
        raise CheckFailed("the held version is gone or changed")
    refused(answer)


def _hold_does_not_weaken(probing: Probing) -> None:
    locked = probing.locked(ObjectLockLegalHoldStatus="ON")
    accepted(probing.scratch.ask("put_object_legal_hold", **locked.place, LegalHold={"Status": "OFF"}))
    locked.attack("delete_object", **locked.place)


# ------------------------------------------------------------------ multipart uploads


def _multipart(probing: Probing) -> Locked:
    name, content, until = probing.name(), secrets.token_bytes(_PART + 1), probing.until(KEPT)
    begun = probing.scratch.ask(
        "create_multipart_upload", Key=name, ObjectLockMode=COMPLIANCE, ObjectLockRetainUntilDate=until
    )
    accepted(begun)
    upload = {"Key": name, "UploadId": begun.fields["UploadId"]}
    parts = []
    for number, part in enumerate((content[:_PART], content[_PART:]), start=1):
        sent = probing.scratch.ask("upload_part", **upload, PartNumber=number, Body=part)
        accepted(sent)
        parts.append({"ETag": sent.fields["ETag"], "PartNumber": number})
    ended = probing.scratch.ask("complete_multipart_upload", **upload, MultipartUpload={"Parts": parts})
    accepted(ended)
    return Locked(probing.scratch, name, str(ended.fields.get("VersionId", "")), content, until)


def _multipart_is_locked(probing: Probing) -> None:
    locked = _multipart(probing)
    locked.attack("delete_object", **locked.place, BypassGovernanceRetention=True)


def _multipart_cannot_be_shortened(probing: Probing) -> None:
    locked = _multipart(probing)
    locked.attack(
        "put_object_retention", **locked.place, Retention=_shorter(probing, locked), BypassGovernanceRetention=True
    )


# ------------------------------------------------------------------ beside S3


def _clock(probing: Probing) -> None:
    locked = probing.locked()
    told = probing.scratch.ask("head_object", **locked.place).fields.get("LastModified")
    if not isinstance(told, datetime) or abs(told - probing.now()) > _MAX_CLOCK_DIFFERENCE:
        raise CheckFailed("its clock differs from this site's by more than five minutes")


def _back_doors(probing: Probing) -> None:
    from site_node.archive.locked.s3 import knock  # noqa: PLC0415 -- botocore is slow to import, and verdicts need none

    locked = probing.locked()
    bucket = probing.scratch.name
    for door in probing.target.back_doors:
        for method, path in (
            ("DELETE", f"/buckets/{bucket}/{locked.name}?recursive=true&ignoreRecursiveError=true"),
            ("DELETE", f"/buckets/{bucket}/{locked.name}.versions?recursive=true&ignoreRecursiveError=true"),
            ("DELETE", f"/buckets/{bucket}?recursive=true&ignoreRecursiveError=true"),
            ("GET", f"/col/delete?collection={bucket}"),
            ("POST", f"/col/delete?collection={bucket}"),
        ):
            knock(method, door + path)
            try:
                locked.stands()
            except CheckFailed as error:
                raise CheckFailed(f"{method} {door}{path.partition('?')[0]}: {error}") from None


def _bypass(wanted: bool) -> dict[str, bool]:  # noqa: FBT001 -- as above
    return {"BypassGovernanceRetention": True} if wanted else {}


def _pass_by(probing: Probing, moment: datetime) -> None:
    probing.wait(max(0.0, (moment + _MARGIN - probing.now()).total_seconds()))


_ATTACKER = "who has the site's credentials must not be able to"

CHECKS: Final[Mapping[str, Check]] = {
    "lock-enabled": Check("without Object Lock on the bucket, locks are decoration", _lock_is_enabled),
    "versioning-enabled": Check("recovery goes back to earlier versions", _versions_are_kept),
    "real-bucket-refuses-delete": Check("what holds beside the bucket must hold in it", _real_bucket_refuses),
    "put-locked": Check("an object has its lock from its first moment on", _put_is_locked),
    "retention-told": Check("a lock that cannot be read cannot be audited", _retention_is_told),
    "wrong-checksum-refused": Check("what was damaged on the way must not be locked for years", _wrong_checksum),
    "taken-name-refused": Check("If-None-Match * lets two writers never replace each other", _taken_name),
    "put-in-the-past-refused": Check("an object that is born free is not locked", _put_in_the_past),
    "put-without-date-refused": Check("a mode without a date locks nothing", _put_without_date),
    "delete": Check(f"{_ATTACKER} delete a version", _delete(bypass=False)),
    "delete-bypass": Check("bypassing governance has no power over COMPLIANCE", _delete(bypass=True)),
    "multi-delete": Check("DeleteObjects is another door to the same room", _delete_many(bypass=False)),
    "multi-delete-bypass": Check("as above, with the bypass", _delete_many(bypass=True)),
    "delete-marker": Check("a plain delete may hide, and must not destroy", _hide),
    "versions-listed": Check("recovery finds versions by listing them", _versions_are_listed),
    "anonymous-delete": Check("nobody deletes without a login", _anonymous_delete),
    "anonymous-read": Check("nobody reads without a login", _anonymous_read),
    "shorten": Check(f"{_ATTACKER} move the date back", _retention(_shorter, bypass=False)),
    "shorten-bypass": Check("as above, with the bypass", _retention(_shorter, bypass=True)),
    "downgrade": Check(f"{_ATTACKER} turn COMPLIANCE into GOVERNANCE", _retention(_weaker, bypass=False)),
    "downgrade-bypass": Check("as above, with the bypass", _retention(_weaker, bypass=True)),
    "empty-retention": Check(f"{_ATTACKER} remove the retention", _retention(_empty, bypass=False)),
    "empty-retention-bypass": Check("as above, with the bypass", _retention(_empty, bypass=True)),
    "past-date": Check(f"{_ATTACKER} set a date in the past", _retention(_past, bypass=False)),
    "past-date-bypass": Check("as above, with the bypass", _retention(_past, bypass=True)),
    "extend": Check("a lock can be prolonged, and not taken back after it", _extend),
    "expiry": Check("a lock ends at its date: images are not kept for ever against the law", _expiry),
    "overwrite": Check("what is written over a name must not touch earlier versions", _overwrite),
    "overwrite-by-copy": Check("as above, by CopyObject", _overwrite_by_copy),
    "suspend-versioning": Check("without versioning a write would replace", _suspend_versioning),
    "delete-bucket": Check(f"{_ATTACKER} delete a bucket with what is locked in it", _delete_bucket),
    "disable-lock": Check(f"{_ATTACKER} switch Object Lock off", _disable_lock),
    "default-retention": Check("snapshots are locked by the bucket's rule, and stay so without it", _default_retention),
    "legal-hold": Check("what is held stays, with no date at all", _hold_refuses),
    "legal-hold-lifted": Check("a hold can be lifted when the case is closed", _hold_is_lifted),
    "legal-hold-after-expiry": Check("a hold outlives the date", _hold_outlives_the_date),
    "legal-hold-and-date": Check("lifting a hold leaves the date", _hold_does_not_weaken),
    "multipart-locked": Check("large objects are locked as small ones are", _multipart_is_locked),
    "multipart-shorten": Check("as above, against moving the date", _multipart_cannot_be_shortened),
    "clock": Check("the endpoint judges dates by its own clock", _clock),
    "back-doors": Check("filer and master of SeaweedFS delete below S3 where they are not closed", _back_doors),
}


def run(
    target: Target,
    validity: timedelta,
    at: datetime,
    now: Callable[[], datetime],
    wait: Callable[[float], None],
    heard: Callable[[int, int], None] = lambda _done, _total: None,
) -> ProbeResult:
    """Make every check, and return what came of each; the result counts from `at`, a moment of the site's clock.

    Raises: EndpointUnreachable if the endpoint stops answering: then there is no result.
    """
    probing = Probing(target, now, wait)
    _tidy(probing.scratch)
    begun = at.astimezone(UTC).replace(microsecond=0)
    results = []
    for done, (name, check) in enumerate(CHECKS.items(), start=1):
        results.append(CheckResult(check=name, found=_found(check, probing)))
        heard(done, len(CHECKS))
    return ProbeResult(
        endpoint=target.real.endpoint,
        bucket=target.real.name,
        at=begun,
        expires_at=begun + validity,
        checks=tuple(results),
    )


def _found(check: Check, probing: Probing) -> str:
    try:
        check.make(probing)
    except CheckFailed as error:
        return str(error)[:256]
    except EndpointRefused as error:
        return f"refused: {error.code}"[:256]
    return ""


def _tidy(scratch: Bucket) -> None:
    """Delete what earlier probes left and no lock holds any more; what is still locked is refused, and stays."""
    for found in list(scratch.versions(PREFIX)):
        scratch.ask("delete_object", Key=found.name, VersionId=found.version_id)

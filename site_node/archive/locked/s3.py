"""The line to S3 endpoints: the one module of the archive with a network library.

What it sends is ciphertext and the digests of ciphertext, under names that are keyed digests (`worm`), and a few bytes
of the conformance probe. From buckets that are searched (`archive.bucket`) it reads and deletes. It decides nothing:
what an answer means is the caller's.
Source: Amazon S3 API reference, 2006-03-01.
"""

from __future__ import annotations

import base64
from contextlib import closing, contextmanager
from dataclasses import dataclass, field
from functools import cache
from typing import TYPE_CHECKING, Any

from botocore import UNSIGNED
from botocore.awsrequest import AWSRequest
from botocore.config import Config
from botocore.exceptions import BotoCoreError, ClientError
from botocore.httpsession import URLLib3Session
from botocore.session import Session

from site_node.archive.locked.locks import COMPLIANCE, Lock, Version
from site_node.errors import EndpointRefused, EndpointUnreachable

if TYPE_CHECKING:
    from collections.abc import Iterator
    from datetime import datetime
    from pathlib import Path
    from typing import BinaryIO

    from site_node.archive.locked.credentials import Credentials

CHUNK = 1 << 20
_CONNECT_S, _READ_S, _ATTEMPTS = 5, 60, 3
_KNOCK_S = 5
_UNKNOWN = "no-code"


@dataclass(frozen=True, slots=True)
class Answer:
    """What an endpoint said to one request: `code` is that of its error, empty where it did what was asked."""

    code: str
    fields: dict[str, Any] = field(default_factory=dict)


class Bucket:
    """One bucket of one endpoint, over one session.

    Raises: EndpointUnreachable where no answer came; EndpointRefused, with the code, where the answer was an error.
    """

    def __init__(
        self, endpoint: str, region: str, name: str, credentials: Credentials | None, authority: Path | None
    ) -> None:
        self.endpoint, self.name = endpoint, name
        self._authority = authority
        # Neither a profile nor a variable of the environment: what is used is what the site's configuration names.
        self._client = _session().create_client(
            "s3",
            aws_access_key_id=credentials.access_key if credentials else None,
            aws_secret_access_key=credentials.secret_key if credentials else None,
            region_name=region,
            endpoint_url=endpoint,
            verify=str(authority) if authority else True,
            config=Config(
                signature_version="s3v4" if credentials else UNSIGNED,
                connect_timeout=_CONNECT_S,
                read_timeout=_READ_S,
                retries={"mode": "standard", "max_attempts": _ATTEMPTS},
                s3={"addressing_style": "path"},
            ),
        )

    def put(self, name: str, content: BinaryIO, size: int, sha256: bytes, until: datetime, *, hold: bool) -> str:
        """Store a new object under COMPLIANCE and return its version; one that is there is never replaced.

        Raises: EndpointRefused with code PreconditionFailed if the name is taken.
        """
        with self._translated():
            answer = self._client.put_object(
                Bucket=self.name,
                Key=name,
                Body=content,
                ContentLength=size,
                ContentType="application/octet-stream",
                ChecksumSHA256=base64.b64encode(sha256).decode(),
                IfNoneMatch="*",
                ObjectLockMode=COMPLIANCE,
                ObjectLockRetainUntilDate=until,
                ObjectLockLegalHoldStatus="ON" if hold else "OFF",
            )
        return str(answer.get("VersionId", ""))

    def read(self, name: str, version: str) -> Iterator[bytes]:
        """Yield the bytes of one version."""
        with self.opened(name, version) as (_, chunks):
            yield from chunks

    @contextmanager
    def opened(self, name: str, version: str) -> Iterator[tuple[dict[str, Any], Iterator[bytes]]]:
        """Give what is said of one version beside its bytes (the fields of GetObject), and the bytes."""
        with self._translated():
            fields = self._client.get_object(Bucket=self.name, Key=name, VersionId=version)
        with closing(fields.pop("Body")) as body:
            yield fields, self._chunks(body)

    def _chunks(self, body: Any) -> Iterator[bytes]:  # noqa: ANN401 -- botocore ships no types
        with self._translated():
            yield from body.iter_chunks(CHUNK)

    def tags(self, name: str, version: str) -> dict[str, str]:
        """Return the tags of one version."""
        with self._translated():
            told = self._client.get_object_tagging(Bucket=self.name, Key=name, VersionId=version)
        return {tag["Key"]: tag["Value"] for tag in told["TagSet"]}

    def delete(self, name: str, version: str, **condition: str) -> None:
        """Delete one version for good, under a condition of DeleteObject if one is given."""
        with self._translated():
            self._client.delete_object(Bucket=self.name, Key=name, VersionId=version, **condition)

    def unfinished(self, prefix: str = "") -> Iterator[tuple[str, str, str]]:
        """Yield key, upload and owner of every upload in parts that was begun and not finished."""
        marker: dict[str, str] = {}
        while True:
            with self._translated():
                page = self._client.list_multipart_uploads(Bucket=self.name, Prefix=prefix, **marker)
            for found in page.get("Uploads", ()):
                yield found["Key"], found["UploadId"], _owner(found)
            if not page.get("IsTruncated"):
                return
            marker = {"KeyMarker": page["NextKeyMarker"], "UploadIdMarker": page["NextUploadIdMarker"]}

    def lock(self, name: str, version: str) -> Lock:
        """Return the lock of one version, as the endpoint tells it."""
        with self._translated():
            head = self._client.head_object(Bucket=self.name, Key=name, VersionId=version)
        return Lock(
            head.get("ObjectLockMode", ""),
            head.get("ObjectLockRetainUntilDate"),
            hold=head.get("ObjectLockLegalHoldStatus") == "ON",
        )

    def extend(self, name: str, version: str, until: datetime) -> None:
        """Move the date of one version's lock."""
        with self._translated():
            self._client.put_object_retention(
                Bucket=self.name,
                Key=name,
                VersionId=version,
                Retention={"Mode": COMPLIANCE, "RetainUntilDate": until},
            )

    def set_hold(self, name: str, version: str, *, on: bool) -> None:
        """Put a legal hold on one version, or lift it."""
        with self._translated():
            self._client.put_object_legal_hold(
                Bucket=self.name, Key=name, VersionId=version, LegalHold={"Status": "ON" if on else "OFF"}
            )

    def versions(self, prefix: str = "") -> Iterator[Version]:
        """Yield every version and delete marker below a prefix, in the endpoint's order."""
        marker: dict[str, str] = {}
        while True:
            with self._translated():
                page = self._client.list_object_versions(Bucket=self.name, Prefix=prefix, **marker)
            for found in (*page.get("Versions", ()), *page.get("DeleteMarkers", ())):
                yield Version(
                    found["Key"],
                    found["VersionId"],
                    found["LastModified"],
                    found.get("Size", 0),
                    is_marker="Size" not in found,
                    is_latest=found["IsLatest"],
                    etag=found.get("ETag", ""),
                    owner=_owner(found),
                )
            if not page.get("IsTruncated"):
                return
            marker = {"KeyMarker": page["NextKeyMarker"]}
            if page.get("NextVersionIdMarker"):
                marker["VersionIdMarker"] = page["NextVersionIdMarker"]

    def is_there(self) -> bool:
        """Return whether the bucket exists and may be used."""
        answer = self.ask("head_bucket")
        if answer.code in {"", "404", "NoSuchBucket"}:
            return not answer.code
        raise EndpointRefused(f"{self.endpoint}: bucket {self.name}: {answer.code}", answer.code)

    def make(self) -> None:
        """Make the bucket, with Object Lock."""
        with self._translated():
            self._client.create_bucket(Bucket=self.name, ObjectLockEnabledForBucket=True)

    def default_days(self) -> int:
        """Return for how many days COMPLIANCE locks what is put without a lock of its own; 0 where nothing does."""
        answer = self.ask("get_object_lock_configuration")
        rule = answer.fields.get("ObjectLockConfiguration", {}).get("Rule", {}).get("DefaultRetention", {})
        if rule.get("Mode") != COMPLIANCE:
            return 0
        return int(rule.get("Days", 0) or rule.get("Years", 0) * 365)

    def set_default_days(self, days: int) -> None:
        """Have what is put without a lock of its own locked for so many days."""
        rule = {"DefaultRetention": {"Mode": COMPLIANCE, "Days": days}}
        with self._translated():
            self._client.put_object_lock_configuration(
                Bucket=self.name, ObjectLockConfiguration={"ObjectLockEnabled": "Enabled", "Rule": rule}
            )

    def ask(self, operation: str, **parameters: Any) -> Answer:  # noqa: ANN401 -- an operation's own parameters
        """Send one request of botocore's S3 client on this bucket, and return what was answered.

        Raises: EndpointUnreachable.
        """
        try:
            return Answer("", getattr(self._client, operation)(Bucket=self.name, **parameters))
        except ClientError as error:
            return Answer(_code(error))
        except BotoCoreError as error:
            raise EndpointUnreachable(f"{self.endpoint}: {_cause(error)}") from error

    def content(self, name: str, version: str) -> bytes | None:
        """Return the bytes of one version, for small objects; None where the endpoint does not give them."""
        try:
            return b"".join(self.read(name, version))
        except EndpointRefused:
            return None

    @contextmanager
    def _translated(self) -> Iterator[None]:
        try:
            yield
        except ClientError as error:
            code = _code(error)
            raise EndpointRefused(f"{self.endpoint}: {error.operation_name} was refused: {code}", code) from error
        except BotoCoreError as error:
            raise EndpointUnreachable(f"{self.endpoint}: {_cause(error)}") from error


@cache
def _session() -> Any:  # noqa: ANN401 -- botocore ships no types
    """Return botocore's session; it reads its model of S3 once."""
    return Session()


def knock(method: str, url: str) -> int | None:
    """Send one request without a login and return the status; None where nobody answers."""
    session = URLLib3Session(timeout=_KNOCK_S)
    try:
        return int(session.send(AWSRequest(method, url).prepare()).status_code)
    except BotoCoreError:
        return None
    finally:
        session.close()


def _owner(found: dict[str, Any]) -> str:
    told = found.get("Owner", {})
    return str(told.get("DisplayName") or told.get("ID") or "")


def _code(error: ClientError) -> str:
    return str(error.response.get("Error", {}).get("Code") or _UNKNOWN)


def _cause(error: BotoCoreError) -> str:
    return f"cannot be reached ({type(error).__name__})"

"""A bucket of S3 as a place that is searched: every version of its objects, old ones and hidden ones too.

Bytes come in and nothing of them goes out; all that is ever changed there is that a version is deleted, on a person's
decision. A read is held against what was listed: another length or another ETag is no content, and told.
Source: Amazon S3 API reference, 2006-03-01: ListObjectVersions, GetObject, ListMultipartUploads, DeleteObject.
"""

from __future__ import annotations

import mmap
import os
import re
import shutil
import tempfile
import time
from contextlib import contextmanager
from dataclasses import dataclass
from email.errors import HeaderParseError
from email.header import decode_header, make_header
from functools import lru_cache
from typing import TYPE_CHECKING, Any

from site_node.archive.locked import credentials
from site_node.archive.locked.s3 import Bucket
from site_node.config import is_safe_endpoint
from site_node.errors import ConfigurationError, EndpointRefused, EndpointUnreachable
from site_node.stray.origin import READ_WHOLE, Item, NotGiven, Opened

if TYPE_CHECKING:
    from collections.abc import Iterator
    from datetime import datetime
    from pathlib import Path

    from site_node.archive.locked.places import Places
    from site_node.config import LockedCopy

REGION = "us-east-1"
NO_ANSWER = "the endpoint gave no answer, or broke off"
REFUSED = "the endpoint refused it"
OTHER_LENGTH = "came with another length than it was listed with"
CHANGED = "was written over while the bucket was searched"
NO_ROOM = "no room on this machine to look into it"
NOT_SAID = "has metadata that the endpoint cannot send"
UNFINISHED = "parts of an upload that was not finished, which nobody can read"
NOT_LISTED = "uploads that were not finished could not be listed"
PATIENCE_S = 20.0  # how long an endpoint that is silent is waited for, before what is left is told as not looked at
_REST_S = 15.0  # and for how long nothing is asked of it after that
_PAUSE_S = 1.0
_ROOM = 1024**3  # that is left free on the disk
_MARKER = "delete marker"
_WORK = "work"  # below the site's folder
_VERSION, _UPLOAD = "versionId=", "uploadId="
_NULL = "null"  # the one version of an object that can be written over
_GONE = frozenset(("404", "NoSuchKey", "NoSuchVersion"))
_HEADERS = ("ContentDisposition", "ContentType", "ContentLanguage", "WebsiteRedirectLocation")
_CODE = re.compile(r"[A-Za-z0-9-]{1,40}")
_URL = re.compile(r"s3://([A-Za-z0-9][A-Za-z0-9._-]{1,254})(?:/(.*))?", re.DOTALL)
_SOURCE = re.compile(r"s3://([^/]+)/.* at (\S+)", re.DOTALL)


@dataclass(frozen=True, slots=True)
class Objects:
    """The objects of a bucket whose keys begin with `prefix`; files name who reads it, and whom to trust.

    Objects that are too large for memory lie in files without a name in the folder `work`, while they are looked at.
    """

    endpoint: str
    region: str
    bucket: str
    prefix: str
    credentials: Path | None
    authority: Path | None
    work: Path

    def __post_init__(self) -> None:
        """Refuse an endpoint that would hear patients' bytes and the login in the clear."""
        if not is_safe_endpoint(self.endpoint):
            raise ConfigurationError("the endpoint of a bucket: must be https or this machine, without a login in it")

    @property
    def name(self) -> str:
        """The bucket, the prefix and the endpoint."""
        return f"s3://{self.bucket}/{self.prefix} at {self.endpoint}"

    # -------------------------------------------------------------- the search

    def items(self) -> Iterator[Item]:
        """Yield every version, keys that are left with delete markers alone, and uploads that were not finished.

        Raises: EndpointError if versions cannot be listed; ConfigurationError if the credentials are none.
        """
        bucket = _line(self).bucket
        kept, markers = set(), []
        for found in bucket.versions(self.prefix):
            which = _VERSION + found.version_id
            if found.is_marker:
                markers.append(Item(found.name, 0, _MARKER, found.owner, which=which))
                continue
            kept.add(found.name)
            yield Item(found.name, found.size, _stamp(found.etag, found.at), found.owner, which=which)
        yield from (marker for marker in markers if marker.key not in kept)
        try:
            for key, upload, owner in bucket.unfinished(self.prefix):
                yield Item(key, 0, "", owner, UNFINISHED, _UPLOAD + upload)
        except EndpointRefused:
            yield Item("unfinished uploads", 0, "", "", NOT_LISTED)

    @contextmanager
    def content(self, item: Item) -> Iterator[Opened]:
        """Give the bytes of a version and its metadata; of a delete marker, nothing.

        Raises: NotGiven, with the reason.
        """
        yield Opened(memoryview(b"")) if item.stamp == _MARKER else self._given(item)

    def _given(self, item: Item) -> Opened:
        line = _line(self)
        for _ in range(2):
            line.require()
            try:
                return self._read(line.bucket, item)
            except EndpointRefused as error:
                raise NotGiven(_refusal(error)) from error
            except EndpointUnreachable:
                line.wait()
        raise NotGiven(NO_ANSWER)

    def _read(self, bucket: Bucket, item: Item) -> Opened:
        version = item.which.removeprefix(_VERSION)
        with bucket.opened(item.key, version) as (fields, chunks):
            if fields.get("ETag", "") != item.stamp.partition(" ")[0]:
                raise NotGiven(CHANGED)
            if fields.get("MissingMeta"):
                raise NotGiven(NOT_SAID)
            content = self._held(_exactly(chunks, item.size), item.size)
        tags = bucket.tags(item.key, version) if fields.get("TagCount") else {}
        return Opened(content, (*_said(fields), *tags.items()))

    def _held(self, chunks: Iterator[bytes], size: int) -> memoryview:
        if size <= READ_WHOLE:
            return memoryview(b"".join(chunks))
        if shutil.disk_usage(self.work).free < size + _ROOM:
            raise NotGiven(NO_ROOM)
        with tempfile.TemporaryFile(dir=self.work) as file:
            for chunk in chunks:
                file.write(chunk)
            file.flush()
            return memoryview(mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ))

    # -------------------------------------------------------------- decisions

    def fetch(self, address: str, target: Path) -> str:
        """Write the bytes of a version to a file, mode 0600, and see that the disk has them; return its ETag.

        Raises: ConfigurationError if it is no version, or gone; EndpointError.
        """
        key, version = _parsed(address)
        with os.fdopen(os.open(target, os.O_CREAT | os.O_TRUNC | os.O_WRONLY | os.O_NOFOLLOW, 0o600), "wb") as file:
            with _told(), _line(self).bucket.opened(key, version) as (fields, chunks):
                for chunk in chunks:
                    file.write(chunk)
            file.flush()
            os.fsync(file.fileno())
        return str(fields.get("ETag", ""))

    def kept_by(self, address: str, at: datetime) -> str:
        """Return what keeps a version from being deleted at a moment; nothing if nothing does.

        Raises: ConfigurationError, EndpointError as `fetch`.
        """
        with _told():
            lock = _line(self).bucket.lock(*_parsed(address))
        if lock.hold:
            return "under legal hold"
        if lock.until is not None and lock.until > at:
            return f"locked until {lock.until:%Y-%m-%d %H:%M} UTC ({lock.mode})"
        return ""

    def delete(self, address: str, etag: str) -> None:
        """Delete a version for good, and see that it is gone; one that was written over since it had `etag` is not.

        Raises: ConfigurationError if it is there all the same; EndpointError.
        """
        key, version = _parsed(address)
        bucket = _line(self).bucket
        bucket.delete(key, version, **({"IfMatch": etag} if version == _NULL else {}))
        try:
            bucket.lock(key, version)
        except EndpointRefused as error:
            if error.code in _GONE:
                return
            raise
        raise ConfigurationError("the endpoint says that the object is deleted, and has it still")


@dataclass(frozen=True, slots=True)
class Login:
    """Who reads a bucket, by files alone: nobody without `credentials`; `authority` is whom to trust there."""

    credentials: Path | None = None
    authority: Path | None = None
    region: str = REGION


def named(places: Places, name: str, endpoint: str | None, login: Login) -> Objects:
    """Return the bucket that a person names: s3://BUCKET/PREFIX, or a copy of [[locked.copies]].

    Raises: ConfigurationError if it is neither, or the endpoint is not safe.
    """
    if "://" not in name:
        return _of_copy(places, places.chosen(name)[0])
    match = _URL.fullmatch(name)
    if match is None:
        raise ConfigurationError("a bucket is named s3://NAME or s3://NAME/PREFIX, or as in [[locked.copies]]")
    address = endpoint or f"https://s3.{login.region}.amazonaws.com"
    return _of_login(places, match[1], match[2] or "", address.rstrip("/"), login)


def searched(places: Places, source: str, login: Login) -> Objects | None:
    """Return the bucket of a place that was searched, by the place's name; None if it was no bucket.

    Who the site is there is what `login` says, or else [[locked.copies]].
    """
    match = _SOURCE.fullmatch(source)
    if match is None:
        return None
    bucket, endpoint = match.groups()
    for copy in places.settings.copies if login.credentials is None else ():
        if (copy.bucket, copy.endpoint) == (bucket, endpoint):
            return _of_copy(places, copy)
    return _of_login(places, bucket, "", endpoint, login)


def _of_copy(places: Places, copy: LockedCopy) -> Objects:
    login = places.root / copy.credentials.removeprefix("file:")
    work = places.root / _WORK
    return Objects(copy.endpoint, copy.region, copy.bucket, "", login, places.authority(copy), work)


def _of_login(places: Places, bucket: str, prefix: str, endpoint: str, login: Login) -> Objects:
    credentials_, authority = (path.absolute() if path else None for path in (login.credentials, login.authority))
    return Objects(endpoint, login.region, bucket, prefix, credentials_, authority, places.root / _WORK)


class _Line:
    """One process's line to a bucket, which knows for how long the endpoint has been silent."""

    def __init__(self, objects: Objects) -> None:
        known = credentials.read(objects.credentials) if objects.credentials else None
        self.bucket = Bucket(objects.endpoint, objects.region, objects.bucket, known, objects.authority)
        self._rests_until = 0.0

    def require(self) -> None:
        """Go on unless the endpoint was silent a moment ago.

        Raises: NotGiven.
        """
        if time.monotonic() < self._rests_until:
            raise NotGiven(NO_ANSWER)

    def wait(self) -> None:
        """Wait until the endpoint answers at all, for a while.

        Raises: NotGiven if it does not.
        """
        end = time.monotonic() + PATIENCE_S
        while True:
            try:
                self.bucket.ask("head_bucket")
            except EndpointUnreachable:
                if time.monotonic() > end:
                    self._rests_until = time.monotonic() + _REST_S
                    raise NotGiven(NO_ANSWER) from None
                time.sleep(_PAUSE_S)
            else:
                return


@lru_cache(maxsize=8)
def _line(objects: Objects) -> _Line:
    return _Line(objects)


@contextmanager
def _told() -> Iterator[None]:
    try:
        yield
    except EndpointRefused as error:
        if error.code in _GONE:
            raise ConfigurationError("the object is not in its bucket any more; scan again") from error
        raise


def _parsed(address: str) -> tuple[str, str]:
    key, _, which = address.rpartition("?")
    if not which.startswith(_VERSION):
        raise ConfigurationError("no object: see to it at the endpoint")
    return key, which.removeprefix(_VERSION)


def _stamp(etag: str, at: datetime) -> str:
    return f"{etag} {at.isoformat()}"


def _exactly(chunks: Iterator[bytes], size: int) -> Iterator[bytes]:
    """Yield bytes that are `size` together.

    Raises: NotGiven if they are more or fewer.
    """
    left = size
    for chunk in chunks:
        left -= len(chunk)
        if left < 0:
            raise NotGiven(OTHER_LENGTH)
        yield chunk
    if left:
        raise NotGiven(OTHER_LENGTH)


def _refusal(error: EndpointRefused) -> str:
    return f"{REFUSED} ({error.code})" if _CODE.fullmatch(error.code) else REFUSED


def _said(fields: dict[str, Any]) -> Iterator[tuple[str, str]]:
    """Yield what a version's headers say that people may have written."""
    yield from (("", str(fields[name])) for name in _HEADERS if fields.get(name))
    yield from ((label, _readable(text)) for label, text in fields.get("Metadata", {}).items())


def _readable(text: str) -> str:
    """Return metadata as it was written: other letters than ASCII come by RFC 2047, or as bytes of UTF-8."""
    try:
        return str(make_header(decode_header(text.encode("latin-1").decode())))
    except (UnicodeError, HeaderParseError, LookupError):
        return text

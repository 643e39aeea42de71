"""The places of locked copies that site.toml names: their buckets, and whether each may be called compliant."""

from __future__ import annotations

from contextlib import suppress
from dataclasses import dataclass
from typing import TYPE_CHECKING

from consent import Deny, Permit
from site_node.archive.locked import credentials, probe_log, sealing
from site_node.archive.locked.probe import Target
from site_node.errors import ConfigurationError, EndpointRefused, NotCompliant

if TYPE_CHECKING:
    from datetime import datetime
    from pathlib import Path

    import sqlalchemy as sa

    from site_node.archive.locked.credentials import Credentials
    from site_node.archive.locked.s3 import Bucket
    from site_node.config import LockedCopies, LockedCopy


@dataclass(frozen=True, slots=True)
class Places:
    """Where a site's locked copies lie; `root` is the site's folder."""

    root: Path
    settings: LockedCopies
    store: sa.Engine

    def chosen(self, name: str | None = None) -> tuple[LockedCopy, ...]:
        """Return the copy of that name; without a name, all.

        Raises: ConfigurationError if there is none.
        """
        copies = self.settings.copies
        if not copies:
            raise ConfigurationError("no place for locked copies: name one in [[locked.copies]] of site.toml")
        chosen = tuple(copy for copy in copies if name in {None, copy.name})
        if not chosen:
            known = ", ".join(copy.name for copy in copies)
            raise ConfigurationError(f"no copy {name!r} in [[locked.copies]]: there are {known}")
        return chosen

    def bucket(self, copy: LockedCopy, name: str | None = None, *, anonymous: bool = False) -> Bucket:
        """Return the copy's bucket, or one beside it, with the site's credentials or without a login.

        Raises: ConfigurationError if a file of it is missing or none.
        """
        from site_node.archive.locked.s3 import Bucket  # noqa: PLC0415 -- botocore is slow to import, and snapshots elsewhere need none

        known = None if anonymous else self.credentials(copy)
        return Bucket(copy.endpoint, copy.region, name or copy.bucket, known, self.authority(copy))

    def credentials(self, copy: LockedCopy) -> Credentials:
        """Return who this site is at a copy's endpoint.

        Raises: ConfigurationError, as `credentials.read` says.
        """
        return credentials.read(self.root / copy.credentials.removeprefix("file:"))

    def authority(self, copy: LockedCopy) -> Path | None:
        """Return the file of certificates to trust at a copy's endpoint; None means the usual.

        Raises: ConfigurationError if it is missing.
        """
        if not copy.authority_file:
            return None
        path = (self.root / copy.authority_file).absolute()
        if not path.exists():
            raise ConfigurationError(f"locked.copies.authority_file: {path} is missing")
        return path

    def target(self, copy: LockedCopy) -> Target:
        """Return what the conformance probe of a copy attacks."""
        beside = copy.scratch_bucket
        return Target(
            self.bucket(copy),
            self.bucket(copy, beside),
            self.bucket(copy, beside, anonymous=True),
            copy.back_doors,
        )

    def have(self, copy: LockedCopy, *, make: bool) -> None:
        """See that the copy's buckets are there, made if wanted; that of snapshots locks what is put into it at birth.

        Raises: ConfigurationError if one is missing; EndpointError.
        """
        for bucket in (self.bucket(copy), self.bucket(copy, copy.scratch_bucket)):
            if bucket.is_there():
                continue
            if not make:
                raise ConfigurationError(f"{bucket.endpoint}: bucket {bucket.name} is missing: --make-buckets makes it")
            bucket.make()
        if make and copy.snapshots and self.bucket(copy).default_days() < copy.rolling_days:
            with suppress(EndpointRefused):  # such as a bucket without Object Lock: the probe tells it
                self.bucket(copy).set_default_days(copy.rolling_days)

    def verdicts(self, at: datetime) -> dict[str, Permit | Deny]:
        """Return, by the copies' names, whether each may be called compliant at a moment."""
        copies = self.settings.copies
        try:
            key = sealing.read_signing_key(self.root).public_key()
        except ConfigurationError:
            return {copy.name: Deny("never probed") for copy in copies}
        with self.store.connect() as db:
            return {copy.name: probe_log.verdict(db, copy, key, at) for copy in copies}

    def require(self, copy: LockedCopy, at: datetime) -> None:
        """Go on only if a copy may be called compliant.

        Raises: NotCompliant.
        """
        verdict = self.verdicts(at)[copy.name]
        if isinstance(verdict, Deny):
            raise NotCompliant(f"{copy.name} is not compliant: {verdict.reason}")

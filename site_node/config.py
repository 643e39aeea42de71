"""The site's folder and its one TOML file, read once.

Does not create keys (enrolment does) and reads no environment variable.
"""

from __future__ import annotations

import json
import math
import re
import tomllib
from dataclasses import MISSING, dataclass, field, fields, replace
from datetime import timedelta
from typing import TYPE_CHECKING, Any, TypeVar

from consent import COSIGNATURE, CheckpointInvalid, Verifier, parse_verifier
from site_node.deidentify.profile import Dates, Options
from site_node.errors import ConfigurationError

if TYPE_CHECKING:
    from collections.abc import Mapping
    from enum import Enum
    from pathlib import Path

CONFIG_NAME = "site.toml"
KEY_SCHEMES = ("file:", "pkcs11:")
MAX_CONSENT_AGE_H = 8784  # a year: beyond that nobody looks any more
MAX_WITNESSES = 8  # so many cosignatures fit into the note of a receipt, whatever the names
OPTIONS = "deidentify"  # the table of TOML with the options of de-identification

_Settings = TypeVar(
    "_Settings",
    "SiteConfig",
    "ConsentServer",
    "ArchiveSettings",
    "DrillSettings",
    "LockedCopies",
    "LockedCopy",
    "Tiers",
    Options,
)
_TYPES: dict[str, tuple[type, ...]] = {"str": (str,), "int": (int,), "float": (int, float), "bool": (bool,)}
_TEXTS = "tuple[str, ...]"
_NUMBERS = "Mapping[str, int]"
LOCKED = "locked:"  # archive.repository: and the name of a copy of [[locked.copies]] that holds snapshots
MAX_YEARS = 100  # a lock cannot be undone: a slip of the pen must not keep an image for a thousand years
# What a site keeps of images below its own folder, beside the originals that the hospital keeps.
OWN_FOLDERS = ("deidentified", "review", "quarantine", "outbox")
TIER_MODES = ("second-copy", "active-archive", "failover", "production-in-cloud", "complete-cloud")
_GB = 10**9
_CHOICES: dict[str, type[Enum]] = {"Dates": Dates}


@dataclass(frozen=True, slots=True)
class ConsentServer:
    """The FHIR server of the hospital from which a node that serves reads consents; none without an address."""

    fhir_url: str = ""
    interval_min: float = 60.0
    source: str = "fhir"
    token_file: str = ""
    authority_file: str = ""

    def __post_init__(self) -> None:
        """Refuse values no site may run with."""
        if not (math.isfinite(self.interval_min) and self.interval_min > 0):
            raise ConfigurationError("consents.interval_min: must be finite and greater than 0")


@dataclass(frozen=True, slots=True)
class ArchiveSettings:
    """What is archived, where, and how long snapshots are kept; none without a repository."""

    repository: str = ""
    originals: str = ""
    password_file: str = "archive/password"  # noqa: S105 -- where it lies
    recovery_key_file: str = "archive/recovery.key"
    settings_file: str = ""
    mass_files: int = 20
    keep_daily: int = 30
    keep_weekly: int = 13
    keep_monthly: int = 24
    keep_yearly: int = 10

    def __post_init__(self) -> None:
        """Refuse values no site may run with."""
        if re.search(r"//[^/@]*:[^/@]*@", self.repository):
            raise ConfigurationError("archive.repository: must not hold a password; it belongs into settings_file")
        if self.mass_files < 1:
            raise ConfigurationError("archive.mass_files: must be at least 1")
        kept = [getattr(self, f"keep_{name}") for name in ("daily", "weekly", "monthly", "yearly")]
        if min(kept) < 0 or max(kept) == 0:
            raise ConfigurationError("archive.keep_daily and its sisters: none below 0, and not all 0")


def is_safe_endpoint(endpoint: str) -> bool:
    """Return whether nobody on the way hears what an S3 endpoint is told, and the address itself holds no secret."""
    return endpoint.startswith(("https://", "http://127.0.0.1:", "http://localhost:")) and not set("@?# ") & set(
        endpoint
    )


@dataclass(frozen=True, slots=True)
class DrillSettings:
    """How often recovery is drilled, and what it has to keep to; a pause of 0 means never."""

    sample_every_h: float = 24.0
    full_every_h: float = 168.0
    attack_every_h: float = 720.0
    failover_every_h: float = 720.0
    sample_studies: int = 20
    max_rpo_h: float = 26.0
    max_rto_h: float = 24.0
    scratch: str = "drills/scratch"
    batch_files: int = 2000

    def __post_init__(self) -> None:
        """Refuse values no site may run with."""
        for mode in ("sample", "full", "attack", "failover"):
            pause = getattr(self, f"{mode}_every_h")
            if not (math.isfinite(pause) and pause >= 0):
                raise ConfigurationError(f"drills.{mode}_every_h: must be finite and not below 0")
        for key in ("sample_studies", "max_rpo_h", "max_rto_h", "batch_files"):
            value = getattr(self, key)
            if not (math.isfinite(value) and value > 0):
                raise ConfigurationError(f"drills.{key}: must be finite and greater than 0")


@dataclass(frozen=True, slots=True)
class LockedCopy:
    """One bucket that holds locked copies; `domain` names who administers it."""

    name: str
    endpoint: str
    bucket: str
    credentials: str
    domain: str
    region: str = "us-east-1"
    authority_file: str = ""
    probe_bucket: str = ""
    back_doors: tuple[str, ...] = ()
    required: bool = True
    snapshots: bool = False
    rolling_days: int = 30

    @property
    def scratch_bucket(self) -> str:
        """The bucket beside it in which the probe tries what could do harm."""
        return self.probe_bucket or f"{self.bucket}-probe"

    def __post_init__(self) -> None:
        """Refuse values no site may run with."""
        if not is_safe_endpoint(self.endpoint):
            raise ConfigurationError("locked.copies.endpoint: must be https, or this machine")
        if not self.credentials.startswith("file:"):
            raise ConfigurationError("locked.copies.credentials: must be a reference, file:")
        if not 1 <= self.rolling_days <= MAX_YEARS * 365:
            raise ConfigurationError("locked.copies.rolling_days: must be from 1 to the days of a century")
        for key in ("name", "bucket", "domain"):
            if not getattr(self, key).strip():
                raise ConfigurationError(f"locked.copies.{key}: must not be empty")
        if self.scratch_bucket == self.bucket:
            raise ConfigurationError("locked.copies.probe_bucket: must be another bucket than the copies'")


@dataclass(frozen=True, slots=True)
class LockedCopies:
    """How long images are locked, where, and what makes a series protected."""

    years: int = 10
    years_by_modality: Mapping[str, int] = field(default_factory=dict)
    least_days: int = 30
    domains: int = 2
    probe_days: int = 7
    verify_days: int = 90
    copies: tuple[LockedCopy, ...] = ()

    def __post_init__(self) -> None:
        """Refuse values no site may run with."""
        for modality, years in {"": self.years, **self.years_by_modality}.items():
            if not 1 <= years <= MAX_YEARS:
                where = f"years_by_modality.{modality}" if modality else "years"
                raise ConfigurationError(f"locked.{where}: must be from 1 to {MAX_YEARS}")
        for key in ("least_days", "domains", "probe_days", "verify_days"):
            if getattr(self, key) < 1:
                raise ConfigurationError(f"locked.{key}: must be at least 1")
        for told in ([copy.name for copy in self.copies], [(copy.endpoint, copy.bucket) for copy in self.copies]):
            if len(set(told)) < len(told):
                raise ConfigurationError("locked.copies: each has a name and a bucket of its own")


@dataclass(frozen=True, slots=True)
class Tiers:
    """Where images lie in the course of time; without a mode all stay where they are."""

    mode: str = ""
    folder: str = ""
    home: str = "hospital"
    keep_days: int = 0
    max_gb: float = 0.0
    rest_days: int = 7
    lock_days: int = 90

    @property
    def max_bytes(self) -> int:
        """How much the folder may hold, in bytes; 0 is no bound."""
        return round(self.max_gb * _GB)

    def __post_init__(self) -> None:
        """Refuse values no site may run with."""
        if self.mode and self.mode not in TIER_MODES:
            raise ConfigurationError(f"tiers.mode: expected one of {', '.join(TIER_MODES)}")
        if self.mode and not self.folder:
            raise ConfigurationError("tiers.folder: the folder of the originals must be named")
        if not self.home.strip():
            raise ConfigurationError("tiers.home: must not be empty")
        for key in ("keep_days", "max_gb", "rest_days", "lock_days"):
            if not (math.isfinite(getattr(self, key)) and getattr(self, key) >= 0):
                raise ConfigurationError(f"tiers.{key}: must be finite and not below 0")
        if not 1 <= self.lock_days <= MAX_YEARS * 365:
            raise ConfigurationError("tiers.lock_days: must be from 1 to the days of a century")


@dataclass(frozen=True, slots=True)
class SiteConfig:
    """What the hospital decides; each field is described in docs/operating.md."""

    name: str
    minimum_studies: int = 20
    max_consent_age_h: float = 168.0
    training_threads: int = 1
    abort_after_s: float = 2.0
    clock_skew_s: float = 30.0
    patient_system: str = ""
    pseudonym_key: str = "file:identity/pseudonym.key"
    identity_key: str = "file:identity/identities.key"
    witnesses: tuple[str, ...] = ()
    witness_quorum: int = 0
    consents: ConsentServer = field(default_factory=ConsentServer)
    deidentify: Options = field(default_factory=Options)
    archive: ArchiveSettings = field(default_factory=ArchiveSettings)
    drills: DrillSettings = field(default_factory=DrillSettings)
    locked: LockedCopies = field(default_factory=LockedCopies)
    tiers: Tiers = field(default_factory=Tiers)

    @property
    def max_consent_age(self) -> timedelta:
        """How long ago every source of consents may have been read last."""
        return timedelta(hours=self.max_consent_age_h)

    @property
    def witness_verifiers(self) -> tuple[Verifier, ...]:
        """The keys of the witnesses.

        Raises: CheckpointInvalid if one is none.
        """
        return tuple(parse_verifier(witness, COSIGNATURE) for witness in self.witnesses)

    def __post_init__(self) -> None:
        """Refuse values no site may run with."""
        if not self.name.isidentifier():
            raise ConfigurationError(f"name: {self.name!r} must be letters, digits and _")
        for key in ("minimum_studies", "max_consent_age_h", "training_threads", "abort_after_s", "clock_skew_s"):
            value = getattr(self, key)
            if not (math.isfinite(value) and value > 0):
                raise ConfigurationError(f"{key}: must be finite and greater than 0")
        if self.max_consent_age_h > MAX_CONSENT_AGE_H:
            raise ConfigurationError(f"max_consent_age_h: must be at most {MAX_CONSENT_AGE_H}")
        if self.consents.fhir_url and self.consents.interval_min > self.max_consent_age_h * 60:
            raise ConfigurationError("consents.interval_min: longer than max_consent_age_h, so nothing would be recent")
        for key in ("pseudonym_key", "identity_key"):
            if not getattr(self, key).startswith(KEY_SCHEMES):
                raise ConfigurationError(f"{key}: must be a reference, {' or '.join(KEY_SCHEMES)}")
        self._check_witnesses()
        self._check_repository()
        self._check_domains()

    def _check_repository(self) -> None:
        name = self.archive.repository.removeprefix(LOCKED)
        if name != self.archive.repository and name not in {copy.name for copy in self.locked.copies if copy.snapshots}:
            raise ConfigurationError(f"archive.repository: no copy {name!r} with snapshots = true in [[locked.copies]]")

    def _check_domains(self) -> None:
        """Refuse one domain in two spellings: it would count as two, or the hospital's own as a cloud."""
        domains = {copy.domain for copy in self.locked.copies} | ({self.tiers.home} if self.tiers.mode else set())
        if len({domain.strip().casefold() for domain in domains}) < len(domains):
            raise ConfigurationError(
                "locked.copies.domain, tiers.home: two differ in case or blanks alone: are they one?"
            )

    def _check_witnesses(self) -> None:
        try:
            names = {verifier.name for verifier in self.witness_verifiers}
        except CheckpointInvalid as error:
            raise ConfigurationError("witnesses: one is not a verifier key of a witness") from error
        if len(names) < len(self.witnesses) or len(names) > MAX_WITNESSES:
            raise ConfigurationError(f"witnesses: at most {MAX_WITNESSES}, each with a name of its own")
        if not 0 <= self.witness_quorum <= len(names):
            raise ConfigurationError("witness_quorum: must be a number from 0 to that of the witnesses")


@dataclass(frozen=True, slots=True)
class Identity:
    """Who this site is in its federation, and where its keys lie."""

    federation: str
    site: str
    fleet_address: str
    node_id: int
    authority: Path
    tls_certificate: Path
    tls_key: Path
    node_key: Path
    receipt_key: Path


@dataclass(frozen=True, slots=True)
class SiteHome:
    """The site's folder; every path the node writes lies below it."""

    root: Path

    @property
    def database(self) -> Path:
        """The site's SQLite file."""
        return self.root / "site.db"

    @property
    def identity(self) -> Path:
        """Folder of the keys and certificates, mode 0700."""
        return self.root / "identity"

    @property
    def next_receipt_key(self) -> Path:
        """A receipt key that the coordinator may not have yet; there only while it changes."""
        return self.root / "identity" / "receipt.key.next"

    @property
    def pseudonym_key(self) -> Path:
        """The key behind every pseudonym; 32 random bytes, mode 0600."""
        return self.root / "identity" / "pseudonym.key"

    @property
    def work(self) -> Path:
        """Scratch of the round in progress; emptied when the round ends."""
        return self.root / "work"

    @property
    def outbox(self) -> Path:
        """Arrays of releases that were committed and not yet handed over."""
        return self.root / "outbox"

    def load_config(self) -> SiteConfig:
        """Read site.toml.

        Raises: ConfigurationError naming the key that is unknown, missing or of the wrong type.
        """
        document = _read_toml(self.root / CONFIG_NAME)
        tables = {
            "consents": _parse(ConsentServer, _table(document, "consents"), "consents."),
            "deidentify": _parse(Options, _table(document, "deidentify"), "deidentify."),
            "archive": _parse(ArchiveSettings, _table(document, "archive"), "archive."),
            "drills": _parse(DrillSettings, _table(document, "drills"), "drills."),
            "locked": _parse_locked(_table(document, "locked")),
            "tiers": _parse(Tiers, _table(document, "tiers"), "tiers."),
        }
        return _parse(SiteConfig, {**document, **tables} if "name" in document else document)

    def load_identity(self) -> Identity:
        """Return this site's membership.

        Raises: ConfigurationError if the site has not joined a federation yet, or the file is damaged.
        """
        path = self.identity / "membership.json"
        if not path.exists():
            raise ConfigurationError("this site has not joined a federation: run `filmroom-site join INVITATION`")
        try:
            return Identity(
                **json.loads(path.read_bytes()),
                authority=self.identity / "authority.pem",
                tls_certificate=self.identity / "tls.pem",
                tls_key=self.identity / "tls.key",
                node_key=self.identity / "node.key",
                receipt_key=self.identity / "receipt.key",
            )
        except (TypeError, ValueError) as error:
            raise ConfigurationError(f"{path} is damaged: restore it from a backup") from error


def _read_toml(path: Path) -> dict[str, object]:
    try:
        return tomllib.loads(path.read_text())
    except FileNotFoundError:
        raise ConfigurationError(
            f"{path} is missing: run `filmroom-site init` or name the folder with --home"
        ) from None
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise ConfigurationError(f"{path} is not TOML: {error}") from error


def _table(document: dict[str, object], name: str) -> dict[str, object]:
    table = document.pop(name, {})
    if not isinstance(table, dict):
        raise ConfigurationError(f"{CONFIG_NAME}: {name}: expected a table, [{name}]")
    return table


def _parse_locked(document: dict[str, object]) -> LockedCopies:
    copies = document.pop("copies", [])
    if not isinstance(copies, list) or not all(isinstance(copy, dict) for copy in copies):
        raise ConfigurationError(f"{CONFIG_NAME}: locked.copies: expected tables, [[locked.copies]]")
    parsed = tuple(_parse(LockedCopy, copy, "locked.copies.") for copy in copies)
    return replace(_parse(LockedCopies, document, "locked."), copies=parsed)


def _parse(kind: type[_Settings], document: dict[str, object], prefix: str = "") -> _Settings:
    known = {field.name: str(field.type) for field in fields(kind)}
    for key in document:
        if key not in known:
            told = ", ".join(known)
            raise ConfigurationError(f"{CONFIG_NAME}: unknown key {prefix + key!r}; known are {told}")
    for one in fields(kind):
        if one.name not in document and one.default is MISSING and one.default_factory is MISSING:
            raise ConfigurationError(f"{CONFIG_NAME}: key {prefix + one.name!r} is missing")
    values: dict[str, Any] = {key: _value(prefix + key, value, known[key]) for key, value in document.items()}
    return kind(**values)


def _value(key: str, value: object, expected: str) -> object:
    """Return a value of TOML as the type that a field has."""
    if expected in _CHOICES:
        choices = [choice.value for choice in _CHOICES[expected]]
        if value not in choices:
            raise ConfigurationError(f"{CONFIG_NAME}: {key}: expected one of {', '.join(choices)}")
        return _CHOICES[expected](value)
    if expected == _TEXTS:
        if not isinstance(value, list) or not all(isinstance(one, str) for one in value):
            raise ConfigurationError(f"{CONFIG_NAME}: {key}: expected a list of texts")
        return tuple(value)
    if expected == _NUMBERS:
        if not isinstance(value, dict) or not all(type(one) is int for one in value.values()):
            raise ConfigurationError(f"{CONFIG_NAME}: {key}: expected a table of numbers")
        return value
    if expected in _TYPES and (
        not isinstance(value, _TYPES[expected]) or isinstance(value, bool) != (expected == "bool")
    ):
        raise ConfigurationError(f"{CONFIG_NAME}: {key}: expected {expected}")
    return value

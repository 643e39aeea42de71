"""The report of a drill: what was restored, shown and compared, how long it took, what was wrong; signed by the site.

Holds counts, times and digests; no patient, study or path. A report without problems is one of a drill that passed.
"""

from __future__ import annotations

from enum import StrEnum
from typing import TYPE_CHECKING, Annotated, Final, Self

from pydantic import AwareDatetime, Field, model_validator

from consent.errors import StatementInvalid
from consent.statement import Claim, Count, Sha256, StatementForm, Text

if TYPE_CHECKING:
    from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey, Ed25519PublicKey

REPORT_TYPE: Final = "https://filmroom.org/recovery-drill/v1"
MAX_REPORT_BYTES: Final = 65_536
MAX_PROBLEMS: Final = 64
NO_SNAPSHOT: Final = "0" * 64


class Mode(StrEnum):
    """The kinds of drills."""

    SAMPLE = "sample"
    FULL = "full"
    ATTACK = "attack"
    FAILOVER = "failover"


class ReportInvalid(StatementInvalid):
    """A report is not one, or was not signed by the site."""


class Stage(Claim):
    """A part of the recovery, and how long it took."""

    name: Text
    ms: Count


class Studies(Claim):
    """How many studies the snapshot has and how many were drawn, by which word.

    With 95 % confidence at most `may_be_lost` of all are lost if none of the drawn is.
    """

    total: Count
    drawn: Count
    nonce: Text
    may_be_lost: Count


class Files(Claim):
    """What came of the files of the drawn studies.

    `proved`: header and decoded pixels came out of the PACS as archived. `digest_only`: restored to the byte, and not
    to be shown: no DICOM, damaged or of no known codec when it was archived, or of a transfer syntax the PACS does not
    take. `refused`: restored to the byte, and the PACS says that it cannot read it, or breaks off at it.
    `missing`: not restored, or lost by the PACS. `bad`: came out as another than was archived. `size` is in bytes.
    """

    archived: Count
    proved: Count
    digest_only: Count
    refused: Count
    missing: Count
    bad: Count
    size: Count


class Rebuilt(Claim):
    """What a site rebuilt from the snapshot proved to be."""

    keys: bool
    """Unwrapped, and the ones this site signs and is known with."""
    database: bool
    """Whole, and its record the beginning of that of the running site."""
    replay: bool
    """The auditor's replay of its own record finds no fault."""
    consents: bool
    """Decides for every approved task as the running site does, as far as it knows the same consents."""
    federation: bool
    """The coordinator answers it as a member."""
    records_behind: Count
    """Consent records that the running site has beyond it: to be loaded again after a recovery."""


class DrillReport(Claim):
    """One drill. `manifest` is the SHA-256 of what the snapshot says it holds; `rto_ms` is the sum of the stages."""

    federation: Text
    site: Text
    mode: Mode
    started_at: AwareDatetime
    ended_at: AwareDatetime
    snapshot: Text
    snapshot_at: AwareDatetime | None
    manifest: Sha256
    rpo_s: Count
    rto_ms: Count
    stages: tuple[Stage, ...]
    studies: Studies
    files: Files
    refused: Annotated[tuple[Sha256, ...], Field(max_length=MAX_PROBLEMS)]
    """Digests of files that the PACS cannot read: a real recovery needs another way for them."""
    rebuilt: Rebuilt | None
    problems: Annotated[tuple[Text, ...], Field(max_length=MAX_PROBLEMS)]
    software: Text

    @property
    def passed(self) -> bool:
        """Whether nothing was wrong."""
        return not self.problems

    @model_validator(mode="after")
    def _says_what_it_counts(self) -> Self:
        """Refuse a report that hides what its own counts tell."""
        files = self.files
        accounted = files.proved + files.digest_only + files.refused + files.missing + files.bad
        if self.passed and (files.missing or files.bad or accounted != files.archived):
            raise ValueError("files are missing, bad or not accounted for, and no problem is told")
        if self.rto_ms != sum(stage.ms for stage in self.stages):
            raise ValueError("rto_ms is not the sum of the stages")
        return self


_FORM: Final = StatementForm(
    REPORT_TYPE,
    DrillReport,
    subject="manifest",
    subjects=lambda report: [report.manifest],
    predicate=lambda report: report.model_dump(mode="json", exclude={"manifest"}),
    fields=lambda statement: {**statement["predicate"], "manifest": statement["subject"][0]["digest"]["sha256"]},
    refused=ReportInvalid,
)


def sign_report(report: DrillReport, key: Ed25519PrivateKey) -> bytes:
    """Return the signed envelope of `report`; `key` is the site's receipt key."""
    return _FORM.sign(report, key)


def open_report(envelope: bytes, key: Ed25519PublicKey) -> DrillReport:
    """Return the report in `envelope`, if the holder of `key` signed it.

    Raises: ReportInvalid, as `StatementForm.open` says.
    """
    return _FORM.open(envelope, key, MAX_REPORT_BYTES)

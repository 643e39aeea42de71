"""What a patient permitted and refused, as plain values.

Knows no exchange format; `fhir` reads one. Decides nothing; `decision` does.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from datetime import UTC, date, datetime, time, timedelta
from enum import Enum, IntEnum

from consent.purpose import MLTRAINING, PURPOSES

UNRESOLVED = ""
"""Stands in a provision's lists for an entry nobody here can interpret."""


LIMITS = (
    "period",
    "purposes",
    "recipients",
    "projects",
    "actions",
    "data_period",
    "data_references",
    "modalities",
    "security_labels",
    "unknown",
)
"""The fields of a provision that narrow it."""


class Kind(Enum):
    """The two things a provision can say."""

    PERMIT = "permit"
    DENY = "deny"


class Outcome(Enum):
    """What consent says; only PERMIT trains."""

    PERMIT = "permit"
    DENY = "deny"
    NO_CONSENT = "no-consent"
    REVIEW = "review"


class Scope(Enum):
    """What a consent is about."""

    RESEARCH = "research"
    PRIVACY = "privacy"
    OTHER = "other"


class Match(IntEnum):
    """Whether something applies; the smaller of two is both, the larger is either."""

    NO = 0
    UNKNOWN = 1
    YES = 2


@dataclass(frozen=True, slots=True)
class Period:
    """From `start` to `end`, both included; an absent bound is open.

    Units: timezone-aware; `end` is the last instant that belongs to the period.
    """

    start: datetime | None = None
    end: datetime | None = None

    def __post_init__(self) -> None:
        """Refuse a bound without a time zone and a period that ends before it starts."""
        if any(bound is not None and bound.tzinfo is None for bound in (self.start, self.end)):
            raise ValueError("a period's bounds need a time zone")
        if self.start is not None and self.end is not None and self.end < self.start:
            raise ValueError("a period ends before it starts")

    def contains(self, at: datetime) -> bool:
        """Whether `at` lies inside."""
        return (self.start is None or self.start <= at) and (self.end is None or at <= self.end)

    def contains_day(self, day: date | None) -> Match:
        """Whether all of `day` (UTC) lies inside; unknown if a part does or no day is given."""
        if day is None:
            return Match.UNKNOWN
        first = datetime.combine(day, time(), UTC)
        last = first + timedelta(days=1, microseconds=-1)
        if (self.start and last < self.start) or (self.end and self.end < first):
            return Match.NO
        return Match.YES if self.contains(first) and self.contains(last) else Match.UNKNOWN


@dataclass(frozen=True, slots=True)
class Provision:
    """One thing permitted or refused, and the exceptions to it.

    An empty list sets no limit. Entries of one list are alternatives; the lists together must all
    apply. `projects` limit the research it is used in; `data_period` limits the date of the study;
    `data_references` are StudyInstanceUIDs, `modalities` DICOM modality codes;
    `security_labels` are HL7 confidentiality or sensitivity codes. `unknown` tells that the source
    holds a further limit that could not be interpreted.
    """

    kind: Kind
    period: Period | None = None
    purposes: tuple[str, ...] = ()
    recipients: tuple[str, ...] = ()
    projects: tuple[str, ...] = ()
    actions: tuple[str, ...] = ()
    data_period: Period | None = None
    data_references: tuple[str, ...] = ()
    modalities: tuple[str, ...] = ()
    security_labels: tuple[str, ...] = ()
    children: tuple[Provision, ...] = ()
    unknown: bool = False
    limits: tuple[str, ...] = field(init=False, repr=False, compare=False)
    names_recipient: bool = field(init=False, repr=False, compare=False)
    names_training: bool = field(init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        """Note which limits are set, and whether recipient or training matter anywhere below."""
        object.__setattr__(self, "limits", tuple(n for n in LIMITS if getattr(self, n)))
        recipient = bool(self.recipients) or any(c.names_recipient for c in self.children)
        training = MLTRAINING in self.purposes or any(c.names_training for c in self.children)
        object.__setattr__(self, "names_recipient", recipient)
        object.__setattr__(self, "names_training", training)

    @property
    def has_unknown_purpose(self) -> bool:
        """Whether a listed purpose is none of the known ones."""
        return not PURPOSES.issuperset(self.purposes)


@dataclass(frozen=True, slots=True)
class Clause:
    """Policies of a broad consent that were permitted or refused together.

    `policies` are their numbers in the code system; `unknown` tells that the source holds a limit a
    broad consent has not.
    """

    kind: Kind
    policies: tuple[str, ...]
    period: Period | None = None
    unknown: bool = False


@dataclass(frozen=True, slots=True)
class ConsentRecord:
    """One consent of one patient.

    `status` is the source's word. `review` is the reason why a person has to look before the record
    can count. Where `clauses` is set the consent is a broad one, and they say all it says.
    """

    consent_id: str
    status: str
    dated_at: datetime | None
    period: Period | None
    root: Provision
    scope: Scope = Scope.PRIVACY
    review: str | None = None
    clauses: tuple[Clause, ...] | None = None

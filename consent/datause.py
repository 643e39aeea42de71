"""Whether a research purpose keeps to a dataset's terms of use (Data Use Ontology, DUO).

What the facts at hand cannot decide is left to people (MANUAL). Codes are compared as they stand:
the ontology makes NPU and NCU kinds of NPUNCU, which inverts their strictness. No ontology of
diseases is included: whether one that is not named is a kind of one that is, people decide.

Source: DUO release 2021-02-23 (EBISPOT/DUO, CC-BY-4.0); matching after DUOS v4 and REMS.
"""

from __future__ import annotations

import calendar
from dataclasses import dataclass, replace
from datetime import date
from enum import Enum, IntEnum
from types import MappingProxyType
from typing import TYPE_CHECKING, Annotated, Final

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from consent.errors import DataUseInvalid

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping
    from datetime import datetime

PERMISSIONS: Final = MappingProxyType(
    {
        "DUO:0000004": "NRES",
        "DUO:0000006": "HMB",
        "DUO:0000007": "DS",
        "DUO:0000011": "POA",
        "DUO:0000042": "GRU",
    }
)
"""Primary permissions; a dataset has exactly one."""

MODIFIERS: Final = MappingProxyType(
    {
        "DUO:0000012": "RS",
        "DUO:0000015": "NMDS",
        "DUO:0000016": "GSO",
        "DUO:0000018": "NPUNCU",
        "DUO:0000019": "PUB",
        "DUO:0000020": "COL",
        "DUO:0000021": "IRB",
        "DUO:0000022": "GS",
        "DUO:0000024": "MOR",
        "DUO:0000025": "TS",
        "DUO:0000026": "US",
        "DUO:0000027": "PS",
        "DUO:0000028": "IS",
        "DUO:0000029": "RTN",
        "DUO:0000043": "CC",
        "DUO:0000044": "NPOA",
        "DUO:0000045": "NPU",
        "DUO:0000046": "NCU",
    }
)
"""Further conditions, each on top of the permission."""

ABSTRACT: Final = MappingProxyType({"DUO:0000001": "data use permission", "DUO:0000017": "data use modifier"})
"""Headings of the ontology with their labels, not to be assigned to a dataset."""

LABELS: Final = MappingProxyType(
    {
        "CC": "clinical care use",
        "COL": "collaboration required",
        "DS": "disease specific research",
        "GRU": "general research use",
        "GS": "geographical restriction",
        "GSO": "genetic studies only",
        "HMB": "health or medical or biomedical research",
        "IRB": "ethics approval required",
        "IS": "institution specific restriction",
        "MOR": "publication moratorium",
        "NCU": "non-commercial use only",
        "NMDS": "no general methods research",
        "NPOA": "population origins or ancestry research prohibited",
        "NPU": "not for profit organisation use only",
        "NPUNCU": "not for profit, non commercial use only",
        "NRES": "no restriction",
        "POA": "population origins or ancestry research only",
        "PS": "project specific restriction",
        "PUB": "publication required",
        "RS": "research specific restrictions",
        "RTN": "return to database or resource",
        "TS": "time limit on use",
        "US": "user specific restriction",
    }
)
"""What each shorthand stands for, in the ontology's words."""

RELEASE: Final = "2021-02-23"
ATTRIBUTION: Final = f"Data Use Ontology (DUO), release {RELEASE}, GA4GH and EBISPOT/DUO, CC BY 4.0"

MAX_MONTHS: Final = 1200
"""A longer time limit is taken for a mistake and left to people."""


class DataUseDecision(IntEnum):
    """What the terms say; the strictest of several answers counts."""

    APPROVE = 0
    MANUAL = 1
    DENY = 2


class ResearchKind(Enum):
    """What the research is about, or that it is none."""

    HEALTH = "health"
    GENERAL = "general"
    NONE = "none"


@dataclass(frozen=True, slots=True)
class Modifier:
    """One condition: a DUO shorthand, or a code unknown here, and its values."""

    code: str
    values: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class DataUse:
    """A dataset's terms: one permission (DUO shorthand), its diseases (MONDO) and its modifiers."""

    permission: str
    diseases: tuple[str, ...] = ()
    modifiers: tuple[Modifier, ...] = ()

    def expiry(self, granted_at: datetime) -> datetime | None:
        """Return when a grant made at `granted_at` ends under the time limit (TS), if one is set.

        Units: a TS value is a number of months; a day the last month has not becomes its last day.
        """
        months = [n for m in self.modifiers if m.code == "TS" and (n := _months(m)) is not None]
        return _add_months(granted_at, min(months)) if months else None


@dataclass(frozen=True, slots=True)
class ResearchPurpose:
    """What an applicant stated; None and an empty list mean that it was not stated.

    Building an algorithm is methods development, which is why it has no default. `countries`,
    `institutions` and `users` are those of every participant, the coordinator included (ISO 3166
    alpha-3 for countries).
    """

    kind: ResearchKind | None
    methods_development: bool | None
    diseases: tuple[str, ...] = ()
    ancestry: bool | None = False
    clinical_care: bool | None = False
    genetic: bool | None = None
    commercial: bool | None = None
    for_profit: bool | None = None
    countries: tuple[str, ...] = ()
    institutions: tuple[str, ...] = ()
    users: tuple[str, ...] = ()
    projects: tuple[str, ...] = ()
    topics: tuple[str, ...] = ()
    ethics_approved_until: date | None = None
    will_publish: bool | None = None
    publishes_from: date | None = None
    collaboration_signed: bool | None = None
    returns_data: bool | None = None


@dataclass(frozen=True, slots=True)
class TermAnswer:
    """What one term says, and why it does not approve."""

    code: str
    decision: DataUseDecision
    why: str = ""


@dataclass(frozen=True, slots=True)
class DataUseVerdict:
    """The decision, and what each term says."""

    decision: DataUseDecision
    terms: tuple[TermAnswer, ...]

    @property
    def reasons(self) -> tuple[str, ...]:
        """A line for each term that did not approve."""
        return tuple(f"{t.code}: {t.decision.name.lower()}, {t.why}" for t in self.terms if t.decision)


# ------------------------------------------------------------------ reading


class _StrictModel(BaseModel):
    model_config = ConfigDict(strict=True, extra="forbid", frozen=True)


_Text = Annotated[str, Field(min_length=1, max_length=256)]


class _ModifierForm(_StrictModel):
    code: _Text
    values: list[_Text] = []


class _DataUseForm(_StrictModel):
    permission: _Text
    diseases: list[_Text] = []
    modifiers: list[_ModifierForm] = []


def parse_data_use(document: Mapping[str, object]) -> DataUse:
    """Read `{permission, diseases, modifiers: [{code, values}]}`; codes as `DUO:…` or shorthand.

    Raises: DataUseInvalid if the form is wrong or there is not exactly one primary permission.
    """
    try:
        form = _DataUseForm.model_validate(dict(document))
    except ValidationError as error:
        fields = {".".join(map(str, fault["loc"])) for fault in error.errors()}
        raise DataUseInvalid(f"terms of use: wrong or unknown: {', '.join(sorted(fields))}") from None
    permission = _shorthand(form.permission)
    modifiers = tuple(Modifier(_shorthand(m.code), tuple(m.values)) for m in form.modifiers)
    if permission in MODIFIERS.values():
        raise DataUseInvalid(f"permission: {permission} is a modifier")
    for modifier in modifiers:
        if modifier.code in PERMISSIONS.values():
            raise DataUseInvalid(f"modifiers: {modifier.code} is a second primary permission")
    if not ABSTRACT.keys().isdisjoint([permission, *(m.code for m in modifiers)]):
        raise DataUseInvalid("an abstract code cannot be assigned to a dataset")
    return DataUse(permission, tuple(form.diseases), modifiers)


def _shorthand(code: str) -> str:
    """Return the shorthand of a code, which may be written as the ontology's files do."""
    code = code.removeprefix(_IRI)
    code = f"DUO:{code[4:]}" if code.startswith("DUO_") else code
    # The OWL file of this release has one digit too many in NPOA.
    code = "DUO:0000044" if code == "DUO:00000044" else code
    return PERMISSIONS.get(code) or MODIFIERS.get(code) or code


_IRI: Final = "http://purl.obolibrary.org/obo/"


# ------------------------------------------------------------------ matching


def match_data_use(
    use: DataUse,
    purpose: ResearchPurpose,
    at: datetime,
) -> DataUseVerdict:
    """Compare `purpose` with every term of `use`; all have to approve."""
    case = _Case(use, purpose, at)
    answers = {use.permission: _PERMISSION_RULES.get(use.permission, _unknown)(case)}
    for modifier in use.modifiers:
        rule = _MODIFIER_RULES.get(modifier.code, _unknown)
        answer = rule(replace(case, values=frozenset(modifier.values)))
        answers[modifier.code] = max(answer, answers.get(modifier.code, answer))
    if purpose.clinical_care is not False and "CC" not in answers:
        answers["CC"] = DataUseDecision.MANUAL
    if purpose.kind is ResearchKind.NONE and use.permission != "NRES":
        answers[use.permission] = max(answers[use.permission], MANUAL)
    terms = [TermAnswer(code, a, _WHY.get((code, a), _WHY_UNKNOWN) if a else "") for code, a in answers.items()]
    return DataUseVerdict(max(answers.values()), tuple(terms))


@dataclass(frozen=True, slots=True)
class _Case:
    use: DataUse
    purpose: ResearchPurpose
    at: datetime
    values: frozenset[str] = frozenset()


APPROVE, MANUAL, DENY = DataUseDecision.APPROVE, DataUseDecision.MANUAL, DataUseDecision.DENY


def _unknown(_case: _Case) -> DataUseDecision:
    return MANUAL


def _approve(_case: _Case) -> DataUseDecision:
    return APPROVE


def _forbidden(stated: bool | None) -> DataUseDecision:  # noqa: FBT001 -- a stated fact, the only argument
    return {None: MANUAL, True: DENY, False: APPROVE}[stated]


def _required(stated: bool | None) -> DataUseDecision:  # noqa: FBT001 -- as above
    return {None: MANUAL, True: APPROVE, False: DENY}[stated]


def _within(stated: Iterable[str], allowed: frozenset[str]) -> DataUseDecision:
    """Approve a stated subset of what is allowed; what is left open is for people."""
    asked = frozenset(stated)
    if not asked or not allowed:
        return MANUAL
    return APPROVE if asked <= allowed else DENY


def _health(case: _Case) -> DataUseDecision:
    if case.purpose.kind is ResearchKind.GENERAL or case.purpose.ancestry:
        return DENY
    return MANUAL if case.purpose.kind is None or case.purpose.ancestry is None else APPROVE


def _disease(case: _Case) -> DataUseDecision:
    if not case.purpose.diseases:
        return DENY if case.purpose.methods_development is False else MANUAL
    # What is not named may be a kind of what is. The ontology does not say whether a disease's origins in a population
    # are research on it.
    named = frozenset(case.purpose.diseases) <= frozenset(case.use.diseases)
    return APPROVE if named and case.purpose.ancestry is False else MANUAL


def _no_methods(case: _Case) -> DataUseDecision:
    if not case.purpose.methods_development:
        return MANUAL if case.purpose.methods_development is None else APPROVE
    return MANUAL if case.use.permission == "DS" and case.purpose.diseases else DENY


def _ethics(case: _Case) -> DataUseDecision:
    until = case.purpose.ethics_approved_until
    if until is None:
        return MANUAL
    return APPROVE if case.at.date() <= until else DENY


def _moratorium(case: _Case) -> DataUseDecision:
    dates = [_date(value) for value in case.values]
    starts = case.purpose.publishes_from
    if starts is None or not dates or None in dates:
        return MANUAL
    return APPROVE if all(d is not None and d <= starts for d in dates) else DENY


def _topics(case: _Case) -> DataUseDecision:
    answer = _within(case.purpose.topics, case.values)
    return APPROVE if answer is APPROVE else MANUAL


def _collaboration(case: _Case) -> DataUseDecision:
    return APPROVE if case.purpose.collaboration_signed else MANUAL


def _time_limit(case: _Case) -> DataUseDecision:
    """Approve: the limit ends the grant (`DataUse.expiry`), if it can be read."""
    return MANUAL if _months(Modifier("TS", tuple(case.values))) is None else APPROVE


_PERMISSION_RULES: Final[dict[str, Callable[[_Case], DataUseDecision]]] = {
    "NRES": _approve,
    "GRU": _approve,
    "HMB": _health,
    "DS": _disease,
    "POA": lambda case: _required(case.purpose.ancestry),
}
_MODIFIER_RULES: Final[dict[str, Callable[[_Case], DataUseDecision]]] = {
    "CC": _approve,
    "COL": _collaboration,
    "GS": lambda case: _within(case.purpose.countries, case.values),
    "GSO": lambda case: _required(case.purpose.genetic),
    "IRB": _ethics,
    "IS": lambda case: _within(case.purpose.institutions, case.values),
    "MOR": _moratorium,
    "NCU": lambda case: _forbidden(case.purpose.commercial),
    "NMDS": _no_methods,
    "NPOA": lambda case: _forbidden(case.purpose.ancestry),
    "NPU": lambda case: _forbidden(case.purpose.for_profit),
    "NPUNCU": lambda case: max(_forbidden(case.purpose.commercial), _forbidden(case.purpose.for_profit)),
    "PS": lambda case: _within(case.purpose.projects, case.values),
    "PUB": lambda case: _required(case.purpose.will_publish),
    "RS": _topics,
    "RTN": lambda case: _required(case.purpose.returns_data),
    "TS": _time_limit,
    "US": lambda case: _within(case.purpose.users, case.values),
}


_NOT_STATED: Final = "not stated, or nothing to compare it with"
_WHY: Final = {
    ("CC", MANUAL): "use for care is not excluded, and these terms do not name it",
    ("COL", MANUAL): "no signed agreement to collaborate is stated",
    ("DS", DENY): "no disease is stated",
    ("DS", MANUAL): "whether a disease studied is a kind of the dataset's is for people to decide, and so are methods"
    " without a disease, ancestry beside it and use that is no research",
    ("GRU", MANUAL): "the use is no research",
    ("GS", DENY): "a participant is in another country",
    ("GS", MANUAL): _NOT_STATED,
    ("GSO", DENY): "the study is not a genetic one",
    ("GSO", MANUAL): _NOT_STATED,
    ("HMB", DENY): "the research is not on health, or is on ancestry",
    ("HMB", MANUAL): "that the research is on health and not on ancestry is not stated",
    ("IRB", DENY): "the ethics approval has ended",
    ("IRB", MANUAL): "no ethics approval is stated",
    ("IS", DENY): "an institution is not among those named",
    ("IS", MANUAL): _NOT_STATED,
    ("MOR", DENY): "publication is planned within the moratorium",
    ("MOR", MANUAL): _NOT_STATED,
    ("NCU", DENY): "the use is commercial",
    ("NCU", MANUAL): _NOT_STATED,
    ("NMDS", DENY): "methods are developed",
    ("NMDS", MANUAL): "methods on a disease the dataset may be for, or not stated",
    ("NPOA", DENY): "ancestry is studied",
    ("NPOA", MANUAL): _NOT_STATED,
    ("NPU", DENY): "a participant is for profit",
    ("NPU", MANUAL): _NOT_STATED,
    ("NPUNCU", DENY): "a participant is for profit, or the use is commercial",
    ("NPUNCU", MANUAL): _NOT_STATED,
    ("POA", DENY): "the research is not on ancestry",
    ("POA", MANUAL): _NOT_STATED,
    ("PS", DENY): "the project is not among those named",
    ("PS", MANUAL): _NOT_STATED,
    ("PUB", DENY): "results will not be published",
    ("PUB", MANUAL): _NOT_STATED,
    ("RS", MANUAL): "whether the topics fit is for a person to say",
    ("RTN", DENY): "derived data will not be returned",
    ("RTN", MANUAL): _NOT_STATED,
    ("TS", MANUAL): "the time limit is no number of months",
    ("US", DENY): "a user is not among those named",
    ("US", MANUAL): _NOT_STATED,
}
"""Why a term does not approve, by its shorthand."""
_WHY_UNKNOWN: Final = "a code that is not known here"


def _date(text: str) -> date | None:
    try:
        return date.fromisoformat(text)
    except ValueError:
        return None


def _months(modifier: Modifier) -> int | None:
    """Return the months of a time limit, if it has one value and that is a positive number."""
    if len(modifier.values) != 1:
        return None
    text = modifier.values[0]
    return int(text) if text.isascii() and text.isdigit() and 0 < int(text) <= MAX_MONTHS else None


def _add_months(start: datetime, months: int) -> datetime:
    years, month = divmod(start.month - 1 + months, 12)
    year = start.year + years
    last_day = calendar.monthrange(year, month + 1)[1]
    return start.replace(year=year, month=month + 1, day=min(start.day, last_day))

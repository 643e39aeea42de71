"""Reads FHIR Consent resources, R4/R4B and R5, into consent records.

Strict: whatever this subset does not know sends the consent to a person's review, since an element
that was passed over could have been the refusal. Does not resolve references, read other resources
or decide. No message holds a value of the resource, only names of elements.

Source: FHIR R4 4.0.1 and R5 5.0.0, Consent; IHE PCF 1.1 (typed root provision, no third level).
"""

from __future__ import annotations

import calendar
import json
import re
from collections import Counter
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import (
    TYPE_CHECKING,
    Annotated,
    Final,
    Literal,
    NoReturn,
    Self,
    TypeAlias,
    TypeVar,
)

from pydantic import (
    AfterValidator,
    BaseModel,
    ConfigDict,
    Field,
    ValidationError,
    model_validator,
)
from pydantic.alias_generators import to_camel

from consent.errors import UnreadableConsent
from consent.purpose import PURPOSES
from consent.record import UNRESOLVED, ConsentRecord, Kind, Period, Provision, Scope

if TYPE_CHECKING:
    from collections.abc import Container, Iterable, Iterator, Mapping, Sequence

MAX_BYTES: Final = 64 * 2**20
"""The largest file read at once: some thirty thousand consents."""
MAX_DEPTH: Final = 32
"""The deepest nesting inside one resource; official examples stay below 12."""

PURPOSE_SYSTEM: Final = "http://terminology.hl7.org/CodeSystem/v3-ActReason"
ACTION_SYSTEM: Final = "http://terminology.hl7.org/CodeSystem/consentaction"
SCOPE_SYSTEM: Final = "http://terminology.hl7.org/CodeSystem/consentscope"
ROLE_SYSTEM: Final = "http://terminology.hl7.org/CodeSystem/v3-ParticipationType"
DICOM_UID_SYSTEM: Final = "urn:dicom:uid"

_SCOPES: Final = {
    "research": Scope.RESEARCH,
    "patient-privacy": Scope.PRIVACY,
    "adr": Scope.OTHER,
    "treatment": Scope.OTHER,
}
ACTIONS: Final = frozenset({"access", "collect", "correct", "disclose", "use"})
_RECIPIENT_ROLES: Final = frozenset({"IRCP", "PRCP"})
_FHIR_ID: Final = re.compile(r"[A-Za-z0-9\-.]{1,64}")
_LOCAL_PATIENT: Final = re.compile(r"Patient/([A-Za-z0-9\-.]{1,64})")
_ELEMENT_NAME: Final = re.compile(r"_?[a-z][A-Za-z]{0,40}")
_PARTIAL_DATE: Final = re.compile(r"(\d{4})(?:-(\d{2})(?:-(\d{2}))?)?", re.ASCII)
_INSTANT: Final = re.compile(r"\d{4}-\d{2}-\d{2}T\d{2}:\d{2}:\d{2}(\.\d{1,9})?(Z|[+-]\d{2}:\d{2})", re.ASCII)
_TYPE_NAME: Final = re.compile(r"[A-Z][A-Za-z]{0,40}")
_FLIPPED: Final = {Kind.PERMIT: Kind.DENY, Kind.DENY: Kind.PERMIT}
_MESSAGES: Final = {
    "extra_forbidden": "unknown element",
    "missing": "required element is absent",
}

_T = TypeVar("_T")
_Entry: TypeAlias = "Mapping[str, object] | UnreadableConsent"


@dataclass(frozen=True, slots=True)
class ParsedConsent:
    """Whose consent it is, and what it says."""

    patient_id: str
    record: ConsentRecord


def parse_consent(resource: Mapping[str, object]) -> ParsedConsent:
    """Read one Consent; what is not fully understood becomes a record with a reason for review.

    Raises: UnreadableConsent if it is no Consent, or has no usable id or patient.
    """
    if resource.get("resourceType") != "Consent":
        raise UnreadableConsent("resourceType: not a Consent")
    consent_id = resource.get("id")
    if not isinstance(consent_id, str) or not _FHIR_ID.fullmatch(consent_id):
        raise UnreadableConsent("id: missing or not a FHIR id")
    release = _R4 if "patient" in resource else _R5
    patient_id = _patient_id(resource.get("patient", resource.get("subject")))
    try:
        record = release.model_validate(dict(resource)).record()
    except ValidationError as error:
        record = _for_review(resource, consent_id, _explain(error))
    return ParsedConsent(patient_id, record)


def split_bundle(data: bytes, max_bytes: int = MAX_BYTES) -> Iterator[tuple[str, _Entry]]:
    """Yield each resource of a Bundle, of NDJSON or of a single resource, under its id or position.

    What is broken is yielded as an UnreadableConsent in its place; nothing is raised. Resources
    that share an id are all broken: which of them holds cannot be told.
    """
    entries = list(_entries(data, max_bytes))
    keys = [None if isinstance(e, UnreadableConsent) else _key(e) for _, e in entries]
    times = Counter(keys)
    for (position, entry), key in zip(entries, keys, strict=True):
        if key is not None and times[key] > 1:
            yield key, UnreadableConsent("id: appears more than once in this file")
        else:
            yield key or position, entry


# ------------------------------------------------------------------ files


def _entries(data: bytes, max_bytes: int) -> Iterator[tuple[str, _Entry]]:
    if len(data) > max_bytes:
        yield "file", UnreadableConsent(f"larger than {max_bytes} bytes")
        return
    lines = [line for line in data.splitlines() if line.strip()]
    if len(lines) > 1 and all(line.lstrip().startswith(b"{") for line in lines):
        for number, line in enumerate(lines, start=1):
            yield f"line {number}", _resource(_load(line))
        return
    document = _load(data)
    if not isinstance(document, dict) or document.get("resourceType") != "Bundle":
        yield "file", _resource(document)
        return
    entries = document.get("entry", [])
    if not isinstance(entries, list):
        yield "file", UnreadableConsent("Bundle.entry: not a list")
        return
    for number, entry in enumerate(entries):
        yield (
            f"entry {number}",
            _resource(entry.get("resource") if isinstance(entry, dict) else entry),
        )


def _load(data: bytes) -> object:
    """Parse JSON without NaN; an object with a doubled name becomes an UnreadableConsent."""
    try:
        document: object = json.loads(data, object_pairs_hook=_unique, parse_constant=_no_constant)
    except (ValueError, RecursionError):
        return UnreadableConsent("not JSON, or nested too deeply")
    return document


def _unique(pairs: list[tuple[str, object]]) -> dict[str, object] | UnreadableConsent:
    document = dict(pairs)
    return document if len(document) == len(pairs) else UnreadableConsent("an element is named twice")


def _no_constant(name: str) -> NoReturn:
    raise ValueError(name)


def _resource(value: object) -> _Entry:
    """Return `value` if it is an object of bounded depth without broken parts."""
    if not isinstance(value, dict):
        absent = UnreadableConsent("resource: missing or not an object")
        return value if isinstance(value, UnreadableConsent) else absent
    level: list[object] = [value]
    for _ in range(MAX_DEPTH):
        broken = [part for part in level if isinstance(part, UnreadableConsent)]
        if broken:
            return broken[0]
        level = [part for parent in level for part in _parts(parent)]
        if not level:
            return value
    return UnreadableConsent(f"nested deeper than {MAX_DEPTH}")


def _parts(value: object) -> Iterable[object]:
    if isinstance(value, dict):
        return value.values()
    return value if isinstance(value, list) else ()


def _key(resource: Mapping[str, object]) -> str | None:
    """Return `type/id`, or nothing if the resource has no id that is safe to show."""
    kind, name = resource.get("resourceType"), resource.get("id")
    if not isinstance(kind, str) or not isinstance(name, str):
        return None
    safe = _TYPE_NAME.fullmatch(kind) and _FHIR_ID.fullmatch(name)
    return f"{kind}/{name}" if safe else None


# ------------------------------------------------------------------ elements


def _first_and_last(text: str) -> tuple[datetime, datetime]:
    """Return the first and the last instant a FHIR date or dateTime stands for.

    Units:  a date has no zone and is taken as UTC.
    Raises: ValueError if `text` is neither.
    """
    if _INSTANT.fullmatch(text):
        instant = datetime.fromisoformat(text)
        return instant, instant if "." in text else instant.replace(microsecond=999_999)
    partial = _PARTIAL_DATE.fullmatch(text)
    if partial is None:
        raise ValueError("not a FHIR date")
    year, month, day = (int(part) if part else None for part in partial.groups())
    first = datetime(year or 0, month or 1, day or 1, tzinfo=UTC)
    last_month = month or 12
    last_day = day or calendar.monthrange(first.year, last_month)[1]
    return first, datetime(first.year, last_month, last_day, 23, 59, 59, 999_999, tzinfo=UTC)


def _check_date(text: str) -> str:
    _first_and_last(text)
    return text


def _check_scope(concept: _Concept) -> _Concept:
    if _scope(concept) is None:
        raise ValueError("not one known scope")
    return concept


class _Element(BaseModel):
    """Any FHIR element: an ordinary extension may be passed over, a modifierExtension may not."""

    model_config = ConfigDict(
        strict=True, extra="forbid", frozen=True, alias_generator=to_camel, protected_namespaces=()
    )

    id: str | None = None
    extension: list[object] = []

    @model_validator(mode="before")
    @classmethod
    def _no_null(cls, value: object) -> object:
        """Refuse null, which JSON has and FHIR has not: it would read as an absent limit."""
        if isinstance(value, dict) and None in value.values():
            raise ValueError("null")
        return value


_Some = Annotated[list[_T], Field(min_length=1)]
_Date = Annotated[str, AfterValidator(_check_date)]


class _Coding(_Element):
    system: str | None = None
    version: str | None = None
    code: str | None = None
    display: str | None = None
    user_selected: bool | None = None


class _Concept(_Element):
    coding: _Some[_Coding] = []
    text: str | None = None


class _Identifier(_Element):
    use: str | None = None
    type: object = None
    system: str | None = None
    value: str | None = None
    period: object = None
    assigner: object = None


class _Reference(_Element):
    reference: str | None = None
    type: str | None = None
    identifier: _Identifier | None = None
    display: str | None = None

    def names(self) -> list[str]:
        """Return what the reference can be compared by: its URL and `system|value`."""
        found = [self.reference] if self.reference and "/" in self.reference[1:] else []
        identifier = self.identifier
        if identifier and identifier.system and identifier.value:
            found.append(f"{identifier.system}|{identifier.value}")
        return found or [UNRESOLVED]


class _Period(_Element):
    start: _Date | None = None
    end: _Date | None = None

    @model_validator(mode="after")
    def _in_order(self) -> Self:
        self.value()
        return self

    def value(self) -> Period:
        """Return the period from the first instant of its start to the last of its end."""
        start = _first_and_last(self.start)[0] if self.start else None
        return Period(start, _first_and_last(self.end)[1] if self.end else None)


class _Actor(_Element):
    role: _Concept | None = None
    reference: _Reference | None = None

    def names(self) -> list[str]:
        """Return the recipient's names; who plays another role may receive too: unresolved."""
        role = _code(self.role.coding, ROLE_SYSTEM, _RECIPIENT_ROLES) if self.role else UNRESOLVED
        return self.reference.names() if role and self.reference else [UNRESOLVED]


class _Data(_Element):
    meaning: Literal["instance", "related", "dependents", "authoredby"]
    reference: _Reference

    def uid(self) -> str:
        """Return the StudyInstanceUID, if it is given and meant by itself."""
        name = self.reference.names()[-1]
        system, _, value = name.partition("|")
        known = self.meaning == "instance" and system == DICOM_UID_SYSTEM
        return value.removeprefix("urn:oid:") if known else UNRESOLVED


class _Narrowing(_Element):
    """What R4 and R5 provisions have in common."""

    period: _Period | None = None
    actor: _Some[_Actor] = []
    action: _Some[_Concept] = []
    security_label: _Some[_Coding] = []
    purpose: _Some[_Coding] = []
    code: _Some[_Concept] = []
    data_period: _Period | None = None
    data: _Some[_Data] = []

    def _limits_content(self) -> bool:
        return bool(self.code)

    def provision(self, kind: Kind, children: Iterable[Provision] = ()) -> Provision:
        """Return the same as a plain value; limits on the kind of content stay unknown."""
        return Provision(
            kind,
            period=self.period.value() if self.period else None,
            purposes=tuple(_code([c], PURPOSE_SYSTEM, PURPOSES) for c in self.purpose),
            recipients=tuple(name for actor in self.actor for name in actor.names()),
            actions=tuple(_code(c.coding, ACTION_SYSTEM, ACTIONS) for c in self.action),
            data_period=self.data_period.value() if self.data_period else None,
            data_references=tuple(data.uid() for data in self.data),
            security_labels=tuple(label.code or UNRESOLVED for label in self.security_label),
            children=tuple(children),
            unknown=self._limits_content(),
        )


def _code(codings: Sequence[_Coding], system: str, known: Container[str]) -> str:
    """Return the one code of `system` if it is known."""
    codes = {coding.code for coding in codings if coding.system == system}
    code = codes.pop() if len(codes) == 1 else None
    return code if code is not None and code in known else UNRESOLVED


def _scope(concept: _Concept) -> Scope | None:
    return _SCOPES.get(_code(concept.coding, SCOPE_SYSTEM, _SCOPES))


# ------------------------------------------------------------------ releases


class _Resource(_Element):
    """What R4 and R5 consents have in common; implicitRules is left out, hence unknown."""

    resource_type: Literal["Consent"]
    id: str
    meta: object = None
    language: str | None = None
    text: object = None
    contained: list[object] = []
    identifier: list[object] = []
    category: _Some[object] = []
    verification: list[object] = []


class _R4Nested(_Narrowing):
    type: Literal["permit", "deny"]
    class_: Annotated[list[object], Field(alias="class", min_length=1)] = []

    def _limits_content(self) -> bool:
        return bool(self.code or self.class_)


class _R4Root(_R4Nested):
    provision_: Annotated[list[_R4Nested], Field(alias="provision", min_length=1)] = []

    def tree(self) -> Provision:
        """Return the root and its exceptions, each with the decision it states."""
        nested = [child.provision(Kind(child.type)) for child in self.provision_]
        return self.provision(Kind(self.type), nested)


class _R4(_Resource):
    status: Literal["draft", "proposed", "active", "rejected", "inactive", "entered-in-error"]
    scope: Annotated[_Concept, AfterValidator(_check_scope)]
    patient: _Reference
    date_time: _Date | None = None
    performer: list[object] = []
    organization: list[object] = []
    source_attachment: object = None
    source_reference: object = None
    policy: list[object] = []
    policy_rule: object = None
    # An untyped root is undecidable: official examples of one shape mean opposite things.
    provision: _R4Root

    def record(self) -> ConsentRecord:
        """Return the consent as a plain value."""
        return ConsentRecord(
            consent_id=self.id,
            status=self.status,
            dated_at=_first_and_last(self.date_time)[0] if self.date_time else None,
            period=None,
            root=self.provision.tree(),
            scope=_scope(self.scope) or Scope.PRIVACY,
        )


class _R5Nested(_Narrowing):
    document_type: _Some[object] = []
    resource_type: _Some[object] = []
    expression: object = None

    def _limits_content(self) -> bool:
        return bool(self.code or self.document_type or self.resource_type or self.expression)


class _R5Rule(_R5Nested):
    provision_: Annotated[list[_R5Nested], Field(alias="provision", min_length=1)] = []

    def tree(self, kind: Kind) -> Provision:
        """Return the rule and its exceptions; the decision flips at each level."""
        return self.provision(kind, [child.provision(_FLIPPED[kind]) for child in self.provision_])


class _R5(_Resource):
    status: Literal["draft", "active", "inactive", "not-done", "entered-in-error", "unknown"]
    subject: _Reference
    date: _Date | None = None
    period: _Period | None = None
    grantor: list[object] = []
    grantee: list[object] = []
    manager: list[object] = []
    controller: list[object] = []
    source_attachment: list[object] = []
    source_reference: list[object] = []
    regulatory_basis: list[object] = []
    policy_basis: object = None
    policy_text: list[object] = []
    decision: Literal["permit", "deny"]
    provision: _Some[_R5Rule] = []

    def record(self) -> ConsentRecord:
        """Return the consent as a plain value."""
        kind = Kind(self.decision)
        rules = tuple(rule.tree(_FLIPPED[kind]) for rule in self.provision)
        return ConsentRecord(
            consent_id=self.id,
            status=self.status,
            dated_at=_first_and_last(self.date)[0] if self.date else None,
            period=self.period.value() if self.period else None,
            root=Provision(kind, children=rules),
        )


# ------------------------------------------------------------------ what is not understood


def _patient_id(patient: object) -> str:
    """Return the identifier's value, else the id of a reference local to this hospital."""
    fields = patient if isinstance(patient, dict) else {}
    identifier = fields.get("identifier")
    value = identifier.get("value") if isinstance(identifier, dict) else None
    if isinstance(value, str) and value.strip():
        return value
    reference = fields.get("reference")
    local = _LOCAL_PATIENT.fullmatch(reference) if isinstance(reference, str) else None
    if local is None:
        raise UnreadableConsent("patient: neither an identifier nor a reference Patient/id")
    return local[1]


def _for_review(resource: Mapping[str, object], consent_id: str, reason: str) -> ConsentRecord:
    """Return a record that keeps only whether it can matter at all: its status and its scope."""
    status = resource.get("status")
    try:
        scope = _scope(_Concept.model_validate(resource.get("scope", {})))
    except ValidationError:
        scope = None
    return ConsentRecord(
        consent_id=consent_id,
        status=status if isinstance(status, str) else "",
        dated_at=None,
        period=None,
        root=Provision(Kind.DENY),
        scope=scope or Scope.PRIVACY,
        review=reason,
    )


def _explain(error: ValidationError) -> str:
    """Name the first element that was not understood, and never its value."""
    first = error.errors(include_input=False, include_context=False, include_url=False)[0]
    path = ".".join(_name(part) for part in first["loc"]) or "Consent"
    return f"{path}: {_MESSAGES.get(first['type'], 'not as the standard says')}"


def _name(part: int | str) -> str:
    return str(part) if isinstance(part, int) or _ELEMENT_NAME.fullmatch(part) else "?"

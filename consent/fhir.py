"""Reads FHIR Consent resources, R4/R4B, R5 and the German Broad Consent, into consent records.

Strict: whatever this subset does not know sends the consent to a person's review, since an element
that was passed over could have been the refusal. Does not resolve references, read other resources
or decide. No message holds a value of the resource, only names of elements.

Source: FHIR R4 4.0.1 and R5 5.0.0, Consent; IHE PCF 1.1 (typed root provision, no third level);
MII profile mii-pr-consent-einwilligung (root deny, policies below it).
"""

from __future__ import annotations

import calendar
import re
from dataclasses import dataclass, replace
from datetime import MAXYEAR, UTC, datetime
from typing import (
    TYPE_CHECKING,
    Annotated,
    Any,
    Final,
    Literal,
    Self,
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

from consent import broad
from consent.errors import UnreadableConsent
from consent.purpose import PURPOSES
from consent.record import UNRESOLVED, Clause, ConsentRecord, Kind, Period, Provision, Scope
from consent.rules import CONFIDENTIALITY

if TYPE_CHECKING:
    from collections.abc import Container, Iterable, Mapping, Sequence

PURPOSE_SYSTEM: Final = "http://terminology.hl7.org/CodeSystem/v3-ActReason"
ACTION_SYSTEM: Final = "http://terminology.hl7.org/CodeSystem/consentaction"
SCOPE_SYSTEM: Final = "http://terminology.hl7.org/CodeSystem/consentscope"
ROLE_SYSTEM: Final = "http://terminology.hl7.org/CodeSystem/v3-ParticipationType"
CATEGORY_SYSTEM: Final = "http://terminology.hl7.org/CodeSystem/consentcategorycodes"
ACT_CODE_SYSTEM: Final = "http://terminology.hl7.org/CodeSystem/v3-ActCode"
CONFIDENTIALITY_SYSTEM: Final = "http://terminology.hl7.org/CodeSystem/v3-Confidentiality"
DICOM_UID_SYSTEM: Final = "urn:dicom:uid"
MODALITY_SYSTEM: Final = "http://dicom.nema.org/resources/ontology/DCM"
PROJECT_SYSTEM: Final = "urn:filmroom:project"
"""System of the identifier by which an actor names a project, in place of a recipient."""
EARLIEST_YEAR: Final = 1900
"""A date before it is taken for a mistake: no consent to the use of images is older than they are."""

_SCOPES: Final = {
    "research": Scope.RESEARCH,
    "patient-privacy": Scope.PRIVACY,
    "adr": Scope.OTHER,
    "treatment": Scope.OTHER,
}
_CATEGORIES: Final = {
    "research": Scope.RESEARCH,
    "acd": Scope.OTHER,
    "dnr": Scope.OTHER,
    "hcd": Scope.OTHER,
    "polst": Scope.OTHER,
}
"""Consent categories that R5 has in place of a scope; directives about care say nothing on research."""
_POLICY_OIDS: Final = frozenset(f"{broad.SYSTEM.removeprefix('urn:oid:')}.{policy}" for policy in broad.POLICIES)
_AGREEING: Final = {"permit": frozenset({"OPTIN"}), "deny": frozenset({"OPTIN", "OPTOUT", "OPTOUTE"})}
"""The policy rules that are known to say nothing else than the root beside them."""
_DIRECTIVES: Final = frozenset({
    "EMRGONLY", "GRANTORCHOICE", "IMPLIED", "IMPLIEDD", "NOCONSENT", "NOPP", "OPTIN", "OPTINR", "OPTOUT", "OPTOUTE",
})  # fmt: skip
"""The consent directives of HL7 v3-ActCode (ActConsentDirective, THO 7.0.1); its other codes name laws or acts."""
ACTIONS: Final = frozenset({"access", "collect", "correct", "disclose", "use"})
_RECIPIENT_ROLES: Final = frozenset({"IRCP", "PRCP"})
FHIR_ID: Final = re.compile(r"[A-Za-z0-9\-.]{1,64}")
_LOCAL_PATIENT: Final = re.compile(r"Patient/([A-Za-z0-9\-.]{1,64})")
_REFERENCED_TYPE: Final = re.compile(r"(?:.*/)?([A-Za-z]+)/[A-Za-z0-9\-.]{1,64}(?:/_history/.*)?", re.DOTALL)
_PATIENT_TYPES: Final = frozenset({None, "Patient", "http://hl7.org/fhir/StructureDefinition/Patient"})
_CURRENT_USES: Final = frozenset({None, "usual", "official", "temp", "secondary"})
_OID: Final = re.compile(r"(?:urn:oid:)?([0-2](?:\.(?:0|[1-9][0-9]*))+)", re.IGNORECASE | re.ASCII)
_MODALITY: Final = re.compile(r"[A-Z][A-Z0-9]{1,15}")
_ELEMENT_NAME: Final = re.compile(r"_?[a-z][A-Za-z]{0,40}")
_LAST: Final = datetime.max.replace(tzinfo=UTC)
_PARTIAL_DATE: Final = re.compile(r"(\d{4})(?:-(\d{2})(?:-(\d{2}))?)?", re.ASCII)
_DATE_AND_TIME: Final = re.compile(r"\d{4}-\d{2}-\d{2}T\d{2}:\d{2}:\d{2}(\.\d{1,9})?(Z|[+-]\d{2}:\d{2})", re.ASCII)
_FLIPPED: Final = {Kind.PERMIT: Kind.DENY, Kind.DENY: Kind.PERMIT}
_MESSAGES: Final = {
    "extra_forbidden": "unknown element",
    "missing": "required element is absent",
}

_T = TypeVar("_T")
_NONE: Any = Field(default_factory=list)  # a list as such would be copied, deeply, for every element


@dataclass(frozen=True, slots=True)
class ParsedConsent:
    """Whose consent it is, what it says, and when this version of it was made (meta.lastUpdated)."""

    patient_id: str
    record: ConsentRecord
    updated_at: datetime | None = None


def parse_consent(resource: Mapping[str, object], patient_system: str = "") -> ParsedConsent:
    """Read one Consent; what is not fully understood becomes a record with a reason for review.

    If `patient_system` is set, the patient has to be named by an identifier of that system.

    Raises: UnreadableConsent if it is no Consent, or has no usable id or patient.
    """
    if resource.get("resourceType") != "Consent":
        raise UnreadableConsent("resourceType: not a Consent")
    consent_id = resource.get("id")
    if not isinstance(consent_id, str) or not FHIR_ID.fullmatch(consent_id):
        raise UnreadableConsent("id: missing or not a FHIR id")
    release = _R4 if "patient" in resource else _R5
    patient = patient_id(resource, patient_system)
    try:
        record = release.model_validate(dict(resource)).record()
        if record.review is None and _is_modified(resource):
            record = replace(record, review="modifierExtension: unknown element")
    except ValidationError as error:
        record = _for_review(resource, consent_id, _explain(error))
    return ParsedConsent(patient, record, updated_at(resource))


# ------------------------------------------------------------------ elements


def _first_and_last(text: str) -> tuple[datetime, datetime]:
    """Return the first and the last instant a FHIR date or dateTime stands for.

    Units:  a date has no zone and is taken as UTC.
    Raises: ValueError if `text` is neither, or before 1900.
    """
    if _DATE_AND_TIME.fullmatch(text):
        instant = datetime.fromisoformat(text)
        if instant.year < EARLIEST_YEAR:
            raise ValueError("too early")
        if instant.year == MAXYEAR:
            # An offset can carry it past the last instant there is, which it then stands for.
            instant = min(instant, _LAST)
        return instant, instant if "." in text else instant.replace(microsecond=999_999)
    partial = _PARTIAL_DATE.fullmatch(text)
    if partial is None:
        raise ValueError("not a FHIR date")
    year, month, day = (int(part) if part else None for part in partial.groups())
    if year is None or year < EARLIEST_YEAR:
        raise ValueError("too early")
    first = datetime(year, month or 1, day or 1, tzinfo=UTC)
    last_month = month or 12
    last_day = day or calendar.monthrange(first.year, last_month)[1]
    return first, datetime(first.year, last_month, last_day, 23, 59, 59, 999_999, tzinfo=UTC)


def _check_date(text: str) -> str:
    _first_and_last(text)
    return text


def _check_verified(verified: bool) -> bool:  # noqa: FBT001 -- a validator's one argument
    """Refuse a consent of which its source says that it is not verified."""
    if not verified:
        raise ValueError("not verified")
    return verified


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
    extension: list[object] = _NONE

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
    coding: _Some[_Coding] = _NONE
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


def _check_patient(reference: _Reference) -> _Reference:
    """Refuse a group or anybody who is no patient, and an identifier that holds no more."""
    referred = _REFERENCED_TYPE.fullmatch(reference.reference or "")
    use = reference.identifier.use if reference.identifier else None
    if reference.type not in _PATIENT_TYPES or (referred and referred[1] != "Patient") or use not in _CURRENT_USES:
        raise ValueError("not a patient, or not as one is known today")
    return reference


_PatientReference = Annotated[_Reference, AfterValidator(_check_patient)]


class _Period(_Element):
    start: _Date | None = None
    end: _Date | None = None

    @model_validator(mode="after")
    def _in_order(self) -> Self:
        if self.start is None and self.end is None:
            raise ValueError("no bound")
        self.value()
        return self

    def value(self) -> Period:
        """Return the period from the first instant of its start to the last of its end."""
        start = _first_and_last(self.start)[0] if self.start else None
        return Period(start, _first_and_last(self.end)[1] if self.end else None)


class _Actor(_Element):
    role: _Concept | None = None
    reference: _Reference | None = None

    def receives(self) -> bool:
        """Whether the actor is a recipient by its role."""
        return bool(self.role and _code(self.role.coding, ROLE_SYSTEM, _RECIPIENT_ROLES))

    def project(self) -> str | None:
        """Return the project the actor names, if it names one and nothing beside it."""
        names = self.reference.names() if self.reference else []
        system, bar, value = names[0].partition("|") if len(names) == 1 else ("", "", "")
        return value if bar and system == PROJECT_SYSTEM else None

    def names(self) -> list[str]:
        """Return the recipient's names; who plays another role may receive too: unresolved."""
        return self.reference.names() if self.receives() and self.reference else [UNRESOLVED]


def _check_actors(actors: list[_Actor]) -> list[_Actor]:
    """Refuse projects beside recipients: the entries are alternatives, so that nobody can tell what is meant."""
    if len({actor.project() is None for actor in actors}) > 1:
        raise ValueError("projects beside recipients")
    return actors


class _Data(_Element):
    meaning: Literal["instance", "related", "dependents", "authoredby"]
    reference: _Reference

    def uid(self) -> str:
        """Return the DICOM UID, if it is given as one (PS3.5 section 9) and meant by itself."""
        name = self.reference.names()[-1]
        system, _, value = name.partition("|")
        uid = _OID.fullmatch(value.strip())
        known = self.meaning == "instance" and system == DICOM_UID_SYSTEM
        return uid[1] if known and uid else UNRESOLVED


class _Narrowing(_Element):
    """What R4 and R5 provisions have in common."""

    period: _Period | None = None
    actor: Annotated[_Some[_Actor], AfterValidator(_check_actors)] = _NONE
    action: _Some[_Concept] = _NONE
    security_label: _Some[_Coding] = _NONE
    purpose: _Some[_Coding] = _NONE
    code: _Some[_Concept] = _NONE
    data_period: _Period | None = None
    data: _Some[_Data] = _NONE

    def _limits_content(self) -> bool:
        return False

    def modalities(self) -> tuple[str, ...]:
        """Return the DICOM modalities the codes name; a code of another system is unresolved."""
        return tuple(_modality(concept.coding) for concept in self.code)

    def provision(self, kind: Kind, children: Iterable[Provision] = ()) -> Provision:
        """Return the same as a plain value; limits on the kind of content stay unknown.

        An actor in another role than the recipient's limits something nobody here can tell.
        """
        projects = [project for actor in self.actor if (project := actor.project()) is not None]
        recipients = [actor for actor in self.actor if actor.project() is None]
        others = kind is Kind.PERMIT and not all(actor.receives() for actor in recipients)
        return Provision(
            kind,
            period=self.period.value() if self.period else None,
            purposes=tuple(_code([c], PURPOSE_SYSTEM, PURPOSES) for c in self.purpose),
            recipients=tuple(name for actor in recipients for name in actor.names()),
            projects=tuple(projects),
            actions=tuple(_code(c.coding, ACTION_SYSTEM, ACTIONS) for c in self.action),
            data_period=self.data_period.value() if self.data_period else None,
            data_references=tuple(data.uid() for data in self.data),
            modalities=self.modalities(),
            security_labels=tuple(map(_label, self.security_label)),
            children=tuple(children),
            unknown=self._limits_content() or others,
        )


def _code(codings: Sequence[_Coding], system: str, known: Container[str]) -> str:
    """Return the one code of `system` if it is known."""
    codes = {coding.code for coding in codings if coding.system == system}
    code = codes.pop() if len(codes) == 1 else None
    return code if code is not None and code in known else UNRESOLVED


def _modality(codings: Sequence[_Coding]) -> str:
    """Return the one DICOM modality the codings name, and nothing beside it."""
    codes = {coding.code if coding.system == MODALITY_SYSTEM else None for coding in codings}
    code = codes.pop() if len(codes) == 1 else None
    return code if code is not None and _MODALITY.fullmatch(code) else UNRESOLVED


def _label(coding: _Coding) -> str:
    """Return a confidentiality or a sensitivity code, each from its own code system."""
    is_rank = coding.code in CONFIDENTIALITY
    system = CONFIDENTIALITY_SYSTEM if is_rank else ACT_CODE_SYSTEM
    return coding.code if coding.code and coding.system == system else UNRESOLVED


def _policy(concept: _Concept) -> str:
    """Return the number of a broad consent's policy."""
    return _code(concept.coding, broad.SYSTEM, _POLICY_OIDS).rpartition(".")[2]


def _category(concepts: Sequence[_Concept]) -> Scope:
    """Return what an R5 consent is about, from categories of R5 and from scopes of R4 used as such."""
    scopes = [_CATEGORIES.get(_code(c.coding, CATEGORY_SYSTEM, _CATEGORIES)) or _scope(c) for c in concepts]
    if Scope.RESEARCH in scopes:
        return Scope.RESEARCH
    return Scope.OTHER if scopes and all(scope is Scope.OTHER for scope in scopes) else Scope.PRIVACY


def _scope(concept: _Concept) -> Scope | None:
    return _SCOPES.get(_code(concept.coding, SCOPE_SYSTEM, _SCOPES))


# ------------------------------------------------------------------ releases


class _Verification(_Element):
    verified: Annotated[bool, AfterValidator(_check_verified)]
    verification_type: object = None
    verified_by: object = None
    verified_with: object = None
    verification_date: object = None


class _Resource(_Element):
    """What R4 and R5 consents have in common; implicitRules is left out, hence unknown."""

    resource_type: Literal["Consent"]
    id: str
    meta: object = None
    language: str | None = None
    text: object = None
    contained: list[object] = _NONE
    identifier: list[object] = _NONE
    category: _Some[_Concept] = _NONE
    verification: list[_Verification] = _NONE


class _R4Nested(_Narrowing):
    type: Literal["permit", "deny"]
    class_: Annotated[list[object], Field(alias="class", min_length=1)] = _NONE

    def _limits_content(self) -> bool:
        return bool(self.class_)

    def names_policy(self) -> bool:
        """Whether a policy of the German Broad Consent is meant."""
        return any(coding.system == broad.SYSTEM for concept in self.code for coding in concept.coding)

    def clause(self) -> Clause:
        """Return the same as a clause of a broad consent, which is limited by policies and a period."""
        return Clause(
            Kind(self.type),
            tuple(map(_policy, self.code)),
            period=self.period.value() if self.period else None,
            unknown=not self.model_fields_set <= {"id", "extension", "type", "period", "code"},
        )


class _R4Root(_R4Nested):
    provision_: Annotated[list[_R4Nested], Field(alias="provision", min_length=1)] = _NONE

    def permits(self) -> bool:
        """Whether the root or an exception to it permits anything."""
        return self.type == "permit" or any(child.type == "permit" for child in self.provision_)

    def tree(self) -> Provision:
        """Return the root and its exceptions, each with the decision it states."""
        nested = [child.provision(Kind(child.type)) for child in self.provision_]
        return self.provision(Kind(self.type), nested)


class _R4(_Resource):
    status: Literal["draft", "proposed", "active", "rejected", "inactive", "entered-in-error"]
    scope: Annotated[_Concept, AfterValidator(_check_scope)]
    patient: _PatientReference
    date_time: _Date | None = None
    performer: list[object] = _NONE
    organization: list[object] = _NONE
    source_attachment: object = None
    source_reference: object = None
    policy: list[object] = _NONE
    policy_rule: _Concept | None = None
    # An untyped root is undecidable: official examples of one shape mean opposite things.
    provision: _R4Root

    def record(self) -> ConsentRecord:
        """Return the consent as a plain value."""
        root = self.provision
        is_broad = self._is_broad()
        return ConsentRecord(
            consent_id=self.id,
            status=self.status,
            dated_at=_first_and_last(self.date_time)[0] if self.date_time else None,
            period=root.period.value() if is_broad and root.period else None,
            root=root.tree(),
            scope=_scope(self.scope) or Scope.PRIVACY,
            review=self._contradiction(is_broad=is_broad),
            clauses=tuple(child.clause() for child in root.provision_) if is_broad else None,
        )

    def _is_broad(self) -> bool:
        """Whether this is a German Broad Consent, by its category or by a policy it names."""
        codes = [coding.code for concept in self.category for coding in concept.coding]
        rules = [self.provision, *self.provision.provision_]
        return broad.CATEGORY in codes or any(rule.names_policy() for rule in rules)

    def _contradiction(self, *, is_broad: bool) -> str | None:
        root = self.provision
        if root.permits():
            if self.policy_rule and not self._agrees(self.policy_rule, is_broad=is_broad):
                return "policyRule: not known to say what provision.type says"
            if _category(self.category) is Scope.OTHER:
                return "category: on care, where provision permits"
        plain = root.type == "deny" and root.model_fields_set <= {"id", "extension", "type", "period", "provision_"}
        if is_broad and not plain:
            return "provision: more than a broad consent has at its root"
        return None

    def _agrees(self, rule: _Concept, *, is_broad: bool) -> bool:
        """Whether the policy rule is known to agree with the root; a broad consent says all it says by its policies."""
        codes = [coding.code if coding.system == ACT_CODE_SYSTEM else None for coding in rule.coding]
        return (is_broad or bool(codes)) and _AGREEING[self.provision.type].issuperset(codes)


class _R5Nested(_Narrowing):
    document_type: _Some[object] = _NONE
    resource_type: _Some[object] = _NONE
    expression: object = None

    def _limits_content(self) -> bool:
        return bool(self.document_type or self.resource_type or self.expression)


class _R5Rule(_R5Nested):
    provision_: Annotated[list[_R5Nested], Field(alias="provision", min_length=1)] = _NONE

    def tree(self, kind: Kind) -> Provision:
        """Return the rule and its exceptions; the decision flips at each level."""
        return self.provision(kind, [child.provision(_FLIPPED[kind]) for child in self.provision_])


class _R5(_Resource):
    status: Literal["draft", "active", "inactive", "not-done", "entered-in-error", "unknown"]
    subject: _PatientReference
    date: _Date | None = None
    period: _Period | None = None
    grantor: list[object] = _NONE
    grantee: list[object] = _NONE
    manager: list[object] = _NONE
    controller: list[object] = _NONE
    source_attachment: list[object] = _NONE
    source_reference: list[object] = _NONE
    regulatory_basis: _Some[_Concept] = _NONE
    policy_basis: object = None
    policy_text: list[object] = _NONE
    decision: Literal["permit", "deny"]
    provision: _Some[_R5Rule] = _NONE

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
            scope=_category(self.category),
            review=self._contradiction(),
        )

    def _contradiction(self) -> str | None:
        """Say what contradicts the decision: a consent directive not known to agree with it, as policyRule in R4."""
        bases = (coding for concept in self.regulatory_basis for coding in concept.coding)
        directives = {coding.code for coding in bases if coding.system == ACT_CODE_SYSTEM} & _DIRECTIVES
        permits = self.decision == "permit" or bool(self.provision)
        if permits and not _AGREEING[self.decision].issuperset(directives):
            return "regulatoryBasis: not known to say what decision says"
        return None


# ------------------------------------------------------------------ what is not understood


def patient_id(resource: Mapping[str, object], system: str) -> str:
    """Return the value of the patient's identifier, else the id of a reference local to this hospital.

    With a `system` only an identifier of that system will do.

    Raises: UnreadableConsent if there is none.
    """
    patient = resource.get("patient", resource.get("subject"))
    fields = patient if isinstance(patient, dict) else {}
    identifier = fields.get("identifier")
    named = identifier if isinstance(identifier, dict) and system in ("", identifier.get("system")) else {}
    value = named.get("value")
    if isinstance(value, str) and value.strip():
        return value
    if system:
        raise UnreadableConsent("patient: not named by an identifier of the site's patient_system")
    reference = fields.get("reference")
    local = _LOCAL_PATIENT.fullmatch(reference) if isinstance(reference, str) else None
    if local is None:
        raise UnreadableConsent("patient: neither an identifier nor a reference Patient/id")
    return local[1]


def _is_modified(resource: Mapping[str, object]) -> bool:
    """Whether a modifierExtension stands anywhere, in what is passed over too."""
    parts: list[object] = [resource]
    while parts:
        part = parts.pop()
        if isinstance(part, dict):
            if "modifierExtension" in part:
                return True
            parts.extend(part.values())
        elif isinstance(part, list):
            parts.extend(part)
    return False


def updated_at(resource: Mapping[str, object]) -> datetime | None:
    """Return meta.lastUpdated, if there is one."""
    meta = resource.get("meta")
    return _instant(meta.get("lastUpdated")) if isinstance(meta, dict) else None


def _instant(value: object) -> datetime | None:
    """Return the first instant a date stands for, if `value` is one."""
    try:
        return _first_and_last(value)[0] if isinstance(value, str) else None
    except ValueError:
        return None


def _for_review(resource: Mapping[str, object], consent_id: str, reason: str) -> ConsentRecord:
    """Return a record that keeps only whether it can matter at all: its status, scope and date."""
    status = resource.get("status")
    dated = resource.get("dateTime", resource.get("date"))
    try:
        scope = _scope(_Concept.model_validate(resource.get("scope", {})))
    except ValidationError:
        scope = None
    return ConsentRecord(
        consent_id=consent_id,
        status=status if isinstance(status, str) else "",
        dated_at=_instant(dated),
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

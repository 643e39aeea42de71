"""FHIR consents become records; what is not fully understood goes to review; no value is shown."""

from __future__ import annotations

import copy
import json
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Final

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from consent.bundle import MAX_DEPTH, split_bundle
from consent.decision import Outcome, decide
from consent.errors import UnreadableConsent
from consent.fhir import parse_consent
from consent.record import UNRESOLVED, Kind, Period, Provision, Scope
from tests.consent.records import AT, HUB, REQUEST, STUDY

Json = dict[str, Any]

REASON: Final = "http://terminology.hl7.org/CodeSystem/v3-ActReason"
ACTION: Final = "http://terminology.hl7.org/CodeSystem/consentaction"
SCOPE: Final = "http://terminology.hl7.org/CodeSystem/consentscope"
ROLE: Final = "http://terminology.hl7.org/CodeSystem/v3-ParticipationType"
CONFIDENTIALITY: Final = "http://terminology.hl7.org/CodeSystem/v3-Confidentiality"
ACT_CODE: Final = "http://terminology.hl7.org/CodeSystem/v3-ActCode"
SECRET: Final = "Erika-Mustermann"  # noqa: S105 -- a planted patient value
EXAMPLES: Final = Path(__file__).parents[2].parent / "shared" / "data" / "consent" / "fhir-spec"


def purpose(code: str, system: str = REASON) -> Json:
    return {"system": system, "code": code}


def actor(reference: Json, role: str = "IRCP") -> Json:
    return {"role": {"coding": [{"system": ROLE, "code": role}]}, "reference": reference}


def r4(**changes: Any) -> Json:
    return {
        "resourceType": "Consent",
        "id": "c-1",
        "status": "active",
        "scope": {"coding": [{"system": SCOPE, "code": "patient-privacy"}]},
        "category": [{"coding": [{"system": "http://loinc.org", "code": "57016-8"}]}],
        "patient": {"identifier": {"system": "urn:x", "value": SECRET}},
        "dateTime": "2026-01-01T00:00:00Z",
        "policy": [{"uri": "https://example.org/policy"}],
        "provision": {"type": "permit", "purpose": [purpose("HRESCH")]},
        **changes,
    }


def r5(**changes: Any) -> Json:
    return {
        "resourceType": "Consent",
        "id": "c-1",
        "status": "active",
        "subject": {"reference": "Patient/p1"},
        "date": "2026-01-01",
        "decision": "deny",
        "provision": [{"purpose": [purpose("HRESCH")]}],
        **changes,
    }


def outcome(resource: Json) -> Outcome:
    return decide([parse_consent(resource).record], STUDY, REQUEST, AT).outcome


@pytest.mark.parametrize("resource", [r4(), r5()], ids=["R4", "R5"])
def test_a_plain_permission_of_research_permits(resource: Json) -> None:
    assert outcome(resource) is Outcome.PERMIT


@pytest.mark.parametrize(
    ("patient", "expected"),
    [
        ({"identifier": {"system": "urn:x", "value": "N-1"}}, "N-1"),
        ({"identifier": {"value": "N-1"}, "reference": "Patient/other"}, "N-1"),
        ({"reference": "Patient/f001"}, "f001"),
    ],
)
def test_the_patient_is_the_identifier_or_the_local_reference(patient: Json, expected: str) -> None:
    assert parse_consent(r4(patient=patient)).patient_id == expected
    assert parse_consent(r5(subject=patient)).patient_id == expected


@pytest.mark.parametrize(
    "patient",
    [
        {},
        {"display": SECRET},
        {"reference": f"https://elsewhere.example/fhir/Patient/{SECRET}"},
        {"reference": f"Group/{SECRET}"},
        {"reference": f"urn:uuid:{SECRET}"},
        {"identifier": {"value": " "}},
        SECRET,
        None,
    ],
)
def test_a_consent_without_a_patient_of_this_hospital_is_unreadable(patient: object) -> None:
    with pytest.raises(UnreadableConsent) as caught:
        parse_consent(r4(patient=patient))

    assert SECRET not in str(caught.value)


@pytest.mark.parametrize(
    "patient",
    [
        {"identifier": {"system": "urn:insurer", "value": "N-1"}},
        {"identifier": {"value": "N-1"}},
        {"reference": "Patient/N-1"},
    ],
)
def test_another_number_of_a_patient_is_not_taken_for_the_hospitals(patient: Json) -> None:
    own = {"identifier": {"system": "urn:hospital", "value": "N-1"}}

    assert parse_consent(r4(patient=own), "urn:hospital").patient_id == "N-1"
    with pytest.raises(UnreadableConsent, match="patient_system"):
        parse_consent(r4(patient=patient), "urn:hospital")


@pytest.mark.parametrize(
    "resource",
    [{"resourceType": "Patient", "id": "1"}, {}, r4(id=None), r4(id="a b"), r4(id=7)],
)
def test_what_is_no_consent_with_an_id_is_unreadable(resource: Json) -> None:
    with pytest.raises(UnreadableConsent):
        parse_consent(resource)


def _permit(**limits: Any) -> Json:
    return {"type": "permit", "purpose": [purpose("HRESCH")], **limits}


def _rule(code: str, system: str = ACT_CODE) -> Json:
    return {"coding": [{"system": system, "code": code}]}


PROJECT: Final = actor({"identifier": {"system": "urn:filmroom:project", "value": "brain"}})
DNR: Final = {"system": "http://terminology.hl7.org/CodeSystem/consentcategorycodes", "code": "dnr"}

NOT_UNDERSTOOD: Final = {
    "an unknown element": r4(colour=SECRET),
    "an unknown element with a value for a name": r4(**{SECRET: 1}),
    "an unknown element in a provision": r4(provision=_permit(colour=SECRET)),
    "an unknown element in a coding": r4(provision=_permit(purpose=[{**purpose("HRESCH"), "colour": SECRET}])),
    "modifierExtension": r4(modifierExtension=[{"url": "x"}]),
    "modifierExtension in a provision": r4(provision=_permit(modifierExtension=[{"url": "x"}])),
    "implicitRules": r4(implicitRules="https://example.org"),
    "an untyped root": r4(provision={"purpose": [purpose("HRESCH")]}),
    "an untyped exception": r4(provision=_permit(provision=[{"purpose": [purpose("TREAT")]}])),
    "no provision": {k: v for k, v in r4().items() if k != "provision"},
    "a third level": r4(provision=_permit(provision=[{"type": "deny", "provision": [{"type": "permit"}]}])),
    "an unknown type": r4(provision=_permit(type="maybe")),
    "a type in capitals": r4(provision=_permit(type="Permit")),
    "an unknown status": r4(status=SECRET),
    "no status": {k: v for k, v in r4().items() if k != "status"},
    "an unknown scope": r4(scope={"coding": [{"system": SCOPE, "code": SECRET}]}),
    "two scopes": r4(scope={"coding": [{"system": SCOPE, "code": "adr"}, {"system": SCOPE, "code": "research"}]}),
    "no scope": {k: v for k, v in r4().items() if k != "scope"},
    "a limit that is null": r4(provision=_permit(period=None)),
    "a limit that is empty": r4(provision=_permit(actor=[])),
    "a purpose that is empty": r4(provision=_permit(purpose=[])),
    "a period that ends before it starts": r4(provision=_permit(period={"start": "2026", "end": "2025"})),
    "a date that is none": r4(dateTime="2026-02-30"),
    "a time without zone": r4(provision=_permit(period={"end": "2027-01-01T00:00:00"})),
    "a number for a text": r4(dateTime=2026),
    "R4 and R5 mixed": r4(subject={"reference": "Patient/p1"}),
    "R5 without a decision": {k: v for k, v in r5().items() if k != "decision"},
    "R5 with an unknown decision": r5(decision=SECRET),
    "R5 with a typed provision": r5(provision=[{"type": "permit"}]),
    "R5 with one provision unlisted": r5(provision={"purpose": [purpose("HRESCH")]}),
    "R5 with a third level": r5(provision=[{"provision": [{"provision": [{}]}]}]),
    "R5 with a status of R4": r5(status="proposed2"),
    # Consent.provision.actor: its entries are alternatives (FHIR R5 consent-notes), and a project is no recipient.
    "a project beside a recipient": r4(provision=_permit(actor=[PROJECT, actor({"reference": HUB})])),
    "a project beside a recipient refused": r4(
        provision=_permit(provision=[{"type": "deny", "actor": [actor({"reference": "Organization/9"}), PROJECT]}])
    ),
    # Consent.verification.verified: boolean, 1..1
    "verified as a text": r4(verification=[{"verified": "false"}]),
    "verified as a number": r4(verification=[{"verified": 0}]),
    "verified as a null": r4(verification=[{"verified": None}]),
    "a verification that is a text": r4(verification=["false"]),
    "a verification without its result": r5(verification=[{"verificationDate": ["2026-01-01"]}]),
    "a verification with an unknown element": r5(verification=[{"verified": True, "colour": SECRET}]),
    # Consent.policyRule: "the specific base computable policy"; HL7 v3-ActConsentDirective
    "a policy rule for emergencies": r4(policyRule=_rule("EMRGONLY")),
    "a policy rule in small letters": r4(policyRule=_rule("optin")),
    "a policy rule of another system": r4(policyRule=_rule("OPTIN", "urn:other")),
    "two policy rules": r4(policyRule={"coding": [*_rule("OPTIN")["coding"], *_rule("OPTOUT")["coding"]]}),
    "a policy rule in words": r4(policyRule={"text": SECRET}),
    "a policy rule for emergencies beside a root that denies": r4(
        policyRule=_rule("EMRGONLY"), provision={"type": "deny", "provision": [_permit()]}
    ),
    # Consent.patient: Reference(Patient); Consent.subject (R5): also Practitioner and Group
    "a practitioner": r5(subject={"reference": "Practitioner/1", "identifier": {"value": SECRET}}),
    "a practitioner by a URL": r5(
        subject={"reference": "https://a.example/fhir/Practitioner/1/_history/2", "identifier": {"value": SECRET}}
    ),
    "a group": r5(subject={"type": "Group", "identifier": {"value": SECRET}}),
    # Identifier.use old: "No longer considered valid"
    "an old identifier": r4(patient={"identifier": {"use": "old", "value": SECRET}}),
    # Consent.category (R4): care directives beside a permission of research
    "an order not to resuscitate that permits research": r4(category=[{"coding": [DNR]}]),
    # FHIR ele-1: an element has a value or children; Period says nothing without a bound
    "a period that is empty": r4(provision=_permit(period={})),
    "a period that holds an extension alone": r4(provision=_permit(period={"extension": [{"url": "x"}]})),
    "a period of the data that is empty": r4(provision=_permit(dataPeriod={})),
}


@pytest.mark.parametrize("resource", NOT_UNDERSTOOD.values(), ids=NOT_UNDERSTOOD.keys())
def test_what_is_not_understood_goes_to_review_without_a_value_shown(resource: Json) -> None:
    parsed = parse_consent(resource)

    assert parsed.record.review
    assert SECRET not in parsed.record.review
    assert outcome(resource) is Outcome.REVIEW


def test_the_reason_for_review_names_the_element() -> None:
    record = parse_consent(NOT_UNDERSTOOD["modifierExtension in a provision"]).record

    assert record.review == "provision.modifierExtension: unknown element"


def test_an_ordinary_extension_may_be_passed_over() -> None:
    extension = [{"url": "https://example.org/x", "valueString": "y"}]

    assert outcome(r4(extension=extension, provision=_permit(extension=extension))) is (Outcome.PERMIT)


@pytest.mark.parametrize("scope", ["adr", "treatment"])
def test_a_consent_on_something_else_counts_for_nothing_even_if_unreadable(scope: str) -> None:
    elsewhere = {"coding": [{"system": SCOPE, "code": scope}]}

    assert outcome(r4(scope=elsewhere)) is Outcome.NO_CONSENT
    assert outcome(r4(scope=elsewhere, provision={})) is Outcome.NO_CONSENT


@pytest.mark.parametrize("status", ["inactive", "rejected", "entered-in-error"])
def test_an_inactive_consent_counts_for_nothing_even_if_unreadable(status: str) -> None:
    assert outcome(r4(status=status, colour=1)) is Outcome.NO_CONSENT


def test_the_scope_research_names_the_purpose() -> None:
    research = {"coding": [{"system": SCOPE, "code": "research"}]}
    record = parse_consent(r4(scope=research, provision={"type": "permit"})).record

    assert record.scope is Scope.RESEARCH
    assert decide([record], STUDY, REQUEST, AT).outcome is Outcome.PERMIT


@pytest.mark.parametrize(
    ("text", "last"),
    [
        ("2024", datetime(2024, 12, 31, 23, 59, 59, 999_999, UTC)),
        ("2016-02", datetime(2016, 2, 29, 23, 59, 59, 999_999, UTC)),
        ("2012-02-03", datetime(2012, 2, 3, 23, 59, 59, 999_999, UTC)),
        ("2012-02-03T10:00:00+01:00", datetime(2012, 2, 3, 9, 0, 0, 999_999, UTC)),
        ("2012-02-03T10:00:00.5Z", datetime(2012, 2, 3, 10, 0, 0, 500_000, UTC)),
    ],
)
def test_the_end_of_a_period_is_its_last_instant(text: str, last: datetime) -> None:
    record = parse_consent(r4(provision=_permit(period={"end": text}))).record

    assert record.root.period == Period(None, last)


@pytest.mark.parametrize(
    "text",
    [
        "0000",
        "2024-13",
        "2024-1",
        "24",
        "",
        "2024-01-01T24:00:00Z",
        " 2024",
        "\uff12\uff10\uff12\uff14",
    ],
)
def test_a_date_fhir_does_not_know_goes_to_review(text: str) -> None:
    assert parse_consent(r4(dateTime=text)).record.review == "dateTime: not as the standard says"


def test_each_limit_of_a_provision_is_read() -> None:
    record = parse_consent(
        r4(
            provision={
                "type": "deny",
                "period": {"start": "2020"},
                "purpose": [purpose("HRESCH"), purpose("HRESCH", "urn:other"), purpose("NEW")],
                "actor": [
                    actor({"reference": HUB}, "PRCP"),
                    actor({"identifier": {"system": "urn:x", "value": "north"}}),
                    actor({"reference": HUB}, "CST"),
                    actor({"reference": "#contained"}),
                    actor({"display": "the hub"}),
                ],
                "action": [
                    {"coding": [{"system": ACTION, "code": "use"}]},
                    {"text": "everything"},
                ],
                "dataPeriod": {"end": "2019"},
                "data": [
                    {
                        "meaning": "instance",
                        "reference": {"identifier": {"system": "urn:dicom:uid", "value": "urn:oid:1.2.3"}},
                    },
                    {"meaning": "related", "reference": {"reference": "ImagingStudy/1"}},
                ],
                "securityLabel": [
                    {"system": CONFIDENTIALITY, "code": "R"},
                    {"system": ACT_CODE, "code": "HIV"},
                    {"system": CONFIDENTIALITY, "code": "HIV"},
                    {"code": "R"},
                ],
            }
        )
    ).record

    root = record.root
    assert record.review is None
    assert (root.kind, root.unknown) == (Kind.DENY, False)
    assert root.period == Period(datetime(2020, 1, 1, tzinfo=UTC))
    assert root.purposes == ("HRESCH", UNRESOLVED, UNRESOLVED)
    assert root.recipients == (HUB, "urn:x|north", UNRESOLVED, UNRESOLVED, UNRESOLVED)
    assert root.actions == ("use", UNRESOLVED)
    assert root.data_period == Period(None, datetime(2019, 12, 31, 23, 59, 59, 999_999, UTC))
    assert root.data_references == ("1.2.3", UNRESOLVED)
    assert root.security_labels == ("R", "HIV", UNRESOLVED, UNRESOLVED)


@pytest.mark.parametrize(
    "limit",
    [
        {"class": [{"code": "ImagingStudy"}]},
    ],
)
def test_a_limit_on_the_kind_of_content_is_unknown(limit: Json) -> None:
    assert parse_consent(r4(provision=_permit(**limit))).record.root.unknown


@pytest.mark.parametrize(
    "limit",
    [
        {"documentType": [{"code": "x"}]},
        {"resourceType": [{"code": "ImagingStudy"}]},
        {"expression": {"expression": "true"}},
    ],
)
def test_a_limit_on_the_kind_of_content_is_unknown_in_r5_too(limit: Json) -> None:
    resource = r5(provision=[limit])

    assert parse_consent(resource).record.root.children[0].unknown


def test_in_r5_the_decision_flips_at_each_level() -> None:
    root = parse_consent(r5(provision=[{"provision": [{}]}])).record.root

    assert root.kind is Kind.DENY
    assert root.children[0].kind is Kind.PERMIT
    assert root.children[0].children[0].kind is Kind.DENY


# ------------------------------------------------------------------ traps met in real data


def test_a_valueset_url_in_place_of_a_code_system_refuses_rather_than_permits() -> None:
    mistaken = "http://terminology.hl7.org/ValueSet/v3-PurposeOfUse"
    nested = {"type": "deny", "purpose": [purpose("CLINTRCH", mistaken)]}

    assert outcome(r4(provision=_permit(provision=[nested]))) is Outcome.DENY
    assert outcome(r4(provision=_permit(purpose=[purpose("HRESCH", mistaken)]))) is (Outcome.NO_CONSENT)


def test_a_typed_exception_of_the_same_kind_as_its_root_does_not_flip() -> None:
    nested = {"type": "deny", "actor": [actor({"reference": HUB})]}

    assert outcome(r4(provision={"type": "deny", "provision": [nested]})) is Outcome.DENY


def test_a_permission_below_a_permission_does_not_widen_it() -> None:
    nested = {"type": "permit", "purpose": [purpose("HRESCH")]}
    root = {"type": "permit", "purpose": [purpose("TREAT")], "provision": [nested]}

    assert outcome(r4(provision=root)) is Outcome.NO_CONSENT


def _examples(release: str) -> list[Json]:
    paths = sorted((EXAMPLES / release).glob("*.json"))
    if not paths:
        pytest.skip(f"the official examples are not at {EXAMPLES}")
    return [json.loads(path.read_text()) for path in paths]


@pytest.mark.parametrize("release", ["r4", "r4b"])
def test_eleven_of_twelve_official_r4_examples_are_undecidable(release: str) -> None:
    reasons = [parse_consent(example).record.review for example in _examples(release)]

    assert len(reasons) == 12
    assert reasons.count("provision.type: required element is absent") == 11


@pytest.mark.parametrize("release", ["r4", "r4b", "r5"])
def test_no_official_example_permits_research(release: str) -> None:
    assert Outcome.PERMIT not in [outcome(example) for example in _examples(release)]


def test_every_official_r5_example_is_understood() -> None:
    assert [parse_consent(e).record.review for e in _examples("r5")] == [None] * 12


def test_an_opt_out_that_permits_contradicts_itself() -> None:
    dissent = {"coding": [{"system": ACT_CODE, "code": "OPTOUT"}]}
    record = parse_consent(r4(policyRule=dissent)).record

    assert record.review == "policyRule: not known to say what provision.type says"
    assert outcome(r4(policyRule=dissent, provision={"type": "deny"})) is Outcome.DENY
    assert outcome(r4(policyRule={"coding": [{"system": ACT_CODE, "code": "OPTIN"}]})) is Outcome.PERMIT


@pytest.mark.parametrize(
    ("decision", "system", "code", "review"),
    [
        ("permit", ACT_CODE, "OPTIN", False),
        ("permit", ACT_CODE, "OPTOUT", True),
        ("permit", ACT_CODE, "EMRGONLY", True),
        ("permit", ACT_CODE, "INFA", False),
        ("permit", ACT_CODE, None, False),
        ("permit", "urn:law", "OPTOUT", False),
        ("deny", ACT_CODE, "OPTOUT", False),
        ("deny", ACT_CODE, "EMRGONLY", True),
    ],
)
def test_a_directive_as_the_basis_of_an_r5_consent_has_to_agree_with_its_decision(
    decision: str, system: str, code: str | None, review: object
) -> None:
    coding = {"system": system} | ({"code": code} if code else {})
    rules = [{"purpose": [purpose("TREAT" if decision == "permit" else "HRESCH")]}]
    record = parse_consent(r5(decision=decision, provision=rules, regulatoryBasis=[{"coding": [coding]}])).record

    assert record.review == ("regulatoryBasis: not known to say what decision says" if review else None)


def test_an_r5_consent_that_permits_nothing_refuses_whatever_its_basis() -> None:
    basis = [{"coding": [{"system": ACT_CODE, "code": "EMRGONLY"}]}]
    refusal = {key: value for key, value in r5(regulatoryBasis=basis).items() if key != "provision"}

    assert outcome(refusal) is Outcome.DENY


@pytest.mark.parametrize("patient", ["urn:uuid:0c3f", "#p", "https://a.example/fhir/Patient/1/_history/2", "Patient/1"])
def test_a_patient_may_be_referred_to_beside_the_identifier(patient: str) -> None:
    named = {"type": "Patient", "reference": patient, "identifier": {"use": "official", "value": SECRET}}

    assert outcome(r4(patient=named)) is Outcome.PERMIT


@pytest.mark.parametrize("identifier", [{"system": "urn:hospital"}, {"system": "urn:hospital", "value": "  "}])
def test_the_id_a_server_gave_is_never_taken_for_a_number_of_the_patients_system(identifier: Json) -> None:
    with pytest.raises(UnreadableConsent, match="patient_system"):
        parse_consent(r4(patient={"reference": "Patient/N-1", "identifier": identifier}), "urn:hospital")


@pytest.mark.parametrize(
    ("value", "uid"),
    [
        ("urn:oid:1.2.3", "1.2.3"),
        ("URN:OID:1.2.3", "1.2.3"),
        (" urn:oid:1.2.3 ", "1.2.3"),
        ("2.25.0", "2.25.0"),
        ("hello", UNRESOLVED),
        ("1.02.3", UNRESOLVED),
        ("urn:oid:", UNRESOLVED),
        ("1.2.\u0663", UNRESOLVED),
    ],
)
def test_what_is_no_uid_of_dicom_is_unresolved(value: str, uid: str) -> None:
    named = {"meaning": "instance", "reference": {"identifier": {"system": "urn:dicom:uid", "value": value}}}

    assert parse_consent(r4(provision=_permit(data=[named]))).record.root.data_references == (uid,)


@pytest.mark.parametrize("text", ["9999-12-31T23:59:59-12:00", "9999-12-31T23:59:59.5-05:00", "9999"])
def test_an_end_past_the_last_instant_there_is_stands_for_that(text: str) -> None:
    record = parse_consent(r4(dateTime=text, provision=_permit(period={"end": text}))).record

    assert record.root.period is not None
    assert record.root.period.end == datetime.max.replace(tzinfo=UTC)
    for instant in (record.root.period.end, record.dated_at):
        assert instant is not None
        assert instant.astimezone(UTC).year == 9999


@pytest.mark.parametrize("resource", [r4(), r5()], ids=["R4", "R5"])
def test_a_consent_its_source_calls_unverified_goes_to_review(resource: Json) -> None:
    assert outcome(resource | {"verification": [{"verified": True}]}) is Outcome.PERMIT
    assert outcome(resource | {"verification": [{"verified": True}, {"verified": False}]}) is Outcome.REVIEW


@pytest.mark.parametrize(
    "resource",
    [
        r4(dateTime="1899-12-31"),
        r4(dateTime="0001-01-01T00:00:00+14:00"),
        r4(provision=_permit(period={"start": "1850"})),
        r4(provision=_permit(dataPeriod={"start": "1899-12"})),
        r5(date="1066-10-14"),
    ],
)
def test_a_date_before_1900_goes_to_review(resource: Json) -> None:
    assert outcome(resource) is Outcome.REVIEW


def test_an_actor_in_another_role_narrows_a_permission_by_something_nobody_can_tell() -> None:
    hub, author = actor({"reference": HUB}), actor({"reference": "Practitioner/1"}, "AUT")

    assert outcome(r4(provision=_permit(actor=[hub]))) is Outcome.PERMIT
    assert outcome(r4(provision=_permit(actor=[hub, author]))) is Outcome.NO_CONSENT
    refusal = {"type": "deny", "actor": [actor({"reference": "Organization/54"}), author]}
    assert outcome(r4(provision=_permit(provision=[refusal]))) is Outcome.DENY


CATEGORIES: Final = "http://terminology.hl7.org/CodeSystem/consentcategorycodes"


def _about(*codings: tuple[str, str]) -> list[Json]:
    return [{"coding": [{"system": system, "code": code}]} for system, code in codings]


@pytest.mark.parametrize(
    ("category", "expected"),
    [
        (_about((CATEGORIES, "research")), Scope.RESEARCH),
        (_about((SCOPE, "research"), ("http://loinc.org", "57016-8")), Scope.RESEARCH),
        (_about((CATEGORIES, "dnr")), Scope.OTHER),
        (_about((CATEGORIES, "polst"), (SCOPE, "adr")), Scope.OTHER),
        (_about((CATEGORIES, "dnr"), ("http://loinc.org", "59284-0")), Scope.PRIVACY),
        (_about((CATEGORIES, "dnr"), (CATEGORIES, "research")), Scope.RESEARCH),
        (_about((CATEGORIES, "npp")), Scope.PRIVACY),
        (_about(("urn:other", "dnr")), Scope.PRIVACY),
    ],
)
def test_the_category_of_r5_stands_for_the_scope_of_r4(category: list[Json], expected: Scope) -> None:
    assert parse_consent(r5(category=category)).record.scope is expected


def test_an_order_not_to_resuscitate_says_nothing_on_research_in_r5_too() -> None:
    order = r5(id="dnr", category=_about((CATEGORIES, "dnr")), provision=[{"action": [{"text": "CPR"}]}])
    both = [parse_consent(r5()).record, parse_consent(order).record]

    assert decide(both, STUDY, REQUEST, AT).outcome is Outcome.PERMIT


def test_what_is_reviewed_keeps_its_dates_so_that_nothing_older_takes_its_place() -> None:
    parsed = parse_consent(r4(colour=SECRET, meta={"lastUpdated": "2026-02-01T00:00:00Z"}))

    assert parsed.record.review == "colour: unknown element"
    assert parsed.record.dated_at == datetime(2026, 1, 1, tzinfo=UTC)
    assert parsed.updated_at == datetime(2026, 2, 1, tzinfo=UTC)
    assert parse_consent(r4(meta={"lastUpdated": "soon"})).updated_at is None


# ------------------------------------------------------------------ R4 and R5 say the same

_limits = st.fixed_dictionaries(
    {},
    optional={
        "period": st.sampled_from([{"start": "2020"}, {"end": "2025-01"}, {"start": "2027"}]),
        "purpose": st.lists(
            st.sampled_from([purpose(c) for c in ("HRESCH", "BIORCH", "TREAT", "MLTRAINING", "?")]),
            min_size=1,
            max_size=2,
        ),
        "actor": st.sampled_from([[actor({"reference": HUB})], [actor({"reference": "Group/1"})]]),
        "action": st.sampled_from([[{"coding": [{"system": ACTION, "code": "use"}]}]]),
        "dataPeriod": st.sampled_from([{"end": "2025"}, {"start": "2025"}]),
    },
)


@settings(max_examples=150, deadline=None)
@given(st.sampled_from(["permit", "deny"]), st.lists(_limits, max_size=3))
def test_r4_and_r5_of_the_same_meaning_decide_the_same(kind: str, exceptions: list[Json]) -> None:
    flipped = {"permit": "deny", "deny": "permit"}[kind]
    nested = [{"type": flipped, **limits} for limits in exceptions]
    listed = {"provision": nested} if nested else {}
    old = r4(provision={"type": kind, **listed})
    new = r5(decision=kind, provision=exceptions) if exceptions else r5(decision=kind)
    if not exceptions:
        del new["provision"]

    assert parse_consent(old).record.root == parse_consent(new).record.root
    assert outcome(old) is outcome(new)


# ------------------------------------------------------------------ files


def _bundle(*resources: object) -> bytes:
    entries = [{"resource": resource} for resource in resources]
    return json.dumps({"resourceType": "Bundle", "type": "collection", "entry": entries}).encode()


def _split(data: bytes, **limits: int) -> dict[str, object]:
    return dict(split_bundle(data, **limits))


def _broken(found: dict[str, object]) -> set[str]:
    return {name for name, entry in found.items() if isinstance(entry, UnreadableConsent)}


def test_a_bundle_yields_each_resource_by_its_id() -> None:
    found = _split(_bundle(r4(id="a"), r5(id="b")))

    assert list(found) == ["Consent/a", "Consent/b"]
    assert found["Consent/a"] == r4(id="a")


def test_ndjson_and_a_single_resource_are_read_too() -> None:
    lines = "\n".join(json.dumps(r4(id=name)) for name in ("a", "b")) + "\n\n"

    assert list(_split(lines.encode())) == ["Consent/a", "Consent/b"]
    assert list(_split(json.dumps(r4(id="a"), indent=1).encode())) == ["Consent/a"]


@pytest.mark.parametrize("damage", ["", '"status" "active"'])
def test_a_bundle_with_an_entry_to_a_line_is_no_ndjson(damage: str) -> None:
    texts = [json.dumps(r4(id=name)) for name in ("a", "b", "c")]
    texts[1] = texts[1].replace('"status": "active"', damage or '"status": "active"')

    found = _split(
        _bundle_text(*texts).replace(', {"fullUrl"', ',\n{"fullUrl"').replace(',{"fullUrl"', ',\n{"fullUrl"').encode()
    )

    assert list(found) == ["Consent/a", "Consent/b", "Consent/c"]
    assert _broken(found) == ({"Consent/b"} if damage else set())


def test_xml_is_told_from_broken_json() -> None:
    assert str(_split(b'<?xml version="1.0"?><Consent/>')["file"]) == "XML, where only JSON is read"


def test_one_broken_entry_is_named_and_the_others_load() -> None:
    found = _split(_bundle(r4(id="a"), SECRET, None, r4(id="b")))

    assert _broken(found) == {"entry 1", "entry 2"}
    assert len(found) == 4
    assert SECRET not in str(found["entry 1"])


def test_one_broken_line_is_named_and_the_others_load() -> None:
    lines = [json.dumps(r4(id="a")), "{" + SECRET, json.dumps(r4(id="b"))]

    found = _split("\n".join(lines).encode())

    assert list(found) == ["Consent/a", "line 2", "Consent/b"]
    assert str(found["line 2"]) == "not JSON, or nested too deeply"


def test_resources_with_the_same_id_are_all_broken() -> None:
    found = list(split_bundle(_bundle(r4(id="a"), r4(id="a", status="inactive"), r4(id="b"))))

    assert [name for name, entry in found if isinstance(entry, UnreadableConsent)] == (["Consent/a"] * 2)
    assert found[2][0] == "Consent/b"


def test_an_element_named_twice_breaks_only_its_own_entry() -> None:
    text = _bundle(r4(id="a"), r4(id="b")).decode()
    doubled = text.replace('"id": "a"', '"id": "a", "status": "inactive"')

    assert _broken(_split(doubled.encode())) == {"Consent/a"}


@pytest.mark.parametrize(
    "data",
    [b"", b"not json", b"\xff\xfe\xfa", b"[]", b"NaN", b'{"resourceType": NaN}', b"[" * 100_000],
    ids=["empty", "text", "bytes", "list", "NaN", "NaN inside", "deep"],
)
def test_what_is_no_resource_at_all_is_one_broken_file(data: bytes) -> None:
    assert _broken(_split(data)) == {"file"}


def test_a_file_beyond_the_limit_is_not_read() -> None:
    data = _bundle(r4())

    assert _broken(_split(data, max_bytes=len(data) - 1)) == {"file"}
    assert not _broken(_split(data, max_bytes=len(data)))


def test_a_resource_nested_too_deeply_is_broken() -> None:
    deep: object = "x"
    for _ in range(MAX_DEPTH):
        deep = [deep]

    found = _split(_bundle(r4(id="a", extension=deep), r4(id="b")))

    assert _broken(found) == {"Consent/a"}


def test_an_id_that_could_be_a_name_is_not_shown() -> None:
    assert list(_split(_bundle(r4(id="Erika Mustermann")))) == ["entry 0"]


def _bundle_text(*resources: str) -> str:
    entries = ",".join(f'{{"fullUrl": "x", "resource": {resource}}}' for resource in resources)
    return f'{{"resourceType": "Bundle", "type": "collection", "entry": [{entries}]}}'


@pytest.mark.parametrize(
    ("broken", "fault"),
    [
        ('"status" "active"', "not JSON, or nested too deeply"),
        ('"status: "active"', "not JSON, or nested too deeply"),
        ('"status": {"active"', "not JSON, or nested too deeply"),
        ('"status": NaN', "a number is none"),
        (f'"status": {"9" * 5000}', "a number is too long"),
        ('"status": "\\ud800"', "a text is not Unicode"),
        (f'"status": {"[" * 100_000}{"]" * 100_000}', "not JSON, or nested too deeply"),
        ('"status": "a", "status": "b"', "an element is named twice"),
    ],
)
def test_one_broken_resource_of_a_bundle_is_named_by_its_id_whatever_is_broken(broken: str, fault: str) -> None:
    texts = [json.dumps(r4(id=name)) for name in ("a", "b", "c")]
    texts[1] = texts[1].replace('"status": "active"', broken)

    for data in (_bundle_text(*texts).encode(), "\n".join(texts).encode()):
        found = _split(data)
        assert list(found) == ["Consent/a", "Consent/b", "Consent/c"]
        assert _broken(found) == {"Consent/b"}
        assert str(found["Consent/b"]) == fault


def test_a_byte_in_another_encoding_breaks_its_own_resource_alone() -> None:
    texts = [json.dumps(r4(id=name)) for name in ("a", "b")]
    data = _bundle_text(*texts).replace("HRESCH", "HR\u00c9SCH", 1).encode("latin-1")

    found = _split(data)

    assert _broken(found) == {"Consent/a"}
    assert len(found) == 2


@pytest.mark.parametrize("encoding", ["utf-8-sig", "utf-16", "utf-16-le", "utf-32"])
def test_every_encoding_of_json_is_read(encoding: str) -> None:
    lines = "\n".join(json.dumps(r4(id=name)) for name in ("a", "b"))

    for text in (_bundle_text(*lines.split("\n")), lines):
        assert _broken(_split(text.encode(encoding))) == set()
        assert list(_split(text.encode(encoding))) == ["Consent/a", "Consent/b"]


@pytest.mark.parametrize("damage", [lambda text: text[:-400], lambda text: text + "x", lambda text: text[:-1]])
def test_a_bundle_that_lacks_an_end_says_so_beside_what_it_holds(damage: Any) -> None:
    text = _bundle_text(*(json.dumps(r4(id=name)) for name in ("a", "b")))

    found = _split(damage(text).encode())

    assert "file" in _broken(found)
    assert found["Consent/a"] == r4(id="a")


def test_the_entries_of_a_bundle_within_a_broken_one_are_none_of_the_outer() -> None:
    within = _bundle_text(json.dumps(r4(id="inner"))).replace('"Bundle"', '"Bundle" "x"')
    text = _bundle_text(json.dumps(r4(id="a")), within, json.dumps(r4(id="b")))

    assert "Consent/inner" not in _split(text.encode())
    assert "file" in _broken(_split(text.encode()))


def test_what_its_source_deleted_is_named() -> None:
    entry = {"request": {"method": "DELETE", "url": "Consent/a"}}

    assert _broken(_split(json.dumps({"resourceType": "Bundle", "entry": [entry]}).encode())) == {"Consent/a"}


def _objects(value: Any) -> list[Json]:
    inner = value.values() if isinstance(value, dict) else value if isinstance(value, list) else ()
    return [found for part in inner for found in _objects(part)] + ([value] if isinstance(value, dict) else [])


@pytest.mark.parametrize("plain", [r4(provision=_permit(actor=[actor({"reference": HUB})])), r5()], ids=["R4", "R5"])
def test_a_modifier_extension_never_permits_wherever_it_stands(plain: Json) -> None:
    assert outcome(plain) is Outcome.PERMIT
    for number in range(len(_objects(plain))):
        resource = copy.deepcopy(plain)
        _objects(resource)[number]["modifierExtension"] = [{"url": "x"}]

        assert outcome(resource) is Outcome.REVIEW


_junk = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner),
    max_leaves=6,
)


@settings(max_examples=200, deadline=None)
@given(st.sampled_from([r4(), r5()]), st.data())
def test_junk_in_any_place_is_a_record_or_unreadable_and_never_anything_else(
    resource: Json, data: st.DataObject
) -> None:
    resource = copy.deepcopy(resource)
    place: Any = resource
    if "provision" in resource and data.draw(st.booleans()):
        provision = resource["provision"]
        place = provision[0] if isinstance(provision, list) else provision
    place[data.draw(st.sampled_from([*place, "period", "data"]))] = data.draw(_junk)

    try:
        parse_consent(resource)
    except UnreadableConsent:
        return


DCM = "http://dicom.nema.org/resources/ontology/DCM"


@pytest.mark.parametrize(
    ("codes", "expected"),
    [
        ([{"coding": [{"system": DCM, "code": "MR"}]}], ("MR",)),
        ([{"coding": [{"system": DCM, "code": "MR"}]}, {"coding": [{"system": DCM, "code": "CT"}]}], ("MR", "CT")),
        ([{"text": "x"}], ("",)),
        ([{"coding": [{"system": "http://loinc.org", "code": "MR"}]}], ("",)),
        ([{"coding": [{"system": DCM, "code": "MR"}, {"system": DCM, "code": "CT"}]}], ("",)),
        ([{"coding": [{"system": DCM, "code": "magnet"}]}], ("",)),
    ],
)
def test_a_code_is_a_modality_of_dicom_or_unresolved(codes: list[Json], expected: tuple[str, ...]) -> None:
    resource = r5(provision=[{"code": codes}])

    assert parse_consent(resource).record.root.children[0].modalities == expected


def test_an_actor_that_names_a_project_is_no_recipient() -> None:
    project = {"identifier": {"system": "urn:filmroom:project", "value": "brain"}}
    hub = {"role": {"coding": [{"system": ROLE, "code": "IRCP"}]}, "reference": {"reference": "Organization/1"}}

    def rule(*actors: Json) -> Provision:
        return parse_consent(r5(provision=[{"actor": list(actors)}])).record.root.children[0]

    alone = rule({"reference": project}, {"reference": project | {"display": "x"}})
    assert (alone.projects, alone.recipients, alone.unknown) == (("brain", "brain"), (), False)
    beside = parse_consent(r5(provision=[{"actor": [{"reference": project}, hub]}]))
    assert beside.record.review == "provision.0.actor: not as the standard says"

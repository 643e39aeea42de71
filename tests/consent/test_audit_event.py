"""An AuditEvent is what IHE BALP's AuthZconsent profile and FHIR R4 ask for, and says nothing that was not given."""

from __future__ import annotations

import copy
import json
import re
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import pytest

from consent import GateDecision, Outcome, audit_event
from consent.audit_event import PROFILE

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

HL7: Final = "http://terminology.hl7.org/CodeSystem"
DCM: Final = "http://dicom.nema.org/resources/ontology/DCM"
SUBTYPES: Final = "https://profiles.ihe.net/ITI/BALP/CodeSystem/AuthZsubType"
DECIDED: Final = GateDecision(
    number="3.17",
    at=datetime(2026, 6, 1, 12, tzinfo=UTC),
    site="north",
    federation="demo",
    address="coordinator.example:9443",
    project="tissue-2026",
    task="c" * 64,
    run="run-1",
    round=3,
    kind="train",
    nonce="nonce-1",
    phase="released",
    study="2.25.77",
    patient="p" * 16,
    outcome=Outcome.PERMIT,
    reason="permitted",
    purposes=("CLINTRCH",),
    consents=(4, 9),
)

R5_EXAMPLE: Final = (
    Path(__file__).parents[2].parent / "shared/data/consent/audit/AuditEvent-example-consent-permit-authz.json"
)

# ------------------------------------------------------------------ the profile, transcribed a second time

# BALP 1.1.3 AuthZ.fsh: the agents, by the coding of their type, and what each may not have.
AGENTS: Final = {
    "client": ((DCM, "110150"), {"role", "altId", "name", "location", "media", "purposeOfUse"}, {"who", "network"}),
    "user": ((f"{HL7}/v3-ParticipationType", "IRCP"), {"altId", "location", "media", "network"}, {"who"}),
    "userorg": (
        (f"{HL7}/v3-RoleClass", "PROV"),
        {"role", "altId", "name", "location", "policy", "media", "network"},
        {"who"},
    ),
    "authorizer": (
        (f"{HL7}/extra-security-role-type", "authserver"),
        {"role", "altId", "name", "location", "policy", "media", "network", "purposeOfUse"},
        {"who"},
    ),
}
REQUESTOR: Final = {"user": True, "userorg": False, "authorizer": False}
PERSON: Final = (f"{HL7}/audit-entity-type", "1")
PATIENT: Final = (f"{HL7}/object-role", "1")
CONSENT: Final = ("http://hl7.org/fhir/resource-types", "Consent")
# FHIR R4 AuditEvent: its elements, those of its parts, and what must be there.
ELEMENTS: Final = {
    "": (
        "resourceType id meta text type! subtype action period recorded! outcome outcomeDesc purposeOfEvent "
        "agent! source! entity"
    ),
    "agent": "type role who altId name requestor! location policy media network purposeOfUse",
    "agent.network": "address type",
    "source": "site observer! type",
    "entity": "what type role lifecycle securityLabel name description query detail",
    "entity.detail": "type! valueString valueBase64Binary",
}
# FHIR R4: the value set of AuditEvent.agent.who and AuditEvent.source.observer.
WHO: Final = {None, "PractitionerRole", "Practitioner", "Organization", "Device", "Patient", "RelatedPerson"}
INSTANT: Final = re.compile(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d(\.\d+)?(Z|[+-]\d\d:\d\d)")


def _coding(concept: dict[str, Any]) -> tuple[str, str]:
    coding = concept["coding"][0] if "coding" in concept else concept
    return coding["system"], coding["code"]


def faults(event: dict[str, Any]) -> list[str]:
    """Return where an event breaks FHIR R4 or the profile."""
    return [*_of_r4(event), *(rule for rule, holds in RULES.items() if not _holds(holds, event))]


def _holds(rule: Callable[[dict[str, Any]], bool], event: dict[str, Any]) -> bool:
    try:
        return rule(event)
    except (KeyError, IndexError, TypeError):
        return False


def _of_r4(event: dict[str, Any]) -> Iterator[str]:
    for path, names in ELEMENTS.items():
        known = {name.rstrip("!") for name in names.split()}
        needed = {name.rstrip("!") for name in names.split() if name.endswith("!")}
        for part in _parts(event, path):
            yield from (f"{path}: unknown {name}" for name in part.keys() - known)
            yield from (f"{path}: lacks {name}" for name in needed - part.keys())
    if not INSTANT.fullmatch(str(event.get("recorded"))):
        yield "recorded: no instant"
    people = [*(agent.get("who", {}) for agent in event.get("agent", [])), event.get("source", {}).get("observer", {})]
    yield from ("who: a resource it may not be" for who in people if _kind(who) not in WHO)
    if event.get("outcome") not in {"0", "4", "8", "12"}:
        yield "outcome: unknown"
    yield from ("sev-1" for entity in event.get("entity", []) if {"name", "query"} <= entity.keys())


def _kind(reference: dict[str, Any]) -> str | None:
    return reference.get("type") or reference.get("reference", "").partition("/")[0] or None


def _parts(event: dict[str, Any], path: str) -> list[dict[str, Any]]:
    found: list[Any] = [event]
    for name in filter(None, path.split(".")):
        found = [value for part in found if name in part for value in _list(part[name])]
    return found


def _list(value: Any) -> list[Any]:
    return value if isinstance(value, list) else [value]


def _slice(event: dict[str, Any], name: str) -> list[dict[str, Any]]:
    return [agent for agent in event["agent"] if _coding(agent["type"]) == AGENTS[name][0]]


def _entities(event: dict[str, Any], coding: tuple[str, str]) -> list[dict[str, Any]]:
    return [entity for entity in event["entity"] if _coding(entity["type"]) == coding]


RULES: Final[dict[str, Callable[[dict[str, Any]], bool]]] = {
    "modifierExtension 0..0": lambda e: "modifierExtension" not in e,
    "type": lambda e: _coding(e["type"]) == (DCM, "110113"),
    "subtype 1.., from the value set": lambda e: (
        {_coding(s) for s in e["subtype"]} <= {(SUBTYPES, c) for c in ("AuthZ-Consent", "AuthZ-Role")}
        and bool(e["subtype"])
    ),
    "action": lambda e: e["action"] == "E",
    "outcome 1..1": lambda e: "outcome" in e,
    "each agent 1..1": lambda e: all(len(_slice(e, name)) == 1 for name in AGENTS),
    "agents have what they must": lambda e: all(AGENTS[n][2] <= _slice(e, n)[0].keys() for n in AGENTS),
    "agents lack what they may not have": lambda e: not any(AGENTS[n][1] & _slice(e, n)[0].keys() for n in AGENTS),
    "requestor": lambda e: all(_slice(e, n)[0]["requestor"] is wanted for n, wanted in REQUESTOR.items()),
    "val-audit-source": lambda e: _slice(e, "authorizer")[0]["who"] == e["source"]["observer"],
    "patient 1..1": lambda e: len(_entities(e, PERSON)) == 1,
    "patient's role": lambda e: _coding(_entities(e, PERSON)[0]["role"]) == PATIENT,
    "patient.what is a Patient": lambda e: _kind(_entities(e, PERSON)[0]["what"]) == "Patient",
    "consent 1..*, each with what": lambda e: (
        bool(_entities(e, CONSENT)) and all("what" in entity for entity in _entities(e, CONSENT))
    ),
    "no other entity": lambda e: len(_entities(e, PERSON)) + len(_entities(e, CONSENT)) == len(e["entity"]),
}


def _example(outcome: str, **more: Any) -> dict[str, Any]:
    """Return BALP's own example of a permission, or with `outcome` 8 of a refusal."""
    authoriser = {"reference": "Device/ex-authz"}
    return {
        "resourceType": "AuditEvent",
        "type": {"system": DCM, "code": "110113", "display": "Security Alert"},
        "subtype": [{"system": SUBTYPES, "code": "AuthZ-Consent"}],
        "action": "E",
        "recorded": "2021-12-27T09:49:00.000Z",
        "outcome": outcome,
        "source": {
            "site": "server.example.com",
            "observer": authoriser,
            "type": [{"system": f"{HL7}/security-source-type", "code": "6", "display": "Security Server"}],
        },
        "agent": [
            {
                "type": {"coding": [{"system": f"{HL7}/extra-security-role-type", "code": "authserver"}]},
                "who": authoriser,
                "requestor": False,
            },
            {
                "type": {"coding": [{"system": DCM, "code": "110150"}]},
                "who": {"reference": "Device/ex-device"},
                "network": {"address": "2001:0db8:85a3:0000:0000:8a2e:0370:7334", "type": "2"},
                "requestor": False,
            },
            {
                "type": {"coding": [{"system": f"{HL7}/v3-ParticipationType", "code": "IRCP"}]},
                "who": {"reference": "Practitioner/ex-practitioner"},
                "requestor": True,
                "purposeOfUse": [{"coding": [{"system": f"{HL7}/v3-ActReason", "code": "PATRQT"}]}],
            },
            {
                "type": {"coding": [{"system": f"{HL7}/v3-RoleClass", "code": "PROV"}]},
                "who": {"reference": "Organization/ex-organization"},
                "requestor": False,
            },
        ],
        "entity": [
            {
                "what": {"reference": "Patient/ex-patient"},
                "type": {"system": PERSON[0], "code": PERSON[1]},
                "role": {"system": PATIENT[0], "code": PATIENT[1]},
            },
            {"what": {"reference": "Consent/ex-consent"}, "type": {"system": CONSENT[0], "code": CONSENT[1]}},
        ],
    } | more


EXAMPLES: Final = {
    "permit": _example("0"),
    "deny": _example("8", outcomeDesc="Consent denied access to this user"),
}


@pytest.mark.parametrize("name", EXAMPLES)
def test_the_transcribed_profile_accepts_its_own_examples(name: str) -> None:
    assert faults(EXAMPLES[name]) == []


@pytest.mark.parametrize("outcome", Outcome)
@pytest.mark.parametrize("address", ["coordinator.example:9443", "10.0.0.7:9443", "[2001:db8::1]:9443"])
def test_an_event_about_a_consent_follows_the_profile(outcome: Outcome, address: str) -> None:
    event = audit_event(replace(DECIDED, outcome=outcome, address=address))

    assert faults(event) == []
    assert event["meta"] == {"profile": [PROFILE]}


BROKEN: Final[dict[str, Callable[[dict[str, Any]], object]]] = {
    "type": lambda e: e["type"].update(code="110112"),
    "subtype 1.., from the value set": lambda e: e["subtype"][0].update(code="other"),
    "action": lambda e: e.update(action="R"),
    "outcome 1..1": lambda e: e.pop("outcome"),
    "modifierExtension 0..0": lambda e: e.update(modifierExtension=[]),
    "each agent 1..1": lambda e: e["agent"].append(e["agent"][0]),
    "agents have what they must": lambda e: e["agent"][0].pop("network"),
    "agents lack what they may not have": lambda e: e["agent"][0].update(name="x"),
    "requestor": lambda e: e["agent"][1].update(requestor=False),
    "val-audit-source": lambda e: e["source"].update(observer={"type": "Device", "display": "another"}),
    "patient 1..1": lambda e: e["entity"].pop(0),
    "patient's role": lambda e: e["entity"][0]["role"].update(code="4"),
    "patient.what is a Patient": lambda e: e["entity"][0]["what"].update(type="Group"),
    "consent 1..*, each with what": lambda e: e["entity"][1].pop("what"),
    "no other entity": lambda e: e["entity"].append({"type": {"system": PERSON[0], "code": "2"}, "what": {}}),
    "recorded: no instant": lambda e: e.update(recorded="2026-06-01"),
    ": unknown severity": lambda e: e.update(severity="low"),
    "agent: lacks requestor": lambda e: e["agent"][3].pop("requestor"),
    "who: a resource it may not be": lambda e: e["agent"][1]["who"].update(type="ResearchStudy"),
}


def test_every_rule_of_the_profile_is_broken_once() -> None:
    assert set(RULES) <= set(BROKEN)


@pytest.mark.parametrize("rule", BROKEN)
def test_an_event_that_breaks_a_rule_is_noticed(rule: str) -> None:
    event = copy.deepcopy(audit_event(DECIDED))
    BROKEN[rule](event)

    assert rule in faults(event)


def test_it_has_every_element_of_the_profiles_examples() -> None:
    def paths(value: Any, at: str = "") -> Iterator[str]:
        for item in _list(value):
            if isinstance(item, dict):
                for name, part in item.items():
                    yield f"{at}.{name}"
                    yield from paths(part, f"{at}.{name}")

    ours = set(paths(audit_event(replace(DECIDED, outcome=Outcome.DENY))))
    # We name by identifier where the examples point at resources of their server.
    theirs = {path.replace(".reference", ".identifier") for path in paths(EXAMPLES["deny"])}

    assert theirs - ours == set()


@pytest.mark.parametrize("outcome", Outcome)
def test_only_a_permission_is_a_success_and_the_reason_is_told(outcome: Outcome) -> None:
    event = audit_event(replace(DECIDED, outcome=outcome, reason="rule 2 of it denied"))

    assert event["outcome"] == ("0" if outcome is Outcome.PERMIT else "8")
    assert event["outcomeDesc"] == f"{outcome.value}: rule 2 of it denied"


def test_without_a_consent_it_does_not_claim_a_profile_that_asks_for_one() -> None:
    event = audit_event(replace(DECIDED, outcome=Outcome.NO_CONSENT, reason="no consent on record", consents=()))

    assert "meta" not in event
    assert faults(event) == ["consent 1..*, each with what"]


def test_it_says_who_asked_for_what_and_for_whom() -> None:
    event = audit_event(DECIDED)
    named = {name: _slice(event, name)[0]["who"]["identifier"]["value"] for name in AGENTS}

    assert named == {"client": "demo", "user": "tissue-2026", "userorg": "demo", "authorizer": "north"}
    assert _slice(event, "client")[0]["network"] == {"address": "coordinator.example", "type": "1"}
    assert [c["coding"][0]["code"] for c in event["purposeOfEvent"]] == ["CLINTRCH", "MLTRAINING"]
    assert event["purposeOfEvent"][0]["coding"][0]["display"] == "clinical trial research"
    (patient,) = _entities(event, PERSON)
    assert {d["type"]: d["valueString"] for d in patient["detail"]} == {
        "StudyInstanceUID": "2.25.77",
        "task": "c" * 64,
        "run": "run-1",
        "round": "3",
        "kind": "train",
        "nonce": "nonce-1",
        "phase": "released",
    }
    assert [e["what"]["identifier"]["value"] for e in _entities(event, CONSENT)] == ["4", "9"]


def test_it_agrees_with_hl7s_example_of_the_same_event_where_both_versions_have_an_element() -> None:
    if not R5_EXAMPLE.exists():
        pytest.skip(f"the example is not at {R5_EXAMPLE}")
    theirs, ours = json.loads(R5_EXAMPLE.read_text()), audit_event(DECIDED)
    (asking,) = (agent for agent in ours["agent"] if agent["requestor"])

    assert theirs["action"] == ours["action"]
    assert _coding(theirs["outcome"]["code"]) == (f"{HL7}/audit-event-outcome", ours["outcome"])
    assert {name for agent in theirs["agent"] for name in agent} - {"authorization"} <= asking.keys()
    assert theirs["agent"][0]["authorization"][0]["coding"][0]["system"] == _coding(asking["purposeOfUse"][0])[0]
    assert theirs["source"]["type"][0]["coding"][0]["system"] == ours["source"]["type"][0]["system"]
    assert _kind(theirs["entity"][0]["what"]) == _kind(ours["entity"][1]["what"]) == "Consent"


def test_two_decisions_have_two_ids_and_one_decision_one_text() -> None:
    assert re.fullmatch(r"[A-Za-z0-9.-]{1,64}", audit_event(DECIDED)["id"])  # FHIR R4 id
    assert audit_event(DECIDED)["id"] != audit_event(replace(DECIDED, number="3.18"))["id"]
    assert json.dumps(audit_event(DECIDED)) == json.dumps(audit_event(replace(DECIDED)))


def test_a_decision_needs_a_time_zone() -> None:
    with pytest.raises(ValueError, match="time zone"):
        replace(DECIDED, at=datetime(2026, 6, 1))  # noqa: DTZ001 -- the fault under test

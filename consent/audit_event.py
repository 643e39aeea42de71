"""A decision of the gate on one study as a FHIR AuditEvent, for the hospital's own audit repository.

Pure: plain values in, plain JSON out. Names the patient, the study and the consents as the values given do, which is
by pseudonym and by the site's own record numbers; adds nothing that would tell who they are.

Source: FHIR R4 4.0.1 AuditEvent; IHE BALP 1.1.3, profile IHE.BasicAudit.AuthZconsent (3:5.7.6). The profile asks for
the consent that was decided on, so an event about a patient without any does not claim to follow it.
"""

from __future__ import annotations

from dataclasses import dataclass
from ipaddress import ip_address
from typing import TYPE_CHECKING, Any, Final

from consent.purpose import MLTRAINING, PURPOSE_WORDS
from consent.record import Outcome

if TYPE_CHECKING:
    from datetime import datetime

PROFILE: Final = "https://profiles.ihe.net/ITI/BALP/StructureDefinition/IHE.BasicAudit.AuthZconsent"
_DCM: Final = "http://dicom.nema.org/resources/ontology/DCM"
_HL7: Final = "http://terminology.hl7.org/CodeSystem"
# audit-event-outcome: BALP's own example of a refusal is a serious failure.
_SUCCESS, _SERIOUS_FAILURE = "0", "8"
# FHIR network-type
_MACHINE_NAME, _IP_ADDRESS = "1", "2"


@dataclass(frozen=True, slots=True)
class GateDecision:
    """One decision on one study, in the state in which it was decided.

    `number` is its own at the site, digits and points; `run`, `round`, `kind` and `nonce` name the opening of a round,
    `phase` what came of it; `address` is where the site reaches the coordinator. `patient` and `study` are pseudonyms
    and `consents` numbers of the site's consent records.
    """

    number: str
    at: datetime
    site: str
    federation: str
    address: str
    project: str
    task: str
    run: str
    round: int
    kind: str
    nonce: str
    phase: str
    study: str
    patient: str
    outcome: Outcome
    reason: str
    purposes: tuple[str, ...]
    consents: tuple[int, ...] = ()

    def __post_init__(self) -> None:
        """Refuse a moment without a time zone: AuditEvent.recorded is an instant."""
        if self.at.tzinfo is None:
            raise ValueError("the moment of a decision needs a time zone")


def audit_event(decided: GateDecision) -> dict[str, Any]:
    """Return the AuditEvent of one decision, permitted or not."""
    gate = _identified("Device", "urn:filmroom:site", decided.site)
    permitted = decided.outcome is Outcome.PERMIT
    return {
        "resourceType": "AuditEvent",
        "id": f"decision-{decided.number}",
        **({"meta": {"profile": [PROFILE]}} if decided.consents else {}),
        "type": _coding(_DCM, "110113", "Security Alert"),
        "subtype": [
            _coding(
                "https://profiles.ihe.net/ITI/BALP/CodeSystem/AuthZsubType",
                "AuthZ-Consent",
                "Authorization Decision using Roles and Consent",
            )
        ],
        "action": "E",
        "recorded": decided.at.isoformat(),
        "outcome": _SUCCESS if permitted else _SERIOUS_FAILURE,
        "outcomeDesc": f"{decided.outcome.value}: {decided.reason}",
        "purposeOfEvent": _purposes(decided),
        "agent": [*_asking(decided), _agent(f"{_HL7}/extra-security-role-type", "authserver", gate)],
        "source": {
            "site": decided.site,
            "observer": gate,  # val-audit-source: the authoriser itself recorded this
            "type": [_coding(f"{_HL7}/security-source-type", "6", "Security Server")],
        },
        "entity": [_patient(decided), *(_consent(decided.site, number) for number in decided.consents)],
    }


def _asking(decided: GateDecision) -> list[dict[str, Any]]:
    """Return who asked: the coordinator's program, the project that receives, the federation behind both."""
    federation = _identified("Organization", "urn:filmroom:federation", decided.federation)
    # FHIR R4 AuditEvent.agent.who may be no ResearchStudy: the project is named by its identifier alone.
    project = {"identifier": {"system": "urn:filmroom:project", "value": decided.project}}
    program = {"type": "Device", "identifier": federation["identifier"], "display": "Filmroom coordinator"}
    return [
        _agent(_DCM, "110150", program) | {"network": _network(decided.address)},
        _agent(f"{_HL7}/v3-ParticipationType", "IRCP", project, requestor=True) | {"purposeOfUse": _purposes(decided)},
        _agent(f"{_HL7}/v3-RoleClass", "PROV", federation),
    ]


def _patient(decided: GateDecision) -> dict[str, Any]:
    """Return the patient; the profile has no other place for the study and the opening than this entity's details."""
    asked = {
        "StudyInstanceUID": decided.study,
        "task": decided.task,
        "run": decided.run,
        "round": str(decided.round),
        "kind": decided.kind,
        "nonce": decided.nonce,
        "phase": decided.phase,
    }
    return {
        "what": _identified("Patient", "urn:filmroom:pseudonym", decided.patient),
        "type": _coding(f"{_HL7}/audit-entity-type", "1", "Person"),
        "role": _coding(f"{_HL7}/object-role", "1", "Patient"),
        "detail": [{"type": name, "valueString": value} for name, value in asked.items()],
    }


def _consent(site: str, number: int) -> dict[str, Any]:
    return {
        "what": _identified("Consent", f"urn:filmroom:site:{site}:consent-record", str(number)),
        "type": _coding("http://hl7.org/fhir/resource-types", "Consent", "Consent"),
    }


def _purposes(decided: GateDecision) -> list[dict[str, Any]]:
    codes = dict.fromkeys((*decided.purposes, MLTRAINING))
    return [{"coding": [_coding(f"{_HL7}/v3-ActReason", code, PURPOSE_WORDS.get(code))]} for code in codes]


def _agent(system: str, code: str, who: dict[str, Any], *, requestor: bool = False) -> dict[str, Any]:
    return {"type": {"coding": [_coding(system, code, _ROLES[code])]}, "who": who, "requestor": requestor}


_ROLES: Final = {
    "110150": "Application",
    "IRCP": "information recipient",
    "PROV": "healthcare provider",
    "authserver": "authorization server",
}


def _network(address: str) -> dict[str, str]:
    host = address.rpartition(":")[0].strip("[]") or address
    try:
        ip_address(host)
    except ValueError:
        return {"address": host, "type": _MACHINE_NAME}
    return {"address": host, "type": _IP_ADDRESS}


def _identified(kind: str, system: str, value: str) -> dict[str, Any]:
    return {"type": kind, "identifier": {"system": system, "value": value}}


def _coding(system: str, code: str, display: str | None) -> dict[str, str]:
    return {"system": system, "code": code} | ({"display": display} if display else {})

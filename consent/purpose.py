"""Purposes of use and how a permitted, denied and requested purpose relate.

Knows the HL7 v3-ActReason codes alone. An unknown code is never covered and always conflicts.
Whether a study may be used is decided in `decision`.

Source: HL7 Terminology 7.0.1, CodeSystem v3-ActReason 3.1.0, descendants of PurposeOfUse (CC0-1.0).
"""

from __future__ import annotations

from types import MappingProxyType
from typing import Final

MLTRAINING: Final = "MLTRAINING"
"""Training a machine learning model: an activity asked beside every purpose, never a purpose.

It stands under HOPERAT, so research does not imply it and it does not imply research.
"""

_ROOT: Final = "PurposeOfUse"
_CHILDREN: Final = {
    _ROOT: "HMARKT HOPERAT HPAYMT HRESCH PATRQT PUBHLTH TREAT",
    "COVERAGE": "ELIGDTRM ELIGVER ENROLLM MILDCRG",
    "CLINTRCH": "CLINTRCHNPC CLINTRCHPC PRECLINTRCH",
    "ETREAT": "BTG ERTREAT",
    "HOPERAT": (
        "CAREMGT DONAT FRAUD GOV HACCRED HCOMPL HDECD HDIRECT HDM HLEGAL HOUTCOMS HPRGRP "
        "HQUALIMP HSYSADMIN MEMADMIN MILCDM MLTRAINING PATADMIN PATSFTY PERFMSR RECORDMGT "
        "SYSDEV TRAIN"
    ),
    "HPAYMT": "CLMATTCH COVAUTH COVERAGE PMTDS REMITADV",
    "HRESCH": "BIORCH CLINTRCH DSRCH POARCH TRANSRCH",
    "HSYSADMIN": "LABELING METAMGT",
    "PATRQT": "FAMRQT PWATRNY SUPNWK",
    "PUBHLTH": "DISASTER THREAT",
    "SYSDEV": "HTEST",
    "TREAT": "CLINTRL COC ETREAT POPHLTH TREATDS",
}
_PARENT: Final = {child: parent for parent, line in _CHILDREN.items() for child in line.split()}


def _lineage(code: str) -> frozenset[str]:
    if code == _ROOT:
        return frozenset()
    return _lineage(_PARENT[code]) | {code}


_LINEAGES: Final = {code: _lineage(code) for code in _PARENT}

PURPOSES: Final = frozenset(_LINEAGES)
"""Every known purpose of use."""

PURPOSE_WORDS: Final = MappingProxyType(
    {
        "BIORCH": "biomedical research",
        "BTG": "break the glass",
        "CAREMGT": "care management",
        "CLINTRCH": "clinical trial research",
        "CLINTRCHNPC": "clinical trial research without patient care",
        "CLINTRCHPC": "clinical trial research with patient care",
        "CLINTRL": "clinical trial",
        "CLMATTCH": "claim attachment",
        "COC": "coordination of care",
        "COVAUTH": "coverage authorization",
        "COVERAGE": "coverage under policy or program",
        "DISASTER": "disaster",
        "DONAT": "donation",
        "DSRCH": "disease specific healthcare research",
        "ELIGDTRM": "eligibility determination",
        "ELIGVER": "eligibility verification",
        "ENROLLM": "enrollment",
        "ERTREAT": "emergency room treatment",
        "ETREAT": "Emergency Treatment",
        "FAMRQT": "family requested",
        "FRAUD": "fraud",
        "GOV": "government",
        "HACCRED": "health accreditation",
        "HCOMPL": "health compliance",
        "HDECD": "decedent",
        "HDIRECT": "directory",
        "HDM": "healthcare delivery management",
        "HLEGAL": "legal",
        "HMARKT": "healthcare marketing",
        "HOPERAT": "healthcare operations",
        "HOUTCOMS": "health outcome measure",
        "HPAYMT": "healthcare payment",
        "HPRGRP": "health program reporting",
        "HQUALIMP": "health quality improvement",
        "HRESCH": "healthcare research",
        "HSYSADMIN": "health system administration",
        "HTEST": "test health data",
        "LABELING": "labeling",
        "MEMADMIN": "member administration",
        "METAMGT": "metadata management",
        "MILCDM": "military command",
        "MILDCRG": "military discharge",
        "MLTRAINING": "machine learning training",
        "PATADMIN": "patient administration",
        "PATRQT": "patient requested",
        "PATSFTY": "patient safety",
        "PERFMSR": "performance measure",
        "PMTDS": "decision support assisted payment decision",
        "POARCH": "population origins or ancestry healthcare research",
        "POPHLTH": "population health",
        "PRECLINTRCH": "preclinical trial research",
        "PUBHLTH": "public health",
        "PWATRNY": "power of attorney",
        "RECORDMGT": "records management",
        "REMITADV": "remittance advice",
        "SUPNWK": "support network",
        "SYSDEV": "system development",
        "THREAT": "threat",
        "TRAIN": "training",
        "TRANSRCH": "translational healthcare research",
        "TREAT": "treatment",
        "TREATDS": "decision support assisted treatment decision",
    }
)
"""What each code means, in the code system's own words."""


def covers(permitted: str, requested: str) -> bool:
    """Whether permission for `permitted` includes `requested`: the same purpose or one below it."""
    return permitted in _LINEAGES.get(requested, ())


def conflicts(denied: str, requested: str) -> bool:
    """Whether refusing `denied` touches `requested`: the same purpose, one below it or above it.

    An unknown code conflicts with everything, because nobody can tell that it does not.
    """
    if denied not in _LINEAGES or requested not in _LINEAGES:
        return True
    return covers(denied, requested) or covers(requested, denied)

"""What decides, by name: the rules of the gate, the engine of the decisions, and the tables they read.

A receipt carries the digests, and a coordinator holds a list of those it accepts. The version of
the engine is raised with every change of the modules in `DECIDING`; a test compares their sources.
"""

from __future__ import annotations

import hashlib
from typing import Final

from consent.datause import RELEASE

POLICY_VERSION: Final = "filmroom-gate/1: consent AND data use AND grant AND task"
ENGINE_VERSION: Final = "filmroom-engine/2"
TERMINOLOGY: Final = f"THO 7.0.1, DUO {RELEASE}, MII 1.1.0"
DECIDING: Final = (
    "access", "alike", "basis", "broad", "datause", "decision", "fhir", "purpose", "reading", "record", "rules",
)  # fmt: skip
"""The modules on which a decision depends, from the text of a consent to the verdict."""

POLICY: Final = hashlib.sha256(POLICY_VERSION.encode()).hexdigest()
ENGINE: Final = hashlib.sha256(ENGINE_VERSION.encode()).hexdigest()


def federation_recipient(federation: str) -> str:
    """Return the members of a federation as a consent and a request name them."""
    return f"urn:filmroom:federation|{federation}"

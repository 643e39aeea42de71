"""A change of what decides is a change of its version."""

from __future__ import annotations

import hashlib
from pathlib import Path
from typing import Final

import consent
from consent import ENGINE, POLICY
from consent.engine import DECIDING, ENGINE_VERSION, POLICY_VERSION, TERMINOLOGY

FOLDER: Final = Path(consent.__file__).parent
SOURCES: Final = {
    "filmroom-engine/2": "4f84caa75f9cde220e5f8ca037e0f95f91964eb25ab714d05b06975bf2d46ea4",
}
"""The sources each version was declared for. Raise the version where a decision can come out otherwise."""


def _sources() -> str:
    total = hashlib.sha256()
    for name in DECIDING:
        total.update(hashlib.sha256((FOLDER / f"{name}.py").read_bytes()).digest())
    return total.hexdigest()


def test_the_engine_is_the_one_its_version_was_declared_for() -> None:
    assert SOURCES[ENGINE_VERSION] == _sources(), "raise ENGINE_VERSION in consent/engine.py, and note the sources here"


def test_every_module_a_decision_comes_from_counts_as_the_engine() -> None:
    undecided = {
        "access_request",
        "audit_event",
        "bundle",
        "checkpoint",
        "eligibility",
        "engine",
        "errors",
        "log",
        "merkle",
        "receipt",
        "signer",
        "statement",
        "statistics",
        "succession",
        "visa",
        "withdrawal",
    }
    modules = {path.stem for path in FOLDER.glob("*.py")} - {"__init__"}

    assert modules - undecided == set(DECIDING)


def test_engine_and_policy_are_named_by_digests_of_their_versions() -> None:
    assert hashlib.sha256(ENGINE_VERSION.encode()).hexdigest() == ENGINE
    assert hashlib.sha256(POLICY_VERSION.encode()).hexdigest() == POLICY
    assert TERMINOLOGY == "THO 7.0.1, DUO 2021-02-23, MII 1.1.0"

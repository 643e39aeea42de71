"""A member of a federation with an archive, of which a snapshot was taken; its coordinator cannot be reached."""

from __future__ import annotations

import json
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import TYPE_CHECKING

import pytest

from consent import generate_signing_key
from site_node.drills.drill import Done, Drills
from site_node.drills.rebuilt import Running
from site_node.drills.report import Mode
from site_node.keys import write_signing_key
from tests.site_node.archive.conftest import Place, place

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

__all__ = ["place"]

UNREACHABLE = "the coordinator did not answer the rebuilt site: FileNotFoundError"


@dataclass(frozen=True)
class Drilled:
    """A place and its drills."""

    place: Place
    drills: Drills

    def run(
        self,
        mode: Mode = Mode.SAMPLE,
        recovery_key: Path | None = None,
        say: Callable[[str], None] = lambda _line: None,
    ) -> Done:
        """Run a drill, always with the same sample."""
        return self.drills.run(mode, "an auditor's word", recovery_key=recovery_key, say=say)

    def problems(self, mode: Mode = Mode.SAMPLE, recovery_key: Path | None = None) -> list[str]:
        """Return what a drill finds wrong, but that there is no coordinator here."""
        told = list(self.run(mode, recovery_key).report.problems)
        if UNREACHABLE in told:
            told.remove(UNREACHABLE)
        return told


@pytest.fixture
def drilled(place: Place) -> Drilled:
    """Return a member of a federation with one snapshot."""
    member = {"federation": "demo", "site": "north", "fleet_address": "127.0.0.1:1", "node_id": 1}
    (place.home.identity / "membership.json").write_text(json.dumps(member))
    write_signing_key(place.home.identity / "receipt.key", generate_signing_key())
    place.archive.create()
    place.archive.take()
    running = Running(place.home, place.home.load_config(), place.store)
    return Drilled(place, Drills(running, place.archive, lambda: datetime.now(UTC)))

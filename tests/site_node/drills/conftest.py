"""A member of a federation with an archive, of which a snapshot was taken; its coordinator cannot be reached."""

from __future__ import annotations

import json
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

import pytest

from consent import generate_signing_key
from coordinator.authority import create_authority
from site_node import alarms
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

    def run(self, mode: Mode = Mode.SAMPLE, **options: Any) -> Done:
        """Run a drill, always with the same sample."""
        return self.drills.run(mode, "an auditor's word", **options)

    def problems(self, mode: Mode = Mode.SAMPLE, **options: Any) -> list[str]:
        """Return what a drill finds wrong, but that there is no coordinator here."""
        return [problem for problem in self.run(mode, **options).report.problems if problem != UNREACHABLE]

    @property
    def alarm(self) -> alarms.Alarm | None:
        """The archive's alarm, if it is open."""
        with self.place.store.connect() as db:
            return alarms.open_alarm(db)


@pytest.fixture
def drilled(place: Place, tmp_path: Path) -> Drilled:
    """Return a member of a federation with one snapshot."""
    member = {"federation": "demo", "site": "north", "fleet_address": "127.0.0.1:1", "node_id": 1}
    (place.home.identity / "membership.json").write_text(json.dumps(member))
    authority = create_authority(tmp_path / "authority", "demo", "127.0.0.1", datetime.now(UTC))
    (place.home.identity / "authority.pem").write_bytes(authority.certificate.read_bytes())
    write_signing_key(place.home.identity / "receipt.key", generate_signing_key())
    place.archive.create()
    place.archive.take()
    return drills_of(place, lambda: datetime.now(UTC))


def drills_of(place: Place, clock: Callable[[], datetime], batch_files: int = 2) -> Drilled:
    """Return the drills of a place, under a clock; so many files are restored at once."""
    config = place.home.load_config()
    config = replace(config, drills=replace(config.drills, batch_files=batch_files))
    return Drilled(place, Drills(Running(place.home, config, place.store), place.archive, clock))

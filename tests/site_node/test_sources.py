"""Where consents come from: noted after they are loaded, by the time of what was loaded, and never into the future."""

from __future__ import annotations

import json
import os
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING

import pytest

from site_node import sources
from site_node.app import create_site
from site_node.errors import ConfigurationError
from tests.site_node.hospital import NOON, bundle, consent_of
from tests.site_node.test_cli import refused, run

if TYPE_CHECKING:
    from pathlib import Path

    import sqlalchemy as sa

HOUR = timedelta(hours=1)


@pytest.fixture
def home(root: Path) -> Path:
    """Return the folder of a site that was just made."""
    create_site(root, "north")
    return root


def known(store: sa.Engine) -> dict[str, datetime]:
    with store.connect() as db:
        return dict(sources.known(db))


def test_a_source_only_becomes_more_recent(store: sa.Engine) -> None:
    sources.note(store, "ehr", NOON, NOON)
    sources.note(store, "ehr", NOON - HOUR, NOON)
    assert known(store) == {"ehr": NOON}

    sources.note(store, "ehr", NOON + HOUR, NOON + HOUR)

    assert known(store) == {"ehr": NOON + HOUR}


def test_a_source_has_a_name_and_is_not_ahead_of_the_clock(store: sa.Engine) -> None:
    with pytest.raises(ConfigurationError, match="has a name"):
        sources.note(store, " ", NOON, NOON)
    with pytest.raises(ConfigurationError, match="a moment to come"):
        sources.note(store, "ehr", NOON + HOUR, NOON)
    with pytest.raises(ConfigurationError, match="not known here"):
        sources.retire(store, "ehr", "manager", NOON)

    assert known(store) == {}


def listed(home: Path) -> list[dict[str, object]]:
    found: list[dict[str, object]] = json.loads(run(home, "consents", "sources", "--json").stdout)
    return found


def test_a_file_is_as_recent_as_when_it_was_written_however_often_it_is_loaded(home: Path) -> None:
    consents = home.parent / "consents.json"
    consents.write_bytes(bundle(consent_of("N1")))
    written = datetime(2026, 1, 1, tzinfo=UTC)
    os.utime(consents, (written.timestamp(), written.timestamp()))

    for _ in range(2):
        assert run(home, "consents", "load", consents).returncode == 0

    assert listed(home) == [{"source": "file", "as_of": written.isoformat(), "recent": False}]
    said = (f"{datetime.now(UTC):%Y-%m-%dT%H:%M:%S}", "--source", "ehr")
    assert run(home, "consents", "load", consents, "--as-of", *said).returncode == 0
    assert [(row["source"], row["recent"]) for row in listed(home)] == [("ehr", True), ("file", False)]
    assert run(home, "consents", "retire", "file", "--by", "manager").returncode == 0
    assert [row["source"] for row in listed(home)] == ["ehr"]


def test_a_file_that_cannot_be_read_or_was_cut_off_does_not_count(home: Path) -> None:
    broken, cut_off, mixed = (home.parent / name for name in ("broken.json", "cut_off.json", "mixed.json"))
    broken.write_bytes(b"this is no consent")
    cut_off.write_bytes(bundle(consent_of("N3"), consent_of("N4"))[:-300])
    mixed.write_bytes(bundle(consent_of("N1"), consent_of("N2") | {"patient": {}}))

    refused(run(home, "consents", "load", broken), 1, "does not count as read")
    assert listed(home) == []

    refused(run(home, "consents", "load", cut_off), 1, "does not count as read")
    assert listed(home) == []

    refused(run(home, "consents", "load", mixed), 1, "1 consents loaded")
    assert [row["recent"] for row in listed(home)] == [True]
    refused(run(home, "consents", "load", mixed, "--as-of", "2999-01-01"), 4, "a moment to come")

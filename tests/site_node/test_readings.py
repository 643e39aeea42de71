"""What is kept of a reading is what its text says; what another version kept, or what is damaged, is read anew."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import pytest
import sqlalchemy as sa

from benchmarks.population import first_consents
from consent import Reading, parse_consent
from site_node import consents, readings
from site_node.store import consent_reading, consent_record, consent_shape, instance, open_store
from tests.site_node.hospital import NOON, PSEUDONYMS, bundle, consent_of

if TYPE_CHECKING:
    from collections.abc import Iterator

EXAMPLES: Final = Path(__file__).parents[2].parent / "shared" / "data" / "consent"


@pytest.fixture
def store(tmp_path: Path) -> Iterator[sa.Engine]:
    opened = open_store(tmp_path / "site.db")
    yield opened
    opened.dispose()


def load(store: sa.Engine, *resources: dict[str, Any]) -> None:
    consents.load(store, bundle(*resources), PSEUDONYMS, NOON)


def read(store: sa.Engine) -> dict[int, Reading]:
    with store.connect() as db:
        numbers = list(db.scalars(sa.select(consent_record.c.number)))
        return dict(readings.Readings().read(db, numbers))


def read_anew(store: sa.Engine) -> dict[int, Reading]:
    """Return the readings of all texts, without what is kept."""
    with store.connect() as db:
        rows = db.execute(sa.select(consent_record)).all()
    return {
        row.number: readings.reading_of(parse_consent(json.loads(row.resource)).record, row.studies, row.doubt)
        for row in rows
    }


def only_kept(store: sa.Engine, monkeypatch: pytest.MonkeyPatch) -> dict[int, Reading]:
    """Return the readings while no text may be parsed."""

    def never(*_: object) -> None:
        raise AssertionError("a text was parsed")

    with monkeypatch.context() as patched:
        patched.setattr(readings, "parse_consent", never)
        return read(store)


def same(kept: dict[int, Reading], anew: dict[int, Reading]) -> bool:
    records = [{number: repr(reading.record()) for number, reading in found.items()} for found in (kept, anew)]
    return kept == anew and records[0] == records[1]


def test_readings_of_a_whole_population_are_those_of_its_texts(
    store: sa.Engine, monkeypatch: pytest.MonkeyPatch
) -> None:
    load(store, *first_consents(range(90)))

    kept = only_kept(store, monkeypatch)

    assert len(kept) == 300
    assert same(kept, read_anew(store))
    with store.connect() as db:
        assert len(db.execute(sa.select(consent_shape.c.number)).all()) < 20


def test_readings_of_every_official_example_are_those_of_its_text(
    store: sa.Engine, monkeypatch: pytest.MonkeyPatch
) -> None:
    examples = [json.loads(path.read_text()) for path in sorted(EXAMPLES.rglob("*.json"))] if EXAMPLES.exists() else []
    held = [one for one in examples if isinstance(one, dict) and one.get("resourceType") == "Consent"]
    if not held:
        pytest.skip(f"the official examples are not at {EXAMPLES}")
    for number, resource in enumerate(held):
        load(store, resource | {"id": f"example-{number}"})

    kept = only_kept(store, monkeypatch)

    assert len(kept) > 10
    assert same(kept, read_anew(store))


def test_doubts_and_the_pseudonyms_of_studies_are_kept(store: sa.Engine, monkeypatch: pytest.MonkeyPatch) -> None:
    named = consent_of("A1")
    study = {"reference": {"identifier": {"system": "urn:dicom:uid", "value": "urn:oid:1.2.3"}}, "meaning": "instance"}
    named["provision"]["data"] = [study]
    with store.begin() as db:
        here = {"StudyInstanceUID": PSEUDONYMS.uid("1.2.3"), "SeriesInstanceUID": "2.25.8", "SOPInstanceUID": "2.25.9"}
        rest = {"SOPClassUID": "1", "Modality": "MR", "patient": "p", "path": "p", "sha256": "s"}
        db.execute(sa.insert(instance).values(**here, **rest))
    load(store, named, consent_of("A2"))
    load(store, consent_of("A2") | {"patient": 1})

    kept = only_kept(store, monkeypatch)

    assert same(kept, read_anew(store))
    assert kept[1].record().root.data_references == ("1.2.3", PSEUDONYMS.uid("1.2.3"))
    assert [reading.record().review is not None for reading in kept.values()] == [False, False, True]


@pytest.mark.parametrize(
    "spoil",
    [
        sa.update(consent_shape).values(reader="another version"),
        sa.update(consent_shape).values(text=sa.func.replace(consent_shape.c.text, "deny", "permit")),
        sa.delete(consent_reading),
    ],
    ids=["of another version", "damaged", "absent"],
)
def test_what_cannot_be_relied_on_is_read_from_the_text(store: sa.Engine, spoil: sa.Executable) -> None:
    load(store, consent_of("A1", "deny"), consent_of("A2"))
    with store.begin() as db:
        db.execute(spoil)

    assert same(read(store), read_anew(store))


def test_a_new_version_keeps_shapes_of_its_own(store: sa.Engine, monkeypatch: pytest.MonkeyPatch) -> None:
    load(store, consent_of("A1"))
    monkeypatch.setattr(readings, "version", lambda: "the next version")
    load(store, consent_of("A2"))

    assert same(read(store), read_anew(store))
    with store.connect() as db:
        assert set(db.scalars(sa.select(consent_shape.c.reader))) > {"the next version"}

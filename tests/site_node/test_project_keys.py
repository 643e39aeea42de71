"""A project's keys: its own, rotated without loss, destroyed for good, each step on the record."""

from __future__ import annotations

import json
from datetime import UTC, datetime
from typing import TYPE_CHECKING

import pytest
import sqlalchemy as sa

from site_node import keys, project_keys
from site_node.deidentify.pseudonym import Known, Pseudonymiser
from site_node.errors import ConfigurationError
from site_node.reidentification import Vault, remember
from site_node.store import identity, ledger, project_key

if TYPE_CHECKING:
    from pathlib import Path

AT = datetime(2026, 6, 1, 12, tzinfo=UTC)
IDENTITY_KEY = bytes(reversed(range(32)))


def create(store: sa.Engine, root: Path, project: str, **more: str) -> str:
    return project_keys.create(store, root, project, "anna", AT, **more)


def current(store: sa.Engine, root: Path, project: str) -> Pseudonymiser:
    with store.connect() as db:
        return project_keys.pseudonymiser(db, root, project)


def entries(store: sa.Engine) -> list[str]:
    with store.connect() as db:
        return list(db.scalars(sa.select(ledger.c.entry).order_by(ledger.c.number)))


def states(store: sa.Engine, project: str) -> list[str]:
    with store.connect() as db:
        return [key.state for key in project_keys.generations(db, project)]


def test_each_project_has_a_key_of_its_own_that_stays_the_same(store: sa.Engine, root: Path) -> None:
    create(store, root, "one")
    create(store, root, "two")

    assert current(store, root, "one").patient("4711") == current(store, root, "one").patient("4711")
    assert current(store, root, "one").patient("4711") != current(store, root, "two").patient("4711")
    assert entries(store) == ["site:key:created"] * 2


def test_nothing_on_record_tells_the_key(store: sa.Engine, root: Path) -> None:
    key_id = create(store, root, "one")
    (file,) = (root / "identity" / "projects").iterdir()
    key = file.read_bytes()

    store.dispose()
    for database in root.glob("site.db*"):
        assert key not in database.read_bytes()
        assert key.hex().encode() not in database.read_bytes()
    assert file.stat().st_mode & 0o777 == 0o600
    assert key_id not in key.hex()


def test_a_project_has_one_current_key(store: sa.Engine, root: Path) -> None:
    create(store, root, "one")

    with pytest.raises(ConfigurationError, match="has a key: rotate it"):
        create(store, root, "one")
    with pytest.raises(ConfigurationError, match="no key"):
        current(store, root, "two")
    with pytest.raises(ConfigurationError, match="no key: create one"):
        project_keys.rotate(store, root, "two", "anna", AT)
    with pytest.raises(ConfigurationError, match="name"):
        create(store, root, " ")


def test_a_rotation_makes_new_pseudonyms_and_keeps_the_old_key_for_reading(store: sa.Engine, root: Path) -> None:
    old = create(store, root, "one")
    before = current(store, root, "one").patient("4711")

    new = project_keys.rotate(store, root, "one", "anna", AT)

    assert current(store, root, "one").key_id == new != old
    assert current(store, root, "one").patient("4711") != before
    with store.connect() as db:
        kept = project_keys.by_id(db, root, old)
    assert kept is not None
    assert kept.patient("4711") == before
    assert states(store, "one") == ["retired", "current"]


def test_a_destroyed_key_is_gone_with_the_identities_under_it(store: sa.Engine, root: Path) -> None:
    key_id = create(store, root, "one")
    create(store, root, "two")
    for project in ("one", "two"):
        pseudonyms = current(store, root, project)
        with store.begin() as db:
            known = Known("patient", pseudonyms.patient("4711"), "4711")
            assert remember(db, Vault(IDENTITY_KEY, pseudonyms), [known]) == 1

    assert project_keys.destroy(store, root, "one", "anna", AT) == (key_id,)

    assert states(store, "one") == ["destroyed"]
    assert not (root / f"identity/projects/{key_id}.key").exists()
    with store.connect() as db:
        assert project_keys.by_id(db, root, key_id) is None
        left = list(db.scalars(sa.select(identity.c.key_id)))
    assert left == [current(store, root, "two").key_id]
    assert entries(store)[-2:] == ["site:key:destroyed", "site:key:erased"]
    with pytest.raises(ConfigurationError, match="no such key"):
        project_keys.destroy(store, root, "one", "anna", AT)


def test_one_generation_can_be_destroyed_and_a_project_can_begin_again(store: sa.Engine, root: Path) -> None:
    create(store, root, "one")
    project_keys.rotate(store, root, "one", "anna", AT)

    project_keys.destroy(store, root, "one", "anna", AT, 1)
    assert states(store, "one") == ["destroyed", "current"]

    project_keys.destroy(store, root, "one", "anna", AT)
    create(store, root, "one")
    assert states(store, "one") == ["destroyed", "destroyed", "current"]


def test_a_destruction_that_a_crash_interrupted_is_finished(store: sa.Engine, root: Path) -> None:
    key_id = create(store, root, "one")
    kept = (root / f"identity/projects/{key_id}.key").read_bytes()
    project_keys.destroy(store, root, "one", "anna", AT)
    keys.make_file(root / f"identity/projects/{key_id}.key", kept)
    with store.begin() as db:
        db.execute(sa.update(project_key).values(erased_at=None))
    assert states(store, "one") == ["destroying"]

    with store.connect() as db:
        assert project_keys.by_id(db, root, key_id) is None
    assert project_keys.destroy(store, root, "one", "anna", AT) == (key_id,)

    assert states(store, "one") == ["destroyed"]
    assert not (root / f"identity/projects/{key_id}.key").exists()
    assert entries(store).count("site:key:destroyed") == 1


def test_a_key_file_that_was_exchanged_is_noticed(store: sa.Engine, root: Path) -> None:
    key_id = create(store, root, "one")
    (root / f"identity/projects/{key_id}.key").write_bytes(bytes(32))

    with pytest.raises(ConfigurationError, match="not the one on record"):
        current(store, root, "one")


def test_two_projects_cannot_share_a_key(store: sa.Engine, root: Path) -> None:
    keys.make_file(root / "identity" / "shared.key", bytes(range(32)))
    keys.make_file(root / "identity" / "copy.key", bytes(range(32)))
    create(store, root, "one", reference="file:identity/shared.key")

    for reference in ("file:identity/shared.key", "file:identity/copy.key"):
        with pytest.raises(ConfigurationError, match="its own"):
            create(store, root, "two", reference=reference)


def test_the_record_says_who_made_and_who_destroyed(store: sa.Engine, root: Path) -> None:
    key_id = create(store, root, "one")
    project_keys.destroy(store, root, "one", "bert", AT)

    with store.connect() as db:
        details = [json.loads(row) for row in db.scalars(sa.select(ledger.c.detail).order_by(ledger.c.number))]
    assert [(detail["key"], detail.get("by")) for detail in details] == [
        (key_id, "anna"),
        (key_id, "bert"),
        (key_id, None),
    ]


def test_a_site_notices_when_another_key_is_named(store: sa.Engine) -> None:
    project_keys.check_site_key(store, Pseudonymiser(bytes(range(32))))
    project_keys.check_site_key(store, Pseudonymiser(bytes(range(32))))

    with pytest.raises(ConfigurationError, match="pseudonym_key: not the key"):
        project_keys.check_site_key(store, Pseudonymiser(bytes(32)))


def test_nobody_makes_or_destroys_a_key_without_a_name(store: sa.Engine, root: Path) -> None:
    with pytest.raises(ConfigurationError, match="who did it"):
        project_keys.create(store, root, "one", " ", AT)
    create(store, root, "one")
    with pytest.raises(ConfigurationError, match="who did it"):
        project_keys.destroy(store, root, "one", "", AT)

    assert states(store, "one") == ["current"]

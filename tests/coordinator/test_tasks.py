"""A partner's task is kept by its digest, and nobody gets a partner's rights without its token."""

from __future__ import annotations

import json
from datetime import timedelta
from typing import TYPE_CHECKING

import pytest
import sqlalchemy as sa

from coordinator import tasks
from coordinator.errors import ConfigurationError, PeerError
from coordinator.store import partner
from models import TaskRefused, canonical, task_digest
from tests.coordinator.conftest import NOON
from tests.federation import DOCUMENT, TASK

if TYPE_CHECKING:
    from tests.coordinator.conftest import Office


def admitted(office: Office, name: str = "acme") -> str:
    document = json.loads(tasks.add_partner(office.store, office.config, office.authority, name, NOON))
    assert document["url"] == "https://127.0.0.1:9444"
    return str(document["token"])


def test_a_partner_is_known_by_its_token_alone(office: Office) -> None:
    tokens = {name: admitted(office, name) for name in ("acme", "beta")}

    assert {name: tasks.partner_of(office.store, token) for name, token in tokens.items()} == {
        "acme": "acme",
        "beta": "beta",
    }


@pytest.mark.parametrize("token", ["", "acme", "Bearer", "0" * 64])
def test_a_token_nobody_was_given_is_refused(office: Office, token: str) -> None:
    admitted(office)

    with pytest.raises(PeerError, match="token"):
        tasks.partner_of(office.store, token)


def test_the_digest_in_the_database_is_no_token(office: Office) -> None:
    token = admitted(office)
    with office.store.connect() as db:
        kept = str(db.execute(sa.select(partner.c.token_sha256)).scalar())

    assert kept != token
    with pytest.raises(PeerError):
        tasks.partner_of(office.store, kept)


def test_a_partners_name_is_taken_once(office: Office) -> None:
    token = admitted(office)

    with pytest.raises(ConfigurationError, match="acme"):
        admitted(office)
    assert tasks.partner_of(office.store, token) == "acme"


def test_a_revoked_partners_token_opens_nothing_and_its_tasks_stay(office: Office) -> None:
    token = admitted(office)
    digest = tasks.submit(office.store, DOCUMENT, "acme", NOON)

    tasks.revoke_partner(office.store, "acme", NOON)

    with pytest.raises(PeerError, match="token"):
        tasks.partner_of(office.store, token)
    assert task_digest(tasks.find(office.store, digest)) == digest
    with pytest.raises(ConfigurationError, match="not a partner"):
        tasks.revoke_partner(office.store, "acme", NOON)


def test_a_revoked_partner_is_admitted_again_with_another_token(office: Office) -> None:
    old = admitted(office)
    tasks.revoke_partner(office.store, "acme", NOON)

    new = admitted(office)

    assert tasks.partner_of(office.store, new) == "acme"
    with pytest.raises(PeerError):
        tasks.partner_of(office.store, old)


def test_a_task_is_found_again_by_its_digest(office: Office) -> None:
    admitted(office)

    digest = tasks.submit(office.store, DOCUMENT, "acme", NOON)

    found = tasks.find(office.store, digest)
    assert task_digest(found) == digest
    assert tasks.offered(office.store) == [(digest, canonical(found).decode(), ["acme"])]


def test_the_same_task_in_another_spelling_is_the_same_task(office: Office) -> None:
    admitted(office)
    spelt = json.dumps(dict(reversed(TASK.items())), indent=4).encode()

    digests = {tasks.submit(office.store, document, "acme", NOON) for document in (DOCUMENT, spelt)}

    assert len(digests) == len(tasks.offered(office.store)) == 1


def test_a_task_that_two_partners_submit_is_one_task_of_both(office: Office) -> None:
    for name in ("beta", "acme"):
        admitted(office, name)

    digests = {tasks.submit(office.store, DOCUMENT, name, NOON) for name in ("beta", "acme", "beta")}

    assert [(digest, partners) for digest, _, partners in tasks.offered(office.store)] == [
        (digests.pop(), ["acme", "beta"])
    ]
    assert not digests


def test_tasks_are_offered_oldest_first(office: Office) -> None:
    admitted(office)
    documents = [json.dumps({**TASK, "name": name}).encode() for name in ("first", "second")]
    digests = [
        tasks.submit(office.store, document, "acme", NOON + timedelta(days=-day))
        for day, document in enumerate(documents)
    ]

    assert [digest for digest, _, _ in tasks.offered(office.store)] == digests[::-1]


def test_a_task_that_is_not_accepted_is_not_kept(office: Office) -> None:
    admitted(office)

    with pytest.raises(TaskRefused, match="code: unknown key"):
        tasks.submit(office.store, json.dumps({**TASK, "code": "import os"}).encode(), "acme", NOON)
    assert tasks.offered(office.store) == []


def test_an_unknown_task_says_where_to_look(office: Office) -> None:
    with pytest.raises(ConfigurationError, match="tasks list"):
        tasks.find(office.store, "0" * 64)

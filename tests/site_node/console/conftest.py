"""A hospital whose console people use: two consent managers and an auditor."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest
import sqlalchemy as sa

from site_node import accounts
from site_node.accounts import Role
from site_node.app import open_site
from site_node.console.frame import Console
from site_node.console.guard import Guard
from site_node.console.pages import console_pages
from site_node.store import account, open_store
from tests.site_node.console.browser import HOST, MAX_BYTES, PASSWORD, Browser, Client
from tests.site_node.hospital import NOON, Clock, Hospital

if TYPE_CHECKING:
    from collections.abc import Iterator

PEOPLE = {"mara": Role.CONSENT_MANAGER, "nils": Role.CONSENT_MANAGER, "otto": Role.AUDITOR}


@pytest.fixture(scope="session")
def people(tmp_path_factory: pytest.TempPathFactory) -> list[dict[str, Any]]:
    """Return the accounts as a site keeps them; their passwords are slow to make, so once for all tests."""
    store = open_store(tmp_path_factory.mktemp("people") / "site.db")
    for name, role in PEOPLE.items():
        accounts.add(store, name, role, PASSWORD, NOON)
    with store.connect() as db:
        rows = [dict(row) for row in db.execute(sa.select(account)).mappings()]
    store.dispose()
    return rows


@pytest.fixture
def hospital(open_hospital: Hospital, people: list[dict[str, Any]]) -> Hospital:
    """Return a hospital with these people."""
    with open_hospital.store.begin() as db:
        db.execute(sa.insert(account), people)
    return open_hospital


@pytest.fixture
def clock(hospital: Hospital) -> Clock:
    """Return the hospital's clock."""
    return hospital.clock


@pytest.fixture
def browser(hospital: Hospital, clock: Clock) -> Iterator[Browser]:
    """Yield a browser that nobody signed in with yet."""
    site = open_site(hospital.home.root)
    guarded = Guard(console_pages(Console(site, "demo", clock)), frozenset({HOST}), MAX_BYTES)
    client = Client(guarded)
    yield Browser(client)
    client.close()
    site.store.dispose()


@pytest.fixture
def manager(browser: Browser) -> Browser:
    """Return the browser, in which a consent manager signed in."""
    assert browser.sign_in("mara").headers["location"] == "/"
    return browser

"""Consents are read from a FHIR server over real HTTP, page by page, and a reading is whole or does not count."""

from __future__ import annotations

import json
import threading
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from email.utils import format_datetime
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import TYPE_CHECKING, Any
from urllib.parse import parse_qs, urlsplit

import pytest

from consent import parse_consent
from site_node import fhir_server
from site_node.app import create_site
from site_node.config import SiteHome
from site_node.errors import ConfigurationError, PeerError
from site_node.store import consent_record, open_store
from tests.site_node.hospital import consent_of
from tests.site_node.test_cli import refused, run

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

LONG_AGO = datetime(2026, 1, 1, tzinfo=UTC)


@dataclass(slots=True)
class Server:
    """What the hospital's FHIR server holds: consents, and a search over pages counted from the beginning each time."""

    address: str = ""
    page_size: int = 2
    held: dict[str, dict[str, Any]] = field(default_factory=dict)
    asked: list[str] = field(default_factory=list)
    tokens: list[str | None] = field(default_factory=list)
    status: int = 200
    date: datetime | None = None
    after_page: Callable[[], None] = lambda: None
    change: Callable[[dict[str, Any]], object] = lambda _bundle: None
    body: bytes | None = None

    def put(self, patient: str, at: datetime, /, **elements: Any) -> None:
        """Store a version of a patient's consent."""
        resource = consent_of(patient, **elements) | {"meta": {"lastUpdated": at.isoformat()}}
        self.held[resource["id"]] = resource

    def answer(self, path: str) -> bytes:
        """Return a page as JSON."""
        self.asked.append(path)
        query = {name: values[0] for name, values in parse_qs(urlsplit(path).query).items()}
        since = query.get("_lastUpdated", "ge0000").removeprefix("ge")
        found = sorted(
            (one for one in self.held.values() if one["meta"]["lastUpdated"] >= since),
            key=lambda one: str(one["meta"]["lastUpdated"]),
            reverse=query.get("_sort") == "-_lastUpdated",
        )
        start = int(query.get("_offset", "0"))
        size = min(self.page_size, int(query.get("_count", "500")))
        bundle: dict[str, Any] = {
            "resourceType": "Bundle",
            "type": "searchset",
            "total": len(found),
            "link": [{"relation": "self", "url": self.address}],
            "entry": [{"resource": one, "search": {"mode": "match"}} for one in found[start : start + size]],
        }
        if start + size < len(found):
            following = f"{self.address}/Consent?_offset={start + size}&_lastUpdated=ge{since}"
            bundle["link"].append({"relation": "next", "url": following})
        self.change(bundle)
        self.after_page()
        return self.body if self.body is not None else json.dumps(bundle).encode()


@pytest.fixture
def server() -> Iterator[Server]:
    """Yield a server that listens, with five consents from long ago."""
    made = Server()

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            made.tokens.append(self.headers.get("Authorization"))
            body = made.answer(self.path)
            self.send_response_only(made.status)
            self.send_header("Date", format_datetime(made.date or datetime.now(UTC), usegmt=True))
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

    listening = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    thread = threading.Thread(target=listening.serve_forever, daemon=True)
    thread.start()
    made.address = f"http://127.0.0.1:{listening.server_port}/fhir"
    for number in range(5):
        made.put(f"N{number}", LONG_AGO + timedelta(days=number))
    yield made
    listening.shutdown()
    thread.join()
    listening.server_close()


@pytest.fixture
def home(root: Path) -> Path:
    """Return the folder of a site that was just made."""
    create_site(root, "north")
    return root


def read(server: Server, since: datetime | None = None) -> list[str]:
    with fhir_server.connect(server.address) as connected:
        pages = list(connected.consents(since, datetime.now(UTC)))
    return [consent["id"] for page in pages for consent in page]


@contextmanager
def held(home: Path) -> Iterator[list[str]]:
    store = open_store(SiteHome(home).database)
    with store.connect() as db:
        yield [row.consent_id for row in db.execute(consent_record.select()) if row.superseded_at is None]
    store.dispose()


def test_every_page_is_read_and_only_once(server: Server) -> None:
    assert read(server) == [f"consent-N{number}" for number in range(5)]
    assert len(server.asked) == 1 + 3
    assert set(parse_qs(urlsplit(server.asked[1]).query)) == {"_sort", "_count", "_total", "_include"}


def test_a_later_reading_asks_for_what_changed_since_with_some_overlap(server: Server) -> None:
    since = LONG_AGO + timedelta(days=3, minutes=5)

    assert read(server, since) == ["consent-N3", "consent-N4"]
    assert read(server, since + timedelta(minutes=6)) == ["consent-N4"]


def test_the_command_loads_and_the_source_is_recent_and_a_revocation_arrives_with_the_next_reading(
    home: Path, server: Server
) -> None:
    done = run(home, "consents", "fetch", server.address)
    assert done.returncode == 0, done.stderr
    assert "5 consents loaded" in done.stdout
    server.asked.clear()
    server.put("N1", datetime.now(UTC), kind="deny", status="inactive", dateTime="2026-02-01T00:00:00Z")

    done = run(home, "consents", "fetch", server.address)

    assert "1 consents loaded" in done.stdout
    assert len(server.asked) == 3  # the newest, what changed, and how many there are
    (source,) = json.loads(run(home, "consents", "sources", "--json").stdout)
    assert (source["source"], source["recent"]) == ("fhir", True)
    with held(home) as records:
        assert sorted(records) == [f"consent-N{number}" for number in range(5)]
    assert "0 consents loaded" in run(home, "consents", "fetch", server.address, "--all").stdout
    assert len(server.asked) == 3 + 1 + 3


def test_a_consent_that_slips_to_a_page_already_read_makes_the_reading_void(home: Path, server: Server) -> None:
    def n0_changes_after_the_first_page() -> None:
        if len(server.asked) == 2:
            server.put("N0", datetime.now(UTC) + timedelta(seconds=2), status="inactive")

    server.after_page = n0_changes_after_the_first_page

    refused(run(home, "consents", "fetch", server.address), 5, "not all were shown: read them again")
    assert json.loads(run(home, "consents", "sources", "--json").stdout) == []

    assert run(home, "consents", "fetch", server.address).returncode == 0
    with held(home) as records:
        assert sorted(records) == [f"consent-N{number}" for number in range(5)]


def test_what_comes_new_while_it_is_read_does_no_harm(server: Server) -> None:
    def one_more_after_the_first_page() -> None:
        if len(server.asked) == 2:
            server.put("N9", datetime.now(UTC) + timedelta(seconds=2))

    server.after_page = one_more_after_the_first_page

    assert read(server) == [f"consent-N{number}" for number in (0, 1, 2, 3, 4, 9)]


def without_meta(bundle: dict[str, Any]) -> None:
    for entry in bundle["entry"]:
        entry["resource"] = {key: value for key, value in entry["resource"].items() if key != "meta"}


def going_on_at(url: str) -> Callable[[dict[str, Any]], None]:
    return lambda bundle: bundle["link"].insert(0, {"relation": "next", "url": url})


@pytest.mark.parametrize(
    ("change", "expected"),
    [
        ({"status": 500}, "answered 500"),
        ({"status": 302}, "answered 302"),
        ({"body": b"<html>"}, "is not JSON"),
        ({"body": b"[" * 200_000}, "is not JSON"),
        ({"body": b'{"resourceType": "OperationOutcome"}'}, "is not a Bundle"),
        ({"date": datetime(2020, 1, 1, tzinfo=UTC)}, "clock"),
        ({"change": lambda bundle: bundle.pop("total")}, "Bundle.total"),
        ({"change": lambda bundle: bundle["entry"].append({})}, "an entry without a resource"),
        ({"change": lambda bundle: bundle.update(entry="x")}, "an entry without a resource"),
        ({"change": going_on_at("http://elsewhere/x")}, "another server"),
        ({"change": going_on_at("Consent?a=1")}, "in a circle"),
        ({"change": without_meta}, "meta.lastUpdated"),
    ],
)
def test_an_answer_that_cannot_be_trusted_is_no_reading(server: Server, change: dict[str, Any], expected: str) -> None:
    for name, value in change.items():
        setattr(server, name, value)

    with pytest.raises(PeerError, match=expected):
        read(server)


def test_a_remark_of_the_server_is_no_consent(server: Server) -> None:
    remark = {"resource": {"resourceType": "OperationOutcome", "issue": []}, "search": {"mode": "outcome"}}
    server.change = lambda bundle: bundle["entry"].append(remark)

    assert len(read(server)) == 5


def test_a_patient_named_by_another_system_is_none_of_this_hospitals(home: Path, server: Server) -> None:
    with (home / "site.toml").open("a") as file:
        file.write('patient_system = "urn:hospital"\n')
    own, insurers = ({"identifier": {"system": system, "value": "7"}} for system in ("urn:hospital", "urn:insurer"))
    server.held.clear()
    server.put("N1", LONG_AGO, patient=own)
    server.put("N2", LONG_AGO, patient=insurers)

    done = run(home, "consents", "fetch", server.address)

    assert done.returncode == 1
    assert "1 consents loaded" in done.stdout
    assert "not loaded: Consent/consent-N2: patient: not named by an identifier" in done.stderr


def test_a_server_that_is_down_is_told(home: Path) -> None:
    refused(run(home, "consents", "fetch", "http://127.0.0.1:9/fhir"), 5, "reading consents: ConnectError")


@pytest.mark.parametrize("address", ["http://fhir.hospital.example/r4", "ftp://127.0.0.1/", "fhir", "https://[::1"])
def test_patients_consents_are_not_read_in_the_clear(address: str) -> None:
    with pytest.raises(ConfigurationError, match="address"), fhir_server.connect(address):
        pass


def test_a_token_is_sent_and_kept_by_its_owner_alone(home: Path, server: Server) -> None:
    token = home.parent / "token"
    token.write_text("secret-token\n")
    token.chmod(0o644)
    refused(run(home, "consents", "fetch", server.address, "--token", token), 4, "open to others")
    assert server.asked == []

    token.chmod(0o600)
    done = run(home, "consents", "fetch", server.address, "--token", token)

    assert done.returncode == 0, done.stderr
    assert set(server.tokens) == {"Bearer secret-token"}
    assert "secret-token" not in done.stdout + done.stderr


def test_what_a_server_names_twice_in_a_consent_is_not_understood_and_elsewhere_is_no_reading(server: Server) -> None:
    server.held = {}
    server.put("A1", LONG_AGO)
    sound = server.answer("?_sort=-_lastUpdated").decode()
    twice = sound.replace('"provision": {', '"provision": {"type": "deny"}, "provision": {')
    assert twice != sound

    server.body = twice.encode()
    with fhir_server.connect(server.address) as connected:
        (page,) = connected.consents(None, datetime.now(UTC))
    assert parse_consent(page[0]).record.review == "namedTwice: unknown element"

    for name in ('"entry": [', '"resource": {"resourceType"'):
        server.body = sound.replace(name, f"{name.split(':')[0]}: null, {name}").encode()
        assert server.body != sound.encode()
        with fhir_server.connect(server.address) as connected, pytest.raises(PeerError):
            list(connected.consents(None, datetime.now(UTC)))

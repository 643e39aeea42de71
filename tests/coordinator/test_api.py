"""The open door through real TLS: partners and joining sites get what is theirs, and everybody else a refusal."""

from __future__ import annotations

import json
import zipfile
from dataclasses import dataclass
from datetime import UTC, datetime
from io import BytesIO
from typing import TYPE_CHECKING

import httpx
import pytest
from cryptography.hazmat.primitives.asymmetric import ec
from fastapi import FastAPI, Response

from coordinator import members, partner, runs, tasks
from coordinator.api import open_door
from coordinator.authority import create_authority
from coordinator.config import CoordinatorConfig
from coordinator.errors import ConfigurationError, PeerError
from coordinator.listener import Limited, Listener
from coordinator.runs import RunRecord
from coordinator.service import MAX_DOOR_BYTES
from coordinator.store import open_store
from site_node.errors import PeerError as SitePeerError
from site_node.link import post_join
from tests.coordinator.parts import HOST, free_port, public_pem, receipt_pem, signing_request, trusting
from tests.federation import DOCUMENT, TASK

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    import sqlalchemy as sa

    from coordinator.authority import Authority


@dataclass(frozen=True, slots=True)
class Door:
    """A listening open door and what stands behind it."""

    config: CoordinatorConfig
    store: sa.Engine
    authority: Authority
    folder: Path
    arrived: list[tuple[str, bytes]]

    @property
    def url(self) -> str:
        """Where it listens."""
        return f"https://{HOST}:{self.config.join_port}"

    def admit(self, name: str) -> partner.Access:
        """Return the access of a new partner."""
        document = tasks.add_partner(self.store, self.config, self.authority, name, datetime.now(UTC))
        path = self.folder / f"{name}.json"
        path.write_text(document)
        return partner.read_access(path)

    def client(self) -> httpx.Client:
        """Return a client without a certificate of its own."""
        return httpx.Client(verify=trusting(self.authority), base_url=self.url)

    def invite(self, site: str) -> str:
        """Return the token of a new invitation."""
        document = members.invite(self.store, self.config, self.authority, site, datetime.now(UTC))
        return str(json.loads(document)["token"])


@pytest.fixture(scope="module")
def door(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Door]:
    folder = tmp_path_factory.mktemp("door")
    config = CoordinatorConfig("north-sea", HOST, join_port=free_port())
    store = open_store(folder / "coordinator.db")
    made = Door(
        config, store, create_authority(folder / "keys", config.federation, HOST, datetime.now(UTC)), folder, []
    )
    app = open_door(
        store,
        config.federation,
        made.authority,
        lambda _key, site: sum(site.encode()),
        folder / "runs",
        lambda: datetime.now(UTC),
    )
    limited = Limited(app, MAX_DOOR_BYTES, lambda path, body: made.arrived.append((path, body)))
    listener = Listener(limited, (HOST, config.join_port), made.authority, client_certificates=False)
    listener.start()
    yield made
    listener.stop()
    store.dispose()


def form(token: str) -> dict[str, str]:
    key = ec.generate_private_key(ec.SECP256R1())
    return {
        "token": token,
        "signing_request": signing_request(key).decode(),
        "node_key": public_pem(key.public_key()).decode(),
        "receipt_key": receipt_pem().decode(),
    }


# ------------------------------------------------------------------ partners


def test_a_partner_submits_a_task_and_fetches_the_finished_bundle_of_its_run(door: Door, tmp_path: Path) -> None:
    access = door.admit("acme")
    digest = partner.submit(access, DOCUMENT)
    run = runs.request(door.store, digest, datetime.now(UTC))
    with pytest.raises(PeerError, match="no finished model"):
        partner.fetch_bundle(access, run, tmp_path / "early")
    bundle = door.folder / "runs" / run / "bundle"
    (bundle / "configs").mkdir(parents=True)
    (bundle / "configs" / "metadata.json").write_text("{}")
    with pytest.raises(PeerError, match="no finished model"):
        partner.fetch_bundle(access, run, tmp_path / "half")
    RunRecord(door.store, door.folder / "runs", run).end("finished", "", datetime.now(UTC))

    partner.fetch_bundle(access, run, tmp_path / "bundle")

    assert (tmp_path / "bundle" / "configs" / "metadata.json").read_text() == "{}"
    assert not (tmp_path / "early").exists()
    with pytest.raises(ConfigurationError, match="exists already"):
        partner.fetch_bundle(access, run, tmp_path / "bundle")


def test_each_partner_that_submitted_a_task_fetches_the_bundle_of_its_run(door: Door, tmp_path: Path) -> None:
    document = json.dumps({**TASK, "name": "shared"}).encode()
    both = [door.admit("one"), door.admit("two")]
    digest, same = [partner.submit(access, document) for access in both]
    run = runs.request(door.store, digest, datetime.now(UTC))
    (door.folder / "runs" / run / "bundle").mkdir(parents=True)
    RunRecord(door.store, door.folder / "runs", run).end("finished", "", datetime.now(UTC))

    for number, access in enumerate(both):
        partner.fetch_bundle(access, run, tmp_path / str(number))

    assert digest == same
    with pytest.raises(PeerError, match="no such run of this partner"):
        partner.fetch_bundle(door.admit("three"), run, tmp_path / "third")


def test_a_run_of_another_partner_and_one_that_does_not_exist_look_the_same(door: Door, tmp_path: Path) -> None:
    owner, other = door.admit("owner"), door.admit("other")
    digest = partner.submit(owner, json.dumps({**TASK, "name": "owned"}).encode())
    run = runs.request(door.store, digest, datetime.now(UTC))
    (door.folder / "runs" / run / "bundle").mkdir(parents=True)
    RunRecord(door.store, door.folder / "runs", run).end("finished", "", datetime.now(UTC))

    said = []
    for name in (run, "run-00000000", "..", "%2e%2e"):
        with pytest.raises(PeerError) as refused:
            partner.fetch_bundle(other, name, tmp_path / "bundle")
        said.append(str(refused.value))

    assert said[0] == said[1] == "refused (404): there is no such run of this partner"
    assert all("404" in one for one in said)
    partner.fetch_bundle(owner, run, tmp_path / "bundle")


def whole_bundle() -> bytes:
    file = BytesIO()
    with zipfile.ZipFile(file, "w") as archive:
        archive.writestr("configs/metadata.json", "{}" * 100)
    return file.getvalue()


DAMAGED = {
    "nothing": b"",
    "a page": b"<html>",
    "half a bundle": whole_bundle()[:-40],
    "a changed byte": whole_bundle().replace(b"{}{}", b"{}[}", 1),
}


@pytest.mark.parametrize("what", DAMAGED)
def test_a_bundle_that_is_damaged_on_the_way_is_told_and_leaves_nothing(door: Door, tmp_path: Path, what: str) -> None:
    proxy, port = FastAPI(openapi_url=None), free_port()
    proxy.get("/v1/runs/{run}/bundle")(lambda run: Response(DAMAGED[what], headers={"x-run": run}))
    listener = Listener(proxy, (HOST, port), door.authority, client_certificates=False)
    access = door.admit(f"reader of {what}").model_copy(update={"url": f"https://{HOST}:{port}"})
    listener.start()

    with pytest.raises(PeerError, match="not a whole bundle"):
        partner.fetch_bundle(access, "run-1", tmp_path / "bundle")

    listener.stop()
    assert not (tmp_path / "bundle").exists()


@pytest.mark.parametrize("header", [{}, {"authorization": "Bearer guessed"}, {"authorization": "Basic YTpi"}])
@pytest.mark.parametrize(("method", "path"), [("POST", "/v1/tasks"), ("GET", "/v1/runs/run-1/bundle")])
def test_without_a_known_token_everything_of_the_partners_is_forbidden(
    door: Door, method: str, path: str, header: dict[str, str]
) -> None:
    with door.client() as client:
        assert client.request(method, path, content=DOCUMENT, headers=header).status_code == 403


def test_a_task_that_is_not_accepted_is_refused_with_the_key_that_is_wrong(door: Door) -> None:
    access = door.admit("careless")

    with pytest.raises(PeerError, match=r"refused \(422\): rounds: 0 is below 1"):
        partner.submit(access, json.dumps({**TASK, "rounds": 0}).encode())


def test_a_coordinator_with_another_authority_is_not_trusted(door: Door, tmp_path: Path) -> None:
    stranger = create_authority(tmp_path / "stranger", "north-sea", HOST, datetime.now(UTC))
    access = door.admit("wary").model_copy(update={"authority": stranger.certificate.read_text()})

    with pytest.raises(PeerError, match="cannot be reached"):
        partner.submit(access, DOCUMENT)


@pytest.mark.parametrize("content", [None, "", "{}", '{"url": "u", "authority": "a", "token": 7}'])
def test_a_file_that_is_no_access_file_is_named(tmp_path: Path, content: str | None) -> None:
    path = tmp_path / "access.json"
    if content is not None:
        path.write_text(content)

    with pytest.raises(ConfigurationError, match=r"access\.json"):
        partner.read_access(path)


# ------------------------------------------------------------------ joining


def test_a_site_joins_with_its_invitation_once(door: Door) -> None:
    asked = form(door.invite("north"))
    authority = door.authority.certificate.read_text()

    answer = post_join(door.url, authority, asked)

    assert answer.keys() == {"certificate", "node_id"}
    with pytest.raises(SitePeerError, match="refused the invitation"):
        post_join(door.url, authority, asked)


def test_a_form_whose_keys_are_wrong_is_forbidden_and_not_an_error(door: Door) -> None:
    with door.client() as client:
        answer = client.post("/v1/join", json={**form(door.invite("west")), "node_key": "no key"})

    assert answer.status_code == 403


@pytest.mark.parametrize(
    ("change", "key"),
    [
        ({"token": None}, "token"),
        ({"token": ""}, "token"),
        ({"token": 7}, "token"),
        ({"node_key": "x" * 16_385}, "node_key"),
        ({"site": "west"}, "site"),
    ],
)
def test_a_malformed_form_is_refused_by_the_name_of_its_key(door: Door, change: dict[str, object], key: str) -> None:
    with door.client() as client:
        answer = client.post("/v1/join", json={**form("guessed"), **change})

    assert answer.status_code == 422
    assert [fault["loc"] for fault in answer.json()["detail"]] == [["body", key]]
    assert "guessed" not in answer.text


@pytest.mark.parametrize("body", [b"", b"{", b"[]", b"\xff", b'{"token": "\\ud800"}', b"[" * 100_000])
def test_a_body_that_is_no_form_is_a_client_error(door: Door, body: bytes) -> None:
    with door.client() as client:
        answer = client.post("/v1/join", content=body, headers={"content-type": "application/json"})

    assert answer.is_client_error


# ------------------------------------------------------------------ the door itself


@pytest.mark.parametrize("path", ["/v1/join", "/v1/tasks", "/anything"])
def test_a_body_above_the_bound_is_refused_before_it_is_read_by_anyone(door: Door, path: str) -> None:
    before = len(door.arrived)
    with door.client() as client:
        answer = client.post(path, content=b"x" * (MAX_DOOR_BYTES + 1))

    assert answer.status_code == 413
    assert len(door.arrived) == before


def test_a_body_at_the_bound_arrives_whole(door: Door) -> None:
    with door.client() as client:
        client.post("/anything", content=b"x" * MAX_DOOR_BYTES)

    assert door.arrived[-1] == ("/anything", b"x" * MAX_DOOR_BYTES)


@pytest.mark.parametrize(
    "path", ["/docs", "/redoc", "/openapi.json", "/", "/v1/members/tasks", "/v1/fleet/pull-messages"]
)
def test_there_is_nothing_else_behind_the_open_door(door: Door, path: str) -> None:
    with door.client() as client:
        assert {client.get(path).status_code, client.post(path).status_code} == {404}


def test_plain_http_gets_no_answer(door: Door) -> None:
    with httpx.Client() as client, pytest.raises(httpx.TransportError):
        client.get(f"http://{HOST}:{door.config.join_port}/")

"""The fleet listener over real sockets and real mutual TLS: who gets in, how far, and that what is sent arrives."""

from __future__ import annotations

import sqlite3
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

import httpx
import numpy as np
import pytest
from flwr.app import Array, ArrayRecord, ConfigRecord, Message, RecordDict
from flwr.app.message import remove_content_from_message
from flwr.common.serde import message_to_proto
from flwr.proto.fleet_pb2 import ActivateNodeRequest, PullMessagesRequest, PushMessagesRequest
from flwr.proto.message_pb2 import ConfirmMessageReceivedRequest, ObjectTree, PushObjectRequest
from flwr.proto.node_pb2 import Node
from flwr.server.superlink.linkstate.sql_linkstate import SqlLinkState
from flwr.supercore.inflatable.inflatable_object import get_object_tree
from flwr.supercore.primitives.asymmetric import bytes_to_public_key, public_key_to_bytes
from flwr.supernode.fleet_http_client import FleetHttpClient

from coordinator.authority import create_authority
from coordinator.errors import ConfigurationError
from coordinator.fleet import FLEET_PATHS
from site_node.errors import NotAMember, PeerError, PeerRefused
from site_node.link import connect, get_tasks, tls_context
from tests.coordinator.parts import (
    HOST,
    Consortium,
    new_identity,
    node_pem,
    raw_client,
    registered,
    trusting,
)

if TYPE_CHECKING:
    from pathlib import Path

    from flwr.proto.message_pb2 import PullObjectRequest, PullObjectResponse

    from coordinator.fleet import Fleet, LinkStateGrid
    from site_node.link import Link

DIGEST = "d" * 64


def question(node_id: int, **arrays: np.ndarray) -> Message:
    records = {"arrays": ArrayRecord({name: Array(array) for name, array in arrays.items()})}
    return Message(RecordDict({**records, "ask": ConfigRecord({"n": 1})}), node_id, "train", ttl=60.0)


def answer(link: Link) -> Message:
    """Send back what the next message holds, and return the reply."""
    incoming = link.announce()
    assert incoming is not None
    message = link.fetch(incoming)
    reply = Message(RecordDict({"arrays": message.content["arrays"]}), reply_to=message)
    link.hand_over(reply)
    return reply


# ------------------------------------------------------------------ who gets in


def test_nobody_gets_an_answer_without_a_client_certificate(consortium: Consortium, fleet: Fleet) -> None:
    with httpx.Client(verify=trusting(consortium.authority)) as client, pytest.raises(httpx.TransportError):
        client.get(f"https://{consortium.address}/v1/members/tasks")
    assert fleet.gate.first_byte_at == 0


def test_a_certificate_of_another_authority_opens_nothing(consortium: Consortium, fleet: Fleet, tmp_path: Path) -> None:
    stranger = create_authority(tmp_path / "stranger", "south-sea", HOST, datetime.now(UTC))
    identity = new_identity(tmp_path / "outsider", stranger, consortium.address, "outsider")
    context = tls_context(identity)
    context.load_verify_locations(consortium.authority.certificate)

    with httpx.Client(verify=context) as client, pytest.raises(httpx.TransportError):
        client.get(f"https://{consortium.address}/v1/members/tasks")
    assert fleet.gate.first_byte_at == 0


FORBIDDEN = [
    "/",
    "/docs",
    "/redoc",
    "/openapi.json",
    "/health",
    "/v1/control/start-run",
    "/v1/control/register-node",
    "/v1/runtime/acquire-task",
    "/v1/fleet/register-node",
    "/v1/fleet/unregister-node",
    "/v1/fleet/get-fab",
    "/v1/fleet/get-run",
    "/v1/fleet/pull-messages/",
    "/v1/fleet/../control/start-run",
    "/v1/fleet//pull-messages",
    "/v1/members",
]


def test_a_member_reaches_nothing_but_the_few_routes_a_site_needs(consortium: Consortium, fleet: Fleet) -> None:
    member = consortium.member(fleet, "north")

    with httpx.Client(verify=tls_context(member)) as client:
        answers = [
            client.request(method, f"https://{consortium.address}{path}")
            for path in FORBIDDEN
            for method in ("GET", "POST")
        ]

    assert {answer.status_code for answer in answers} == {404}
    assert not any(answer.content for answer in answers)


def test_a_websocket_does_not_pass_the_gate(consortium: Consortium, fleet: Fleet) -> None:
    member = consortium.member(fleet, "north")
    upgrade = {"connection": "Upgrade", "upgrade": "websocket", "sec-websocket-version": "13", "sec-websocket-key": "x"}

    with httpx.Client(verify=tls_context(member)) as client:
        response = client.get(f"https://{consortium.address}/v1/control/start-run", headers=upgrade)

    assert response.status_code == 404


def test_the_members_pages_are_served_to_members(consortium: Consortium, fleet: Fleet) -> None:
    member = consortium.member(fleet, "north")

    assert get_tasks(consortium.address, member) == (b"one",)


def test_a_revoked_member_is_refused_on_every_route_from_that_moment_on(consortium: Consortium, fleet: Fleet) -> None:
    member, other = consortium.member(fleet, "north"), consortium.member(fleet, "west")
    paths = [*sorted(FLEET_PATHS), "/v1/members/tasks"]

    with httpx.Client(verify=tls_context(member), base_url=f"https://{consortium.address}") as client:
        before = client.get("/v1/members/tasks").status_code
        consortium.revoke(member)
        answers = [client.request(method, path) for path in paths for method in ("GET", "POST")]

    assert before == 200
    assert {(answer.status_code, answer.content) for answer in answers} == {(403, b"not a member")}
    with pytest.raises(NotAMember, match=r"joining the fleet: .* ask it for a new invitation"):
        connect(consortium.address, member).__enter__()
    with pytest.raises(NotAMember):
        get_tasks(consortium.address, member)
    assert get_tasks(consortium.address, other) == (b"one",)


def test_the_held_request_of_a_revoked_member_ends_and_hands_out_nothing(consortium: Consortium, fleet: Fleet) -> None:
    identity = consortium.member(fleet, "north")

    def revoke_and_push() -> None:
        consortium.revoke(identity)
        grid.push_messages([question(identity.node_id)])

    with fleet.open_run("tissue", DIGEST) as grid, connect(consortium.address, identity) as link:
        threading.Timer(0.3, revoke_and_push).start()
        with pytest.raises(NotAMember, match="waiting for work"):
            link.announce()

        assert fleet.state.num_message_ins() == 1


def test_an_unsigned_request_is_refused_on_every_route(consortium: Consortium, fleet: Fleet) -> None:
    member = consortium.member(fleet, "north")

    with httpx.Client(verify=tls_context(member)) as client:
        answers = {path: client.post(f"https://{consortium.address}{path}", content=b"") for path in FLEET_PATHS}

    assert all(answer.is_client_error for answer in answers.values())


def test_a_node_whose_key_is_not_registered_cannot_activate(consortium: Consortium, fleet: Fleet) -> None:
    identity = new_identity(consortium.folder / "north", consortium.authority, consortium.address, "north")

    with pytest.raises(PeerError), connect(consortium.address, identity):
        pass
    assert fleet.state.get_node_id_by_public_key(node_pem(identity)) is None


def test_registering_the_same_key_again_gives_the_same_node(consortium: Consortium, fleet: Fleet) -> None:
    first = consortium.member(fleet, "north")

    assert registered(first, fleet).node_id == first.node_id


def test_a_taken_port_is_reported_and_not_waited_for(consortium: Consortium, fleet: Fleet) -> None:
    with pytest.raises(ConfigurationError, match="cannot listen"), consortium.running():
        pass
    assert fleet.gate.first_byte_at == 0


# ------------------------------------------------------------------ messages


def test_thirty_megabytes_go_to_two_nodes_and_come_back_bit_for_bit(consortium: Consortium, fleet: Fleet) -> None:
    identities = [consortium.member(fleet, site) for site in ("north", "west")]
    big = np.random.default_rng(1).normal(size=7_500_000).astype(np.float32)

    with (
        fleet.open_run("tissue", DIGEST) as grid,
        connect(consortium.address, identities[0]) as north,
        connect(consortium.address, identities[1]) as west,
        ThreadPoolExecutor(2) as pool,
    ):
        done = [pool.submit(answer, link) for link in (north, west)]
        messages = [question(identity.node_id, float32=big) for identity in identities]
        replies = list(grid.send_and_receive(messages, timeout=30))
        for one in done:
            one.result()

    assert {reply.metadata.src_node_id for reply in replies} == {identity.node_id for identity in identities}
    for reply in replies:
        np.testing.assert_array_equal(reply.content.array_records["arrays"]["float32"].numpy(), big)


def test_a_part_that_is_stored_after_its_message_was_announced_is_awaited(
    consortium: Consortium, fleet: Fleet, monkeypatch: pytest.MonkeyPatch
) -> None:
    identity = consortium.member(fleet, "north")
    asked, pull, store = threading.Event(), FleetHttpClient.PullObject, SqlLinkState.store_object

    def pull_and_tell(client: FleetHttpClient, request: PullObjectRequest) -> PullObjectResponse:
        response = pull(client, request)
        asked.set()
        return response

    def store_late(state: SqlLinkState, *arguments: Any) -> bool:
        assert asked.wait(20)
        return store(state, *arguments)

    monkeypatch.setattr(FleetHttpClient, "PullObject", pull_and_tell)
    monkeypatch.setattr(SqlLinkState, "store_object", store_late)
    with (
        fleet.open_run("tissue", DIGEST) as grid,
        connect(consortium.address, identity) as link,
        ThreadPoolExecutor(1) as pool,
    ):
        done = pool.submit(answer, link)
        replies = list(grid.send_and_receive([question(identity.node_id, float32=np.ones(9, np.float32))], timeout=30))

        assert done.result().content.array_records["arrays"]["float32"].numpy().sum() == 9.0
    assert [reply.metadata.src_node_id for reply in replies] == [identity.node_id]


def test_contents_of_a_finished_run_leave_the_disk(consortium: Consortium, fleet: Fleet) -> None:
    identity = consortium.member(fleet, "north")
    objects = consortium.folder / "fleet.objects"

    with fleet.open_run("tissue", DIGEST) as grid, connect(consortium.address, identity) as link:
        grid.push_messages([question(identity.node_id, float32=np.ones(50_000, np.float32))])
        held = len(list(objects.iterdir()))
        answer(link)

    assert held > 0
    assert list(objects.iterdir()) == []


def test_an_idle_request_is_held_and_then_answered_with_nothing(consortium: Consortium) -> None:
    with consortium.running(hold_s=0.5) as fleet:
        identity = consortium.member(fleet, "north")
        with connect(consortium.address, identity) as link:
            started = time.monotonic()

            incoming = link.announce()

            assert incoming is None
            assert 0.4 < time.monotonic() - started < 3


def test_a_held_request_is_woken_by_work(consortium: Consortium, fleet: Fleet) -> None:
    identity = consortium.member(fleet, "north")

    with fleet.open_run("tissue", DIGEST) as grid, connect(consortium.address, identity) as link:
        threading.Timer(0.3, grid.push_messages, [[question(identity.node_id)]]).start()
        started = time.monotonic()
        incoming = link.announce()

    assert incoming is not None
    assert time.monotonic() - started < 2
    assert grid.first_byte_at() > 0


def test_the_first_byte_is_that_of_a_site_that_asked_just_before_it_was_woken(
    consortium: Consortium, fleet: Fleet, monkeypatch: pytest.MonkeyPatch
) -> None:
    identity = consortium.member(fleet, "north")

    with fleet.open_run("tissue", DIGEST) as grid, connect(consortium.address, identity) as link:
        wake = fleet.gate.wake_sites

        def asked_before() -> None:
            assert link.announce() is not None
            wake()

        monkeypatch.setattr(fleet.gate, "wake_sites", asked_before)
        grid.push_messages([question(identity.node_id)])

        assert grid.first_byte_at() > 0


def test_work_is_not_handed_to_a_site_that_hung_up_while_its_request_was_held(
    consortium: Consortium, fleet: Fleet
) -> None:
    identity = consortium.member(fleet, "north")

    with fleet.open_run("tissue", DIGEST) as grid, connect(consortium.address, identity) as link:
        with raw_client(identity, timeout_s=0.3) as impatient, pytest.raises(httpx.ReadTimeout):
            impatient.PullMessages(PullMessagesRequest(node=Node(node_id=identity.node_id)))
        time.sleep(0.2)
        grid.push_messages([question(identity.node_id)])

        assert link.announce() is not None


def expire_pushes(consortium: Consortium) -> None:
    """Make every push that is under way older than Flower waits."""
    with sqlite3.connect(consortium.folder / "fleet.db") as db:
        assert db.execute("UPDATE object_push_sessions SET expires_at = '2026-01-01 00:00:00'").rowcount == 1


def ask_and_fetch(grid: LinkStateGrid, link: Link) -> Message:
    grid.push_messages([question(link.node_id, float32=np.ones(9_000, np.float32))])
    incoming = link.announce()
    assert incoming is not None
    return link.fetch(incoming)


def test_a_reply_that_names_another_node_as_its_sender_is_refused(consortium: Consortium, fleet: Fleet) -> None:
    north, west = consortium.member(fleet, "north"), consortium.member(fleet, "west")

    with fleet.open_run("tissue", DIGEST) as grid, connect(consortium.address, north) as link:
        message = ask_and_fetch(grid, link)
        reply = Message(RecordDict({}), reply_to=message)
        reply.metadata.__dict__["_src_node_id"] = west.node_id

        with pytest.raises(PeerError, match="403"):
            link.hand_over(reply)

    assert fleet.state.num_message_res() == 0


def test_an_answer_is_announced_with_no_other_parts_than_its_own(
    consortium: Consortium, fleet: Fleet, monkeypatch: pytest.MonkeyPatch
) -> None:
    north = consortium.member(fleet, "north")
    monkeypatch.setattr("site_node.link.get_object_tree", lambda _reply: ObjectTree(object_id="0" * 64))

    with fleet.open_run("tissue", DIGEST) as grid, connect(consortium.address, north) as link:
        reply = Message(RecordDict({}), reply_to=ask_and_fetch(grid, link))

        with pytest.raises(PeerError, match="403"):
            link.hand_over(reply)

    assert fleet.state.num_message_res() == 0


def test_an_answer_whose_parts_stopped_coming_is_announced_again_and_counts(
    consortium: Consortium, fleet: Fleet, monkeypatch: pytest.MonkeyPatch
) -> None:
    north = consortium.member(fleet, "north")
    got: list[Message] = []

    with fleet.open_run("tissue", DIGEST) as grid, connect(consortium.address, north) as link:
        asked = question(link.node_id, float32=np.ones(9_000, np.float32))
        rounds = threading.Thread(target=lambda: got.extend(grid.send_and_receive([asked], timeout=20)))
        rounds.start()
        incoming = link.announce()
        assert incoming is not None
        reply = Message(RecordDict({"receipt": ConfigRecord({"envelope": b"x"})}), reply_to=link.fetch(incoming))
        with monkeypatch.context() as killed:
            killed.setattr("site_node.link.get_all_nested_objects", lambda _reply: {})
            link.hand_over(reply)
        time.sleep(0.5)  # the head is seen, and its parts are late
        expire_pushes(consortium)
        time.sleep(1.5)
        link.hand_over(reply)
        rounds.join(20)

    assert [message.content["receipt"] for message in got] == [ConfigRecord({"envelope": b"x"})]


def test_a_node_cannot_answer_the_message_of_another(consortium: Consortium, fleet: Fleet) -> None:
    north, west = consortium.member(fleet, "north"), consortium.member(fleet, "west")

    with (
        fleet.open_run("tissue", DIGEST) as grid,
        connect(consortium.address, north) as link,
        connect(consortium.address, west) as other,
    ):
        reply = Message(RecordDict({}), reply_to=ask_and_fetch(grid, link))
        reply.metadata.__dict__["_src_node_id"] = west.node_id

        other.hand_over(reply)

        assert fleet.state.num_message_res() == 0


def test_a_reply_handed_over_twice_arrives_once(consortium: Consortium, fleet: Fleet) -> None:
    identity = consortium.member(fleet, "north")

    with fleet.open_run("tissue", DIGEST) as grid, connect(consortium.address, identity) as link:
        ids = list(grid.push_messages([question(identity.node_id, float32=np.ones(9_000, np.float32))]))
        reply = answer(link)
        link.hand_over(reply)
        first = list(grid.pull_messages(ids))
        link.hand_over(reply)

    assert len(first) == 1
    np.testing.assert_array_equal(
        first[0].content.array_records["arrays"]["float32"].numpy(), np.ones(9_000, np.float32)
    )


def test_a_reply_to_a_run_that_has_ended_is_refused_and_its_site_is_a_member_still(
    consortium: Consortium, fleet: Fleet
) -> None:
    identity = consortium.member(fleet, "north")

    with connect(consortium.address, identity) as link:
        with fleet.open_run("tissue", DIGEST) as grid:
            reply = Message(RecordDict({}), reply_to=ask_and_fetch(grid, link))
        with pytest.raises(PeerRefused, match="403") as refused:
            link.hand_over(reply)

    assert not isinstance(refused.value, NotAMember)
    assert get_tasks(consortium.address, identity) == (b"one",)


def test_a_reply_that_is_no_message_counts_as_no_answer(consortium: Consortium, fleet: Fleet) -> None:
    identity = consortium.member(fleet, "north")
    record = ConfigRecord({"n": 2})

    with fleet.open_run("tissue", DIGEST) as grid, connect(consortium.address, identity) as link:
        ids = list(grid.push_messages([question(identity.node_id)]))
        incoming = link.announce()
        assert incoming is not None
        reply = Message(RecordDict({}), reply_to=link.fetch(incoming))
        reply.metadata.__dict__["_message_id"] = record.object_id
        node = Node(node_id=identity.node_id)
        with raw_client(identity) as client:
            head = message_to_proto(remove_content_from_message(reply))
            pushed = client.PushMessages(
                PushMessagesRequest(node=node, messages_list=[head], message_object_trees=[get_object_tree(record)])
            )
            client.PushObject(
                PushObjectRequest(
                    node=node,
                    run_id=reply.metadata.run_id,
                    session_id=pushed.session_id,
                    object_id=record.object_id,
                    object_content=record.deflate(),
                )
            )

        assert list(grid.pull_messages(ids)) == []


def test_a_reply_whose_body_is_late_keeps_no_other_waiting_and_counts_once_it_is_whole(
    consortium: Consortium, fleet: Fleet
) -> None:
    slow, quick = consortium.member(fleet, "north"), consortium.member(fleet, "west")
    with (
        fleet.open_run("tissue", DIGEST) as grid,
        connect(consortium.address, slow) as link,
        connect(consortium.address, quick) as other,
    ):
        ids = list(grid.push_messages([question(one.node_id, float32=np.ones(9)) for one in (slow, quick)]))
        incoming = link.announce()
        assert incoming is not None
        reply = Message(RecordDict({}), reply_to=link.fetch(incoming))
        reply.metadata.__dict__["_message_id"] = reply.object_id
        with raw_client(slow) as client:
            client.PushMessages(
                PushMessagesRequest(
                    node=Node(node_id=slow.node_id),
                    messages_list=[message_to_proto(remove_content_from_message(reply))],
                    message_object_trees=[get_object_tree(reply)],
                )
            )
        answer(other)

        first = [one.metadata.src_node_id for one in grid.pull_messages(ids)]
        link.hand_over(reply)
        second = [one.metadata.src_node_id for one in grid.pull_messages(ids[:1])]

    assert (first, second) == ([quick.node_id], [slow.node_id])


def test_a_confirmation_that_names_a_path_deletes_no_file(consortium: Consortium, fleet: Fleet) -> None:
    identity = consortium.member(fleet, "north")
    victim = consortium.folder / "coordinator.db"
    victim.write_text("the record of every run")
    node = Node(node_id=identity.node_id)

    with fleet.open_run("tissue", DIGEST) as grid, raw_client(identity) as client:
        for named in (str(victim), f"../{victim.name}"):
            client.ConfirmMessageReceived(
                ConfirmMessageReceivedRequest(node=node, run_id=grid.run.run_id, message_object_id=named)
            )

    assert victim.exists()


def test_every_body_that_arrives_is_shown_to_those_who_record_arrivals(consortium: Consortium) -> None:
    seen: list[tuple[str, bytes]] = []
    with consortium.running(arrivals=seen) as fleet:
        identity = consortium.member(fleet, "north")
        with fleet.open_run("tissue", DIGEST) as grid, connect(consortium.address, identity) as link:
            grid.push_messages([question(identity.node_id, float32=np.ones(9_000, np.float32))])
            answer(link)

    paths = {path.rpartition("/")[2] for path, _ in seen}
    assert paths >= {"activate-node", "pull-messages", "pull-object", "push-messages", "push-object"}
    assert any(b"float32" in body for path, body in seen if path.endswith("/push-object"))


# ------------------------------------------------------------------ restarts


def test_nodes_are_known_after_a_restart_and_need_no_new_registration(consortium: Consortium) -> None:
    with consortium.running() as fleet:
        identity = consortium.member(fleet, "north")
        with connect(consortium.address, identity):
            pass

    with (
        consortium.running() as fleet,
        connect(consortium.address, identity) as link,
        fleet.open_run("tissue", DIGEST) as grid,
    ):
        online = list(grid.get_node_ids())

    assert online == [identity.node_id] == [link.node_id]


def test_a_run_left_open_by_a_killed_coordinator_is_closed_at_the_next_start(consortium: Consortium) -> None:
    with consortium.running() as fleet:
        identity = consortium.member(fleet, "north")
        left = fleet.open_run("tissue", DIGEST).__enter__()
        with connect(consortium.address, identity):
            stored = list(left.push_messages([question(identity.node_id)]))

    with consortium.running(hold_s=0.3), connect(consortium.address, identity) as link:
        assert all(stored)
        assert link.announce() is None


def test_a_site_that_was_killed_takes_its_own_lease_over(consortium: Consortium, fleet: Fleet) -> None:
    identity = consortium.member(fleet, "north")
    key = public_key_to_bytes(bytes_to_public_key(node_pem(identity)))
    with raw_client(identity) as killed:
        killed.ActivateNode(ActivateNodeRequest(public_key=key, heartbeat_interval=30))

    with connect(consortium.address, identity) as link:
        assert link.node_id == identity.node_id
    assert fleet.register(node_pem(identity), "north") == identity.node_id


def test_answers_are_waited_for_no_longer_once_the_run_is_not_wanted(consortium: Consortium, fleet: Fleet) -> None:
    identity = consortium.member(fleet, "north")
    asked: list[float] = []

    def wanted() -> bool:
        asked.append(time.monotonic())
        return len(asked) < 2

    with fleet.open_run("tissue", DIGEST, wanted) as grid, connect(consortium.address, identity):
        started = time.monotonic()
        replies = list(grid.send_and_receive([question(identity.node_id)], timeout=60.0))

    assert replies == []
    assert time.monotonic() - started < 10

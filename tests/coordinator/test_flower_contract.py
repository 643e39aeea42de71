"""What this project relies on inside Flower 1.42.0, beyond its public interface.

Flower changes these without notice: a new version is taken only once this page holds for it.
"""

from __future__ import annotations

import inspect
import pkgutil
import subprocess
import sys
import time
import tomllib
from importlib.metadata import version
from pathlib import Path
from typing import TYPE_CHECKING

import httpx
import numpy as np
import pytest
from flwr.app import Array, ArrayRecord, ConfigRecord, Message, RecordDict
from flwr.app.message import remove_content_from_message
from flwr.common.constant import HEARTBEAT_MIN_INTERVAL, SUPERLINK_NODE_ID
from flwr.common.serde import message_to_proto
from flwr.proto.fleet_pb2 import ActivateNodeRequest, DeactivateNodeRequest, PushMessagesRequest
from flwr.proto.message_pb2 import PushObjectRequest
from flwr.proto.node_pb2 import Node
from flwr.supercore.inflatable.inflatable_object import (
    get_all_nested_objects,
    get_object_id,
    get_object_tree,
    iterate_object_tree,
)
from flwr.supercore.inflatable.inflatable_utils import inflate_object_from_contents
from flwr.supercore.primitives.asymmetric import bytes_to_public_key, public_key_to_bytes
from flwr.supercore.task_identity import TaskIdentity

from site_node.link import connect
from tests.coordinator.parts import Consortium, node_pem, raw_client

if TYPE_CHECKING:
    from coordinator.fleet import Fleet

ROOT = Path(__file__).parents[2]

# Where and what, with its parameters in order (without `self`).
SIGNATURES = {
    "flwr.app.message.remove_content_from_message": "message",
    "flwr.common.serde.message_from_proto": "message_proto",
    "flwr.common.serde.message_to_proto": "message",
    "flwr.serverapp.strategy.Strategy.start": (
        "grid initial_arrays num_rounds timeout train_config evaluate_config evaluate_fn"
    ),
    "flwr.supercore.inflatable.inflatable_object.get_all_nested_objects": "obj",
    "flwr.supercore.inflatable.inflatable_object.get_object_id": "object_content",
    "flwr.supercore.inflatable.inflatable_object.get_object_tree": "obj",
    "flwr.supercore.inflatable.inflatable_object.iterate_object_tree": "tree",
    "flwr.supercore.inflatable.inflatable_object.no_object_id_recompute": "",
    "flwr.supercore.inflatable.inflatable_utils.inflate_object_from_contents": (
        "object_id object_contents keep_object_contents objects"
    ),
    "flwr.supercore.inflatable.inflatable_utils.validate_object_content": "content",
    "flwr.supercore.interceptors.http.runtime_version.RuntimeVersionHttpInterceptor": "component_name",
    "flwr.supercore.object_store.in_memory_object_store.InMemoryObjectStore": "verify",
    "flwr.supercore.primitives.asymmetric.public_key_to_bytes": "public_key",
    "flwr.superlink.config_loader.SuperLinkLifespanConfig": (
        "control_address health_server_address host port insecure certificates superexec_auth_secret authn_plugin "
        "event_log_plugin fleet_event_log_plugin enable_event_log artifact_provider enable_supernode_auth "
        "fleet_api_type fleet_api_address simulation ssl_ca_certfile ssl_certfile ssl_keyfile database isolation "
        "runtime_dependency_install"
    ),
    "flwr.superlink.main.create_app": "config superlink_lifespan_class",
    "flwr.supernode.fleet_http_client.FleetHttpClient": "base_url interceptors verify timeout retry_invoker",
    "flwr.supernode.node_auth_http_interceptor.NodeAuthHttpInterceptor": "private_key public_key",
}
STATE_METHODS = {
    "acknowledge_task_heartbeat": "task_id",
    "activate_task": "task_id",
    "claim_task": "task_id",
    "cleanup_run": "run_id",
    "create_node": "owner_aid owner_name public_key heartbeat_interval location name",
    "create_run": (
        "fab_id fab_version fab_hash override_config federation_id federation_config flwr_aid primary_task_type "
        "series_id series_description connector_ids initial_task_event user_prompt"
    ),
    "delete_messages": "message_ins_ids",
    "finish_task": "task_id sub_status details",
    "get_message_res": "message_ids run_id",
    "get_node_id_by_public_key": "public_key",
    "get_node_info": "node_ids owner_aids statuses",
    "get_nodes": "run_id",
    "get_object": "run_id object_id",
    "get_run_info": "run_ids statuses flwr_aids federation_ids order_by ascending limit skip",
    "start_session": "run_id",
    "stop_run": "run_id",
    "store_message_and_object_tree": "message object_tree session_id",
    "store_object": "run_id session_id object_id object_content",
}
SIGNATURES |= {
    f"flwr.server.superlink.linkstate.sql_linkstate.SqlLinkState.{name}": names for name, names in STATE_METHODS.items()
}


@pytest.mark.parametrize("path", SIGNATURES)
def test_an_internal_of_flower_that_is_used_here_takes_these_parameters(path: str) -> None:
    found = pkgutil.resolve_name(path)

    taken = [name for name in inspect.signature(found).parameters if name != "self"]
    assert taken == SIGNATURES[path].split()


@pytest.mark.parametrize("extra", ["site", "coordinator"])
def test_the_installed_flower_is_exactly_the_pinned_one(extra: str) -> None:
    document = tomllib.loads((ROOT / "pyproject.toml").read_text())

    assert f"flwr=={version('flwr')}" in document["project"]["optional-dependencies"][extra]


LOOKS = """
import socket, sys
def refuse(*args, **kwargs):
    print("looked up", args[0])
    raise OSError("no network in this test")
socket.getaddrinfo = socket.create_connection = refuse
import PACKAGE, threading
import flwr.superlink.main, flwr.supernode.fleet_http_client, flwr.serverapp, flwr.app
from flwr.supercore import telemetry
from flwr.supercore.inflatable import inflatable_object
from flwr.app.message import array
print(array.FLWR_PRIVATE_MAX_ARRAY_CHUNK_SIZE)
print([thread.name for thread in threading.enumerate()])
"""


@pytest.mark.parametrize("package", ["coordinator", "site_node"])
def test_flower_looks_up_no_host_and_cuts_arrays_into_few_parts_once_our_package_is_imported(package: str) -> None:
    program = LOOKS.replace("PACKAGE", package)

    done = subprocess.run([sys.executable, "-c", program], cwd=ROOT, capture_output=True, text=True, check=True)

    assert done.stdout.splitlines() == [str(8 * 2**20), "['MainThread']"]


def test_telemetry_is_off_once_our_package_is_imported() -> None:
    program = "import coordinator; from flwr.supercore import telemetry; print(telemetry.FLWR_TELEMETRY_ENABLED)"

    done = subprocess.run([sys.executable, "-c", program], cwd=ROOT, capture_output=True, text=True, check=True)

    assert done.stdout.strip() == "0"


def test_a_message_taken_apart_and_put_together_again_is_the_same_message() -> None:
    TaskIdentity.task_id, TaskIdentity.run_id, TaskIdentity.node_id = 1, 7, SUPERLINK_NODE_ID
    arrays = ArrayRecord({"float32": Array(np.arange(9, dtype=np.float32))})
    message = Message(RecordDict({"arrays": arrays, "ask": ConfigRecord({"n": b"1"})}), 12, "train", ttl=5.0)
    message.metadata.__dict__["_message_id"] = message.object_id

    parts = {name: part.deflate() for name, part in get_all_nested_objects(message).items()}
    ids = [node.object_id for node in iterate_object_tree(get_object_tree(message))]
    named = {name: get_object_id(content) for name, content in parts.items()}
    again = inflate_object_from_contents(message.object_id, parts)

    assert named == dict(zip(ids, ids, strict=True))
    assert isinstance(again, Message)
    np.testing.assert_array_equal(again.content.array_records["arrays"]["float32"].numpy(), np.arange(9))
    assert dict(again.content["ask"]) == {"n": b"1"}
    assert (again.metadata.ttl, again.metadata.dst_node_id) == (5.0, 12)


def test_a_message_lives_no_longer_than_its_ttl(consortium: Consortium, fleet: Fleet) -> None:
    identity = consortium.member(fleet, "north")
    with connect(consortium.address, identity), fleet.open_run("tissue", "d" * 64) as grid:
        ids = list(grid.push_messages([Message(RecordDict({}), identity.node_id, "train", ttl=0.05)]))
        time.sleep(0.1)

        expired = list(fleet.state.get_message_ins(node_id=identity.node_id, limit=1))

    assert all(ids)
    assert expired == []


def test_a_message_to_a_node_that_never_came_online_is_not_stored(consortium: Consortium, fleet: Fleet) -> None:
    identity = consortium.member(fleet, "north")
    with fleet.open_run("tissue", "d" * 64) as grid:
        ids = list(grid.push_messages([Message(RecordDict({}), identity.node_id, "train", ttl=5.0)]))

    assert ids == [""]


def test_a_lease_is_refused_to_another_process_until_it_is_given_back(consortium: Consortium, fleet: Fleet) -> None:
    identity = consortium.member(fleet, "north")
    key = public_key_to_bytes(bytes_to_public_key(node_pem(identity)))
    activate = ActivateNodeRequest(public_key=key, heartbeat_interval=HEARTBEAT_MIN_INTERVAL)

    with raw_client(identity) as client:
        first = client.ActivateNode(activate).node_id
        with pytest.raises(httpx.HTTPStatusError):
            client.ActivateNode(activate)
        client.DeactivateNode(DeactivateNodeRequest(node_id=first))
        again = client.ActivateNode(activate).node_id

    assert first == again == identity.node_id


def test_an_object_is_stored_once_and_announcing_its_message_again_asks_for_nothing_more(
    consortium: Consortium, fleet: Fleet
) -> None:
    identity = consortium.member(fleet, "north")
    node = Node(node_id=identity.node_id)
    with fleet.open_run("tissue", "d" * 64) as grid, connect(consortium.address, identity) as link:
        grid.push_messages([Message(RecordDict({}), identity.node_id, "train", ttl=60.0)])
        incoming = link.announce()
        assert incoming is not None
        reply = Message(RecordDict({}), reply_to=link.fetch(incoming))
        reply.metadata.__dict__["_message_id"] = reply.object_id
        announcement = PushMessagesRequest(
            node=node,
            messages_list=[message_to_proto(remove_content_from_message(reply))],
            message_object_trees=[get_object_tree(reply)],
        )
        with raw_client(identity) as client:
            pushed = client.PushMessages(announcement)
            parts = [
                PushObjectRequest(
                    node=node,
                    run_id=reply.metadata.run_id,
                    session_id=pushed.session_id,
                    object_id=name,
                    object_content=part.deflate(),
                )
                for name, part in get_all_nested_objects(reply).items()
            ]
            first = [client.PushObject(part).stored for part in parts]
            second = [client.PushObject(part).stored for part in parts]
            again = client.PushMessages(announcement)

    assert all(first)
    assert not any(second)
    assert not again.objects_to_push

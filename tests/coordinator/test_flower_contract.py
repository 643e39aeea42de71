"""What this project relies on inside Flower 1.42.0, beyond its public interface.

Flower changes these without notice: a new version is taken only once this page holds for it.
"""

from __future__ import annotations

import inspect
import subprocess
import sys
import tomllib
from importlib import import_module
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
from flwr.proto.fleet_pb2 import ActivateNodeRequest, DeactivateNodeRequest, PullMessagesRequest, PushMessagesRequest
from flwr.proto.message_pb2 import PullObjectRequest, PushObjectRequest
from flwr.proto.node_pb2 import Node
from flwr.supercore.inflatable.inflatable_object import (
    get_all_nested_objects,
    get_object_id,
    get_object_tree,
    iterate_object_tree,
)
from flwr.supercore.inflatable.inflatable_utils import inflate_object_from_contents
from flwr.supercore.primitives.asymmetric import bytes_to_public_key, public_key_to_bytes

from site_node.link import connect
from tests.coordinator.parts import Consortium, new_consortium, node_pem, raw_client

if TYPE_CHECKING:
    from collections.abc import Iterator

    from coordinator.fleet import Fleet

ROOT = Path(__file__).parents[2]

# Where, what, and its parameters by name (without `self`).
CALLABLES = {
    "flwr.app.message.remove_content_from_message": "message",
    "flwr.common.serde.message_from_proto": "message_proto",
    "flwr.common.serde.message_to_proto": "message",
    "flwr.supercore.inflatable.inflatable_object.get_all_nested_objects": "obj",
    "flwr.supercore.inflatable.inflatable_object.get_object_id": "object_content",
    "flwr.supercore.inflatable.inflatable_object.get_object_tree": "obj",
    "flwr.supercore.inflatable.inflatable_object.iterate_object_tree": "tree",
    "flwr.supercore.inflatable.inflatable_object.no_object_id_recompute": "",
    "flwr.supercore.inflatable.inflatable_utils.validate_object_content": "content",
    "flwr.superlink.main.create_app": "",
}


def parameters(path: str) -> list[str]:
    module, _, name = path.rpartition(".")
    found = getattr(import_module(module), name)
    return [parameter for parameter in inspect.signature(found).parameters if parameter != "self"]

"""The line at the hospital's end: what the coordinator sends is a message, or an error of ours."""

from __future__ import annotations

from dataclasses import dataclass, field
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
from flwr.app import ConfigRecord, Message
from flwr.proto.node_pb2 import Node
from flwr.supercore.inflatable.inflatable_object import get_all_nested_objects, get_object_tree

from site_node.errors import PeerError
from site_node.link import Incoming, Link
from tests.site_node.hospital import message

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping


@dataclass(slots=True)
class Coordinator:
    """Answers with the parts it is given."""

    parts: Mapping[str, bytes]
    confirmed: list[str] = field(default_factory=list)

    def PullObject(self, request: Any) -> Any:
        """Hand a part over."""
        content = self.parts[request.object_id]
        return SimpleNamespace(object_found=True, object_available=True, object_content=content)

    def ConfirmMessageReceived(self, request: Any) -> None:
        """Note that a message was received."""
        self.confirmed.append(request.message_object_id)


def whole() -> Message:
    made = message({"kind": "train"}, {"float32": np.arange(9, dtype=np.float32)}, "m1")
    made.metadata.__dict__["_message_id"] = made.object_id
    return made


SENT = whole()


def fetched(sent: Message | ConfigRecord, parts: Mapping[str, bytes]) -> Message:
    link = Link(Coordinator(parts), Node(node_id=7))  # type: ignore[arg-type] # what is used of it
    return link.fetch(Incoming(message(None, {}, "m1"), get_object_tree(sent)))


def parts_of(sent: Message | ConfigRecord) -> dict[str, bytes]:
    return {name: part.deflate() for name, part in get_all_nested_objects(sent).items()}


def test_the_parts_of_a_message_make_the_message_again() -> None:
    found = fetched(SENT, parts_of(SENT))

    np.testing.assert_array_equal(found.content.array_records["arrays"]["float32"].numpy(), np.arange(9))
    assert dict(found.content["instruction"]) == {"kind": "train"}


DAMAGE: dict[str, Callable[[bytes], bytes]] = {
    "nothing": lambda _part: b"",
    "no head": lambda _part: b"<html>",
    "noise": lambda part: part.partition(b"\0")[0] + b"\0\xff\xff",
    "an unknown kind": lambda part: b"Nothing" + part[part.index(b" ") :],
}


@pytest.mark.parametrize("damage", DAMAGE)
def test_parts_that_make_no_message_are_a_fault_of_the_coordinator(damage: str) -> None:
    parts = parts_of(SENT)
    chunk = next(name for name, part in parts.items() if part.startswith(b"ArrayChunk"))
    spared = {chunk} if damage == "noise" else set()  # bytes without a form of their own

    for name in parts.keys() - spared:
        with pytest.raises(PeerError, match="cannot be put together"):
            fetched(SENT, {**parts, name: DAMAGE[damage](parts[name])})


def test_an_object_that_is_no_message_is_a_fault_of_the_coordinator() -> None:
    record = ConfigRecord({"n": 1})

    with pytest.raises(PeerError, match="not a message"):
        fetched(record, parts_of(record))

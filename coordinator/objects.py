"""Flower's object store with large contents in files.

A model is megabytes, and a message of it ten objects. What the store holds is void after a restart, when every round is
asked again under a new nonce: so the index is Flower's own in memory, which costs a round nothing, and a content above
`INLINE_BYTES` lies in a file named by its digest, so that memory does not grow with the number of members.
"""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

from flwr.supercore.inflatable.inflatable_object import get_object_id, iterate_object_tree
from flwr.supercore.inflatable.inflatable_utils import validate_object_content
from flwr.supercore.object_store.in_memory_object_store import InMemoryObjectStore

if TYPE_CHECKING:
    from pathlib import Path

    from flwr.proto.message_pb2 import ObjectTree

INLINE_BYTES = 16 * 2**10
# A message of any task has some twenty parts.
MAX_OBJECTS = 4096
_IN_FILE = b"\x00filmroom:file"


class FileObjectStore(InMemoryObjectStore):
    """Flower's object store in memory, with contents above `INLINE_BYTES` in `folder`."""

    def __init__(self, folder: Path) -> None:
        super().__init__(verify=False)  # `put` verifies, once
        self._folder = folder
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        self._remove_files()

    def preregister(self, run_id: int, object_tree: ObjectTree) -> list[str]:
        """Register the objects of a message; return the ids of those that are still to come.

        Raises: ValueError if there are too many, an id is no digest, or a known object has other parts.
        """
        nodes = list(iterate_object_tree(object_tree))
        if len(nodes) > MAX_OBJECTS:
            raise ValueError(f"{len(nodes)} objects in one message; {MAX_OBJECTS} allowed")
        with self.lock_store:
            known = [node.object_id for node in nodes if node.object_id in self.store]
            parts = {object_id: self.store[object_id].child_object_ids for object_id in known}
            for node in nodes:
                found = [child.object_id for child in node.children]
                if parts.setdefault(node.object_id, found) != found:
                    raise ValueError(f"object {node.object_id}: known with other parts")
            return super().preregister(run_id, object_tree)

    def put(self, object_id: str, object_content: bytes) -> None:
        """Keep the content of a preregistered object.

        Raises: ValueError if the content is not what its id names; UnexpectedObjectContentError if it is no object.
        """
        if object_id != get_object_id(object_content):
            raise ValueError(f"object {object_id}: the content has another digest")
        validate_object_content(object_content)
        if len(object_content) <= INLINE_BYTES:
            super().put(object_id, object_content)
            return
        part = self._folder / f"{object_id}.{os.urandom(4).hex()}"
        part.write_bytes(object_content)
        try:
            with self.lock_store:
                super().put(object_id, _IN_FILE)
                part.replace(self._folder / object_id)
        finally:
            part.unlink(missing_ok=True)

    def get(self, object_id: str) -> bytes | None:
        """Return the content; None if the object is unknown, empty if it has not arrived."""
        content = super().get(object_id)
        return (self._folder / object_id).read_bytes() if content == _IN_FILE else content

    def missing(self, object_id: str) -> str | None:
        """Return an object that has not arrived, of one object and all its parts; None if it is whole.

        Raises: NoObjectInStoreError if it, or a part, is not known any more.
        """
        with self.lock_store:
            nodes = iterate_object_tree(self.get_object_tree(object_id))
            return next((node.object_id for node in nodes if not self.store[node.object_id].is_available), None)

    def delete(self, object_id: str) -> None:
        """Delete an object that nothing refers to, and its unreferenced parts."""
        with self.lock_store:
            # A site names what it has received; only an id that was registered, and so is a digest, becomes a path.
            known = object_id in self.store
            super().delete(object_id)
            if known and object_id not in self.store:
                (self._folder / object_id).unlink(missing_ok=True)

    def clear(self) -> None:
        """Delete everything."""
        with self.lock_store:
            super().clear()
            self._remove_files()

    def _remove_files(self) -> None:
        for path in self._folder.iterdir():
            path.unlink()

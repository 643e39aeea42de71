"""Flower's object store with large contents in files beside the database.

A model is megabytes; SQLite writes such a value twice (log, then table) and copies it on every read, which made it the
largest cost of a round. The database keeps the tree, the counts and the state of every object, exactly as Flower's
own store does; a content above `INLINE_BYTES` lies in a file named by its digest.
"""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

from flwr.supercore.inflatable.inflatable_object import get_object_id
from flwr.supercore.inflatable.inflatable_utils import validate_object_content
from flwr.supercore.object_store.sql_object_store import SqlObjectStore

if TYPE_CHECKING:
    from pathlib import Path

INLINE_BYTES = 16 * 2**10
_IN_FILE = b"\x00filmroom:file"


class FileObjectStore(SqlObjectStore):
    """Flower's SQL object store, with contents above `INLINE_BYTES` in `folder`."""

    def __init__(self, database: str, folder: Path) -> None:
        super().__init__(database, verify=False)  # `put` verifies, once
        self._folder = folder
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)

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
        path = self._folder / object_id
        part = path.with_suffix(f".{os.urandom(4).hex()}")
        part.write_bytes(object_content)
        part.replace(path)
        super().put(object_id, _IN_FILE)

    def get(self, object_id: str) -> bytes | None:
        """Return the content; None if the object is unknown, empty if it has not arrived."""
        content = super().get(object_id)
        return (self._folder / object_id).read_bytes() if content == _IN_FILE else content

    def delete(self, object_id: str) -> None:
        """Delete an object that nothing refers to, and its unreferenced parts."""
        # A site names what it has received; only an id that was registered, and so is a digest, becomes a path.
        known = object_id in self
        super().delete(object_id)
        if known and object_id not in self:
            (self._folder / object_id).unlink(missing_ok=True)

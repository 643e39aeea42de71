"""The lists of a staging folder, and of a restored one: what is in it, and how it was.

    manifest.jsonl                 one line per study: its identifiers, how many files, the digests of its two lists
    studies/ab/<digest>/instances.jsonl   one line per file: path, digest, header
    studies/ab/<digest>/pixels.jsonl      one line per file: parts, and the digest of the decoded pixels
    studies/ab/<digest>/px/               the parts
    state/                         the site's own state

An edited header changes the first list of a study alone.
"""

from __future__ import annotations

import hashlib
import json
from typing import TYPE_CHECKING, Any

from site_node.archive.layout import Entry, Grid, Part, write
from site_node.errors import ArchiveError

if TYPE_CHECKING:
    from collections.abc import Collection, Iterable, Iterator
    from pathlib import Path

INSTANCES, PIXELS, MANIFEST = "instances.jsonl", "pixels.jsonl", "manifest.jsonl"
STATE = "state"


def write_lists(folder: Path, entries: Iterable[Entry]) -> None:
    """Write the two lists of a study; one that would be the same is left as it is."""
    entries = list(entries)
    for name, of in ((INSTANCES, _instance), (PIXELS, _pixels)):
        write_changed(folder / name, b"".join(_line(of(entry)) for entry in entries))


def write_changed(path: Path, content: bytes) -> None:
    """Write a file; one that would be the same is left as it is."""
    if not path.exists() or path.read_bytes() != content:
        write(path, (content,))


def read_lists(folder: Path) -> list[Entry]:
    """Return the files of a study from its two lists, in the order of their paths; none if there are no lists.

    Raises: ArchiveError if they do not fit each other.
    """
    if not (folder / INSTANCES).exists():
        return []
    try:
        pixels = {told["path"]: told for told in read_lines(folder / PIXELS)}
        return [_entry(told, pixels[told["path"]]) for told in read_lines(folder / INSTANCES)]
    except (KeyError, ValueError, TypeError, OSError) as error:
        raise ArchiveError("a study's lists are damaged") from error


def read_manifest(folder: Path) -> list[dict[str, Any]]:
    """Return the studies of a staging folder, or of a restored one.

    Raises: ArchiveError if the manifest is not there or cannot be read.
    """
    try:
        return list(read_lines(folder / MANIFEST))
    except (ValueError, OSError) as error:
        raise ArchiveError("the snapshot's manifest is missing or damaged") from error


def study_line(folder: Path, study: str, entries: Collection[Entry]) -> bytes:
    """Return the line of the manifest for a study whose lists are written."""
    return _line(
        {
            "study": study,
            "StudyInstanceUID": next(iter(entries)).StudyInstanceUID,
            "PatientID": sorted({entry.PatientID for entry in entries}),
            "StudyDate": sorted({entry.StudyDate for entry in entries}),
            "files": len(entries),
            INSTANCES: digest_of(folder / INSTANCES),
            PIXELS: digest_of(folder / PIXELS),
        }
    )


def digest_of(path: Path) -> str:
    """Return the SHA-256 of a file."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _instance(entry: Entry) -> dict[str, Any]:
    # Latin-1: each byte a character, so that a person can read the header, and it costs little beside its neighbours.
    return {
        "path": entry.path,
        "sha256": entry.sha256,
        "mtime": entry.mtime,
        "StudyInstanceUID": entry.StudyInstanceUID,
        "PatientID": entry.PatientID,
        "StudyDate": entry.StudyDate,
        "prefix": entry.prefix.decode("latin-1"),
    }


def _pixels(entry: Entry) -> dict[str, Any]:
    return {
        "path": entry.path,
        "SOPInstanceUID": entry.SOPInstanceUID,
        "grid": entry.grid,
        "parts": entry.parts,
        "pixels": entry.pixels,
        "is_dicom": entry.is_dicom,
    }


def _entry(instance: dict[str, Any], pixels: dict[str, Any]) -> Entry:
    told = {key: value for key, value in instance.items() if key != "prefix"}
    return Entry(
        **told,
        prefix=instance["prefix"].encode("latin-1"),
        SOPInstanceUID=pixels["SOPInstanceUID"],
        parts=tuple(Part(*part) for part in pixels["parts"]),
        grid=Grid(*pixels["grid"]) if pixels["grid"] else None,
        pixels=pixels["pixels"],
        is_dicom=pixels["is_dicom"],
    )


# A name that is no UTF-8 keeps its bytes, in the lists too.
def _line(told: dict[str, Any]) -> bytes:
    return json.dumps(told, ensure_ascii=False, separators=(",", ":")).encode("utf-8", "surrogateescape") + b"\n"


def read_lines(path: Path) -> Iterator[dict[str, Any]]:
    """Yield the lines of a list.

    Raises: ValueError if one cannot be read; OSError.
    """
    with path.open("rb") as file:
        for line in file:
            yield json.loads(line.decode("utf-8", "surrogateescape"))

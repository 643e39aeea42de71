"""Surface models (STL, OBJ, MTL) as numbers alone: names, comments and unused bytes go.

A model is rebuilt from what its format calls geometry and material; every other line is left out.
Whether the surface shows a person is not judged here.
"""

from __future__ import annotations

import struct
from typing import TYPE_CHECKING

from site_node.errors import UnreadableInstance

if TYPE_CHECKING:
    from collections.abc import Iterator

_MOST_BYTES = 1024 * 2**20
_HEADER, _FACET = 84, 50  # bytes of a binary STL

# Statements of OBJ and MTL that are numbers alone (Wavefront's appendix B1 and MTL's, static colours).
_GEOMETRY = frozenset({"v", "vt", "vn", "vp", "f", "l", "p"})
_MATERIAL = frozenset({"Ka", "Kd", "Ks", "Ke", "Ns", "Ni", "d", "Tr", "Tf", "illum"})
_STL_WORDS = ("facet normal", "outer loop", "vertex", "endloop", "endfacet")


def stl(data: bytes) -> bytes:
    """Return a binary or ASCII STL with an empty header or name, and facets alone.

    Raises: UnreadableInstance if it is neither.
    """
    if len(data) >= _HEADER:
        (count,) = struct.unpack_from("<I", data, _HEADER - 4)
        if len(data) - _HEADER >= count * _FACET and (count or not data.lstrip().startswith(b"solid")):
            return _binary_stl(data, count)
    return _ascii_stl(data)


def _binary_stl(data: bytes, count: int) -> bytes:
    out = bytearray(bytes(_HEADER - 4) + data[_HEADER - 4 : _HEADER + count * _FACET])
    # The two bytes after each facet have no meaning in the format, and room for one elsewhere.
    for at in range(_HEADER + _FACET - 2, len(out), _FACET):
        out[at : at + 2] = b"\0\0"
    return bytes(out)


def _ascii_stl(data: bytes) -> bytes:
    lines = list(_words(data))
    if not lines or lines[0][0].lower() != "solid":
        raise UnreadableInstance("not an STL model")
    out = ["solid"]
    for words in lines[1:]:
        text = " ".join(words).lower()
        if text.startswith(("solid", "endsolid")):
            continue
        start = next((start for start in _STL_WORDS if text.startswith(start)), None)
        if start is None:
            raise UnreadableInstance("not an STL model")
        out.append(" ".join([start, *map(_number, text[len(start) :].split())]))
    return ("\n".join([*out, "endsolid"]) + "\n").encode()


def obj(data: bytes) -> bytes:
    """Return an OBJ model's vertices and elements; names of groups, objects, materials and files go."""
    lines = (
        " ".join([words[0], *("/".join(map(_index, word.split("/"))) for word in words[1:])])
        for words in _words(data)
        if words[0] in _GEOMETRY
    )
    return ("\n".join(lines) + "\n").encode()


def mtl(data: bytes) -> bytes:
    """Return an MTL library's colours; materials are numbered, textures go."""
    out, count = [], 0
    for words in _words(data):
        if words[0] == "newmtl":
            count += 1
            out.append(f"newmtl {count}")
        elif words[0] in _MATERIAL:
            out.append(" ".join([words[0], *map(_number, words[1:])]))
    return ("\n".join(out) + "\n").encode()


def _words(data: bytes) -> Iterator[list[str]]:
    if len(data) > _MOST_BYTES:
        raise UnreadableInstance("model too large")
    try:
        text = data.rstrip(b"\0").decode("ascii", "replace")
    except ValueError as error:
        raise UnreadableInstance("model is not text") from error
    for line in text.splitlines():
        words = line.split("#")[0].split()
        if words:
            yield words


def _index(text: str) -> str:
    return _number(text) if text else ""


def _number(text: str) -> str:
    """Return `text` if it is a number of modest length."""
    try:
        value = float(text)
    except ValueError as error:
        raise UnreadableInstance("model has a word where a number belongs") from error
    if value != value or len(text) > 40 or "_" in text:  # noqa: PLR0124, PLR2004 -- NaN; no number is longer
        raise UnreadableInstance("model has a word where a number belongs")
    return text

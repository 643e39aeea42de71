"""An ICC profile with its colours and without its words.

A profile names its maker, device and copyright holder, and has room for any text. It is rebuilt from what colour
transformation needs: known tags of known numeric types; texts that the format requires say nothing. A profile that
cannot be read this way is given up, so that the image is shown without it.
"""

from __future__ import annotations

import struct

_HEADER = 128
_SIGNATURE = slice(36, 40)
_ENTRY = 12
_MAX_TAGS = 100
# ICC.1:2022 7.2: fields that say who made the profile and when, on what and for which device.
_SAYINGS = ((4, 4), (24, 12), (40, 4), (48, 16), (80, 48))
_A_MOMENT = struct.pack(">6H", 2000, 1, 1, 0, 0, 0)

_TAGS = frozenset(
    b"rXYZ gXYZ bXYZ rTRC gTRC bTRC kTRC wtpt bkpt lumi chad chrm gamt meas view tech "
    b"A2B0 A2B1 A2B2 B2A0 B2A1 B2A2 D2B0 D2B1 D2B2 D2B3 B2D0 B2D1 B2D2 B2D3 pre0 pre1 pre2".split()
)
_TYPES = frozenset(
    (
        b"XYZ ",
        b"curv",
        b"para",
        b"mft1",
        b"mft2",
        b"mAB ",
        b"mBA ",
        b"mpet",
        b"sf32",
        b"meas",
        b"view",
        b"sig ",
        b"chrm",
    )
)

# The texts every profile must have: of version 2 (textDescriptionType, textType) and of version 4.
_WORD = b"none\0"
_DESCRIPTION_2 = b"desc" + bytes(4) + struct.pack(">I", len(_WORD)) + _WORD + bytes(4 + 4 + 2 + 1 + 67)
_TEXT_2 = b"text" + bytes(4) + _WORD
_TEXT_4 = b"mluc" + bytes(4) + struct.pack(">II2s2sII", 1, 12, b"en", b"US", 8, 28) + "none".encode("utf-16-be")
_VERSION_4 = 4


def without_words(profile: bytes) -> bytes | None:
    """Return the profile with its colour transformation alone, or None if it is none that can be read.

    Source: ICC.1:2022 sections 7 (header and tag table), 9 (tags) and 10 (types).
    """
    if len(profile) < _HEADER + 4 or profile[_SIGNATURE] != b"acsp":
        return None
    (count,) = struct.unpack_from(">I", profile, _HEADER)
    if count > _MAX_TAGS or _HEADER + 4 + count * _ENTRY > len(profile):
        return None
    four = profile[8] >= _VERSION_4
    tags = {b"desc": _TEXT_4 if four else _DESCRIPTION_2, b"cprt": _TEXT_4 if four else _TEXT_2}
    for index in range(count):
        name, offset, size = struct.unpack_from(">4sII", profile, _HEADER + 4 + index * _ENTRY)
        data = profile[offset : offset + size]
        if len(data) != size:
            return None
        if name in _TAGS and data[:4] in _TYPES:
            tags[name] = data
    return _built(profile[:_HEADER], tags)


def _built(header: bytes, tags: dict[bytes, bytes]) -> bytes:
    start = _HEADER + 4 + len(tags) * _ENTRY
    table, body, places = [struct.pack(">I", len(tags))], b"", dict[bytes, int]()
    for name, data in tags.items():
        # Tags may share their data, as the curves of sRGB do.
        if data not in places:
            places[data] = start + len(body)
            body += data + bytes(-len(data) % 4)
        table.append(struct.pack(">4sII", name, places[data], len(data)))
    silent = bytearray(header)
    for offset, size in _SAYINGS:
        silent[offset : offset + size] = bytes(size)
    silent[24:36] = _A_MOMENT
    silent[:4] = struct.pack(">I", start + len(body))
    return bytes(silent) + b"".join(table) + body

"""Items of code sequences, and what stands for a concept that may not stay.

Which codes may stay is for codes.py to say, and what of a data set they are for cleaner.py.
"""

from __future__ import annotations

from site_node.deidentify import tags
from site_node.deidentify.stream import DataSet, Element

# A keyed token stands for a local code of no harmless words, so that equal concepts stay equal.
LOCAL_SCHEME = "99FILMROOM"
UNKNOWN = ("261665006", "SCT", "Unknown")
_MAX_MEANING = 64  # PS3.5 6.2, LO


def item(value: str, scheme: str, meaning: str) -> DataSet:
    """Return an item of a code sequence. Source: PS3.3 table 8.8-1."""
    return {
        tags.CODE: Element(tags.CODE, "SH", value.encode()),
        tags.SCHEME: Element(tags.SCHEME, "SH", scheme.encode()),
        tags.MEANING: Element(tags.MEANING, "LO", meaning[:_MAX_MEANING].encode()),
    }

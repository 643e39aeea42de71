"""What programs write of a patient into logs: segments of HL7 messages, and DICOM attributes as tools print them."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

from pydicom.datadict import keyword_for_tag

if TYPE_CHECKING:
    from collections.abc import Iterator

# Fields of a PID segment by their numbers. Source: HL7 version 2.5.1, 3.4.2.
_FIELDS = {
    **dict.fromkeys((2, 3, 4, 18), "patient id"),
    **dict.fromkeys((5, 9), "patient name"),
    6: "mother's maiden name",
    7: "date of birth",
    11: "patient address",
    **dict.fromkeys((13, 14), "phone"),
    19: "ssn",
}
_SEGMENT = re.compile(r"(?<![^\W_])PID\|[^\r\n]{4,4000}")
# (0010,0010) PN [..] as dcmdump prints it, (0010,0010) Patient's Name PN: '..' as pydicom does.
_PRINTED = re.compile(
    r"\((00[0-9a-fA-F]{2}), ?([0-9a-fA-F]{4})\)[^\[\n:]{0,80}(?:\[([^\]\n]{2,200})\]|: ?'([^'\n]{2,200})')"
)


def values(text: str) -> Iterator[tuple[str, int, int]]:
    """Yield (label, start, end) of each value in `text`."""
    for segment in _SEGMENT.finditer(text) if "PID|" in text else ():
        at = segment.start()
        for number, field in enumerate(segment[0].split("|")):
            if number in _FIELDS:
                # Its first repetition, and of that the parts that are written; of a number the number alone.
                said = field.split("~")[0]
                said = said.split("^")[0] if _FIELDS[number] == "patient id" else said.rstrip("^")
                yield _FIELDS[number], at, at + len(said)
            at += len(field) + 1
    for printed in _PRINTED.finditer(text) if "(00" in text else ():
        group = 3 if printed[3] else 4
        yield keyword_for_tag(int(printed[1] + printed[2], 16)), *printed.span(group)

"""HL7 clinical documents (CDA R2) rebuilt: what was found and when, without who and where.

The document is parsed strictly (no document type, no entities, bounded) and built anew from an
allow-list of attributes. Persons, organisations, addresses and identifiers are dropped, or stand as
masked where the standard requires them; dates are moved and texts cleaned by the functions given.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import TYPE_CHECKING
from xml.etree import ElementTree as ET  # builds and writes trees; parsing is expat's, below
from xml.parsers import expat

from site_node.errors import UnreadableInstance

if TYPE_CHECKING:
    from collections.abc import Callable

V3, XSI = "urn:hl7-org:v3", "http://www.w3.org/2001/XMLSchema-instance"
_MOST_BYTES, _DEEPEST, _MOST_ELEMENTS = 32 * 2**20, 100, 200_000

# Who took part, wherever it stands (CDA R2 4.2.2, 4.3.7). Three of the header's are required.
_PEOPLE = frozenset(
    """
    recordTarget author dataEnterer informant custodian informationRecipient legalAuthenticator authenticator
    participant participantRole performer subject responsibleParty encounterParticipant inFulfillmentOf documentationOf
    relatedDocument authorization componentOf encompassingEncounter assignedEntity assignedAuthor specimen reference
    scopingEntity playingEntity location
    """.split()  # noqa: SIM905 -- a list of words
)
_DROPPED = _PEOPLE | {"name", "addr", "telecom", "desc", "setId", "linkHtml", "renderMultiMedia", "observationMedia"}
_REQUIRED = {
    "recordTarget": ("patientRole",),
    "author": ("time", "assignedAuthor"),
    "custodian": ("assignedCustodian", "representedCustodianOrganization"),
}
_TIMES = frozenset({"effectiveTime", "time", "low", "high", "center", "availabilityTime", "birthTime", "TS"})
_NUMBER = re.compile(r"[-+]?\d{1,9}(\.\d{1,9})?")
_TIMESTAMP = re.compile(r"\d{4,14}(\.\d{1,6})?([+-]\d{4})?")
_SAFE_CODE = re.compile(r"[A-Za-z0-9.^-]{1,24}")
# LOINC, SNOMED CT, ICD, UCUM and their like; HL7's own vocabularies; DICOM's terms.
_STANDARD_CODES = re.compile(
    r"2\.16\.840\.1\.113883\.(?:[56]|1\.11)(?:\.\d+)*|1\.2\.840\.10008\.(?:2\.16\.4|6\.1)(?:\.\d+)*"
)
_OID = re.compile(r"[0-2](?:\.\d+)+")
_TEMPLATES = re.compile(
    r"(?:2\.16\.840\.1\.113883|1\.2\.840\.10008|1\.3\.6\.1\.4\.1\.19376)(?:\.\d+)+"
)  # HL7, DICOM, IHE
# Attributes with a closed set of values, as the schema types them.
_TOKENS = frozenset(
    """
    classCode moodCode typeCode nullFlavor negationInd inversionInd contextControlCode determinerCode
    contextConductionInd independentInd operator inclusive institutionSpecified align valign border colspan
    rowspan listType styleCode unit
    """.split()  # noqa: SIM905 -- a list of words
)
_TOKEN = re.compile(r"[A-Za-z0-9%/.\[\]*{}_' -]{1,24}")
_NOT_XML = "document-embeds-another"


@dataclass(frozen=True, slots=True)
class Tools:
    """How texts, dates and identifiers are replaced."""

    clean: Callable[[str], str]
    date: Callable[[str], str]  # an HL7 timestamp, moved; "" if it cannot be
    uid: Callable[[str], str]


def rebuild(data: bytes, tools: Tools) -> bytes | None:
    """Return the clinical document rebuilt, or None if it embeds a document that is not XML.

    Raises: UnreadableInstance if it is no well-formed CDA within bounds, or declares types or entities.
    Source: HL7 CDA R2 (ISO/HL7 27932:2009), 4.2 and 4.3.
    """
    root = _parse(data)
    if root.tag != f"{{{V3}}}ClinicalDocument":
        raise UnreadableInstance("not a clinical document")
    if any(_local(element) in {"nonXMLBody", "observationMedia"} for element in root.iter()):
        return None
    names: dict[str, str] = {}
    built = _build(root, tools, names, 0)
    ET.register_namespace("", V3)
    ET.register_namespace("xsi", XSI)
    text: bytes = ET.tostring(built, encoding="UTF-8", xml_declaration=True)
    return text


def _parse(data: bytes) -> ET.Element:
    """Return the tree of a document without type, entities, comments or instructions."""
    if len(data) > _MOST_BYTES:
        raise UnreadableInstance("clinical document too large")
    builder, depth, count = ET.TreeBuilder(), 0, 0
    parser = expat.ParserCreate(namespace_separator="}")

    def refuse(*_: object) -> int:
        raise UnreadableInstance("clinical document declares types or entities")

    def start(tag: str, attributes: dict[str, str]) -> None:
        nonlocal depth, count
        depth, count = depth + 1, count + 1
        if depth > _DEEPEST or count > _MOST_ELEMENTS:
            raise UnreadableInstance("clinical document too deep or too long")
        builder.start(_tag(tag), {_tag(key): value for key, value in attributes.items()})

    def end(tag: str) -> None:
        nonlocal depth
        depth -= 1
        builder.end(_tag(tag))

    parser.StartDoctypeDeclHandler = refuse
    parser.EntityDeclHandler = refuse
    parser.ExternalEntityRefHandler = refuse
    parser.StartElementHandler, parser.EndElementHandler, parser.CharacterDataHandler = start, end, builder.data
    try:
        parser.Parse(data.rstrip(b"\0 "), True)  # noqa: FBT003 -- expat's own: this is the end
        return builder.close()
    except (expat.ExpatError, AssertionError, ValueError) as error:
        # expat's message has only line and column, but the chain is cut short all the same.
        raise UnreadableInstance("clinical document is not well formed") from error


def _tag(name: str) -> str:
    return "{" + name if "}" in name else name


def _local(element: ET.Element) -> str:
    return str(element.tag).rpartition("}")[2]


def _build(old: ET.Element, tools: Tools, names: dict[str, str], depth: int) -> ET.Element:
    new = ET.Element(old.tag, _attributes(old, tools, names))
    new.text = _text(old.text, tools)
    for child in old:
        local = _local(child)
        if not str(child.tag).startswith(f"{{{V3}}}"):
            continue  # extensions: unknown, so not kept
        if local in _DROPPED:
            if depth == 0 and local in _REQUIRED and new.find(str(child.tag)) is None:
                new.append(_masked(local))
        else:
            built = _build(child, tools, names, depth + 1)
            built.tail = _text(child.tail, tools)
            new.append(built)
            continue
        # What stood behind a dropped element is text of this one.
        if tail := _text(child.tail, tools).strip():
            if len(new):
                new[-1].tail = f"{new[-1].tail or ''} {tail}"
            else:
                new.text = f"{new.text or ''} {tail}"
    return new


def _text(text: str | None, tools: Tools) -> str:
    if text is None or not text.strip():
        return text or ""
    return tools.clean(text)


def _masked(local: str) -> ET.Element:
    """Return a required participant of whom nothing is said (null flavour MSK: masked)."""
    top = here = ET.Element(f"{{{V3}}}{local}")
    for name in _REQUIRED[local]:
        child = ET.SubElement(here, f"{{{V3}}}{name}")
        if name == "time":
            child.set("nullFlavor", "MSK")
        else:
            here = child
    ET.SubElement(here, f"{{{V3}}}id", {"nullFlavor": "MSK"})
    return top


def _attributes(old: ET.Element, tools: Tools, names: dict[str, str]) -> dict[str, str]:
    local = _local(old)
    kept: dict[str, str] = {}
    if local in {"id", "templateId", "typeId"}:
        return _identifier(old, local, tools)
    kind = old.get(f"{{{XSI}}}type", "")
    if kind and _TOKEN.fullmatch(kind):
        kept[f"{{{XSI}}}type"] = kind
    for key, value in old.attrib.items():
        if key in _TOKENS and _TOKEN.fullmatch(value) and tools.clean(value) in {value, ""}:
            kept[key] = value
        elif key in {"ID", "IDREF", "referencedObject"}:
            kept[key] = names.setdefault(value, f"n{len(names) + 1}")
        elif key in {"displayName", "codeSystemName"}:
            kept[key] = tools.clean(value)
    _code(kept, local, old)
    if (stated := old.get("value")) is not None:
        _value(kept, stated, local, kind, old, tools)
    return {key: value for key, value in kept.items() if value}


def _code(kept: dict[str, str], local: str, old: ET.Element) -> None:
    system = old.get("codeSystem", "")
    if _STANDARD_CODES.fullmatch(system):
        kept["codeSystem"] = system
        if _SAFE_CODE.fullmatch(old.get("code", "")):
            kept["code"] = old.get("code", "")
    elif local in {"languageCode", "realmCode"} and re.fullmatch(r"[A-Za-z]{2}(-[A-Za-z]{2})?", old.get("code", "")):
        kept["code"] = old.get("code", "")


def _identifier(old: ET.Element, local: str, tools: Tools) -> dict[str, str]:
    root = old.get("root", "")
    if local == "typeId":
        return {"root": "2.16.840.1.113883.1.3", "extension": "POCD_HD000040"}  # fixed by CDA R2 4.2.1.2
    if local == "templateId":
        return {"root": root} if _TEMPLATES.fullmatch(root) else {"nullFlavor": "MSK"}
    # The extension is the identifier itself; the root names who gave it. Together they make one.
    whole = root + old.get("extension", "")
    return {"root": tools.uid(whole)} if whole else {"nullFlavor": "NI"}


def _value(kept: dict[str, str], value: str, local: str, kind: str, old: ET.Element, tools: Tools) -> None:
    """Add a `value` attribute, a moment or a measured number; anything else is not kept."""
    measured = old.get("unit") is not None or kind.rpartition(":")[2] in {"PQ", "INT", "REAL", "IVL_PQ", "IVL_INT"}
    if local == "versionNumber" or measured:
        if _NUMBER.fullmatch(value):
            kept["value"] = value
    elif (local in _TIMES or kind.endswith("TS")) and _TIMESTAMP.fullmatch(value):
        if moved := tools.date(value):
            kept["value"] = moved
        else:
            kept["nullFlavor"] = "MSK"
    elif value in {"true", "false"}:
        kept["value"] = value

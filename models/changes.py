"""What is different between two versions of a task, key by key, for the person who approves the later one."""

from __future__ import annotations

import json
from dataclasses import dataclass
from difflib import SequenceMatcher
from typing import TYPE_CHECKING, Final

import rfc8785

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from pydantic import JsonValue

    from models.task import Task

_ABSENT: Final = "-"


@dataclass(frozen=True, slots=True)
class Change:
    """A key of the task, and its value before and after as JSON on one line; `-` where there is none."""

    key: str
    before: str
    after: str

    @property
    def part(self) -> str:
        """The part of the task that the key lies in, such as `network` or `rounds`."""
        return self.key.partition(".")[0].partition("[")[0]


def task_changes(before: Task, after: Task) -> tuple[Change, ...]:
    """Return every key in which two tasks differ, in the order of the task's keys; defaults are written out.

    Items of a list are matched first, so that one more transform is one change and not a change of all that follow.
    """
    return tuple(_differences("", before.model_dump(mode="json"), after.model_dump(mode="json")))


def _differences(key: str, before: JsonValue, after: JsonValue) -> Iterator[Change]:
    if rfc8785.dumps(before) == rfc8785.dumps(after):  # as the digest sees them
        return
    if isinstance(before, dict) and isinstance(after, dict):
        for name in (*before, *(name for name in after if name not in before)):
            here = f"{key}.{name}" if key else name
            if name not in after:
                yield Change(here, _line(before[name]), _ABSENT)
            elif name not in before:
                yield Change(here, _ABSENT, _line(after[name]))
            else:
                yield from _differences(here, before[name], after[name])
    elif isinstance(before, list) and isinstance(after, list) and _holds_parts([*before, *after]):
        yield from _differences_of_items(key, before, after)
    else:
        yield Change(key, _line(before), _line(after))


def _differences_of_items(key: str, before: Sequence[JsonValue], after: Sequence[JsonValue]) -> Iterator[Change]:
    matcher = SequenceMatcher(None, [_line(item) for item in before], [_line(item) for item in after], autojunk=False)
    for operation, start, end, new_start, new_end in matcher.get_opcodes():
        if operation == "equal":
            continue
        removed, added = range(start, end), range(new_start, new_end)
        together = min(len(removed), len(added))
        for old, new in zip(removed, added, strict=False):
            yield from _differences(f"{key}[{new}]", before[old], after[new])
        for old in removed[together:]:
            yield Change(f"{key}[{old}]", _line(before[old]), _ABSENT)
        for new in added[together:]:
            yield Change(f"{key}[{new}]", _ABSENT, _line(after[new]))


def _holds_parts(items: Sequence[JsonValue]) -> bool:
    return any(isinstance(item, dict) for item in items)


def _line(value: JsonValue) -> str:
    """Return JSON in which what cannot be seen, such as a change of the writing direction, is escaped."""
    text = json.dumps(value, ensure_ascii=False)
    return "".join(mark if mark.isprintable() else json.dumps(mark)[1:-1] for mark in text)

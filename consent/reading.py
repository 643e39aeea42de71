"""A consent record as its shape and its moments: what most consents share, and what each has of its own.

The consents of a hospital were written from few forms and differ in their dates. A shape is a record
without its id in which every instant is replaced by a number; the moments are the instants in the
order of these numbers. Both together are the record again, with the offsets its source wrote.
"""

from __future__ import annotations

import json
from dataclasses import dataclass, field, fields
from datetime import datetime
from functools import lru_cache
from typing import TYPE_CHECKING, Any, Final

from consent.record import Clause, ConsentRecord, Kind, Period, Provision, Scope

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence


@dataclass(frozen=True, slots=True)
class Shape:
    """A record without id and instants, as canonical JSON.

    `names_studies` and `refuses` (policies of a broad consent, whenever) tell what of it concerns
    more than this record and the date of a study.
    """

    text: str
    fields: dict[str, Any] = field(init=False, repr=False, compare=False)
    names_studies: bool = field(init=False, repr=False, compare=False)
    refuses: frozenset[str] = field(init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        """Read the text once."""
        read = json.loads(self.text)
        denied = [clause for clause in read["clauses"] or () if clause["kind"] == Kind.DENY.value]
        object.__setattr__(self, "fields", read)
        object.__setattr__(self, "names_studies", _names_studies(read["root"]))
        object.__setattr__(self, "refuses", frozenset(policy for clause in denied for policy in clause["policies"]))


@dataclass(frozen=True, slots=True)
class Reading:
    """What one consent says: its id, its shape and its moments."""

    consent_id: str
    shape: Shape
    moments: tuple[datetime, ...]

    @classmethod
    def of(cls, record: ConsentRecord) -> Reading:
        """Return `record` as a reading."""
        text, moments = outline(record)
        return cls(record.consent_id, _shape(text), moments)

    def record(self) -> ConsentRecord:
        """Return the record that was read."""
        return ConsentRecord(consent_id=self.consent_id, **_unpacked(self.shape.fields, self.moments))


@lru_cache(maxsize=4096)
def _shape(text: str) -> Shape:
    return Shape(text)


def outline(record: ConsentRecord) -> tuple[str, tuple[datetime, ...]]:
    """Return the text of the record's shape, and its moments."""
    # By their text, since two equal instants may be written with different offsets.
    places: dict[str, int] = {}
    packed = _packed(record, _RECORD, places)
    del packed["consent_id"]
    return json.dumps(packed, separators=(",", ":")), tuple(map(datetime.fromisoformat, places))


# ------------------------------------------------------------------ packing


def _names(kind: type[Any]) -> tuple[str, ...]:
    return tuple(f.name for f in fields(kind) if f.init)


_RECORD: Final = _names(ConsentRecord)
_RULE: Final = _names(Provision)
_CLAUSE: Final = _names(Clause)


def _packed(value: Any, names: tuple[str, ...], places: dict[str, int]) -> dict[str, Any]:  # noqa: ANN401 -- a record or a part
    packed = {}
    for name in names:
        held = getattr(value, name)
        pack = _PACK.get(type(held))
        packed[name] = pack(held, places) if pack else held
    return packed


def _packed_part(part: Provision | Clause, names: tuple[str, ...], places: dict[str, int]) -> dict[str, Any]:
    # What is empty is left out: it is so by default as well.
    return {name: held for name, held in _packed(part, names, places).items() if held or name == "policies"}


def _packed_list(listed: tuple[Any, ...], places: dict[str, int]) -> tuple[Any, ...]:
    if not listed or isinstance(listed[0], str):
        return listed
    names = _RULE if isinstance(listed[0], Provision) else _CLAUSE
    return tuple(_packed_part(one, names, places) for one in listed)


def _packed_moment(moment: datetime, places: dict[str, int]) -> int:
    return places.setdefault(moment.isoformat(), len(places))


def _packed_period(period: Period, places: dict[str, int]) -> tuple[int | None, ...]:
    bounds = (period.start, period.end)
    return tuple(None if bound is None else _packed_moment(bound, places) for bound in bounds)


_PACK: Final[dict[type, Callable[[Any, dict[str, int]], Any]]] = {
    datetime: _packed_moment,
    Period: _packed_period,
    tuple: _packed_list,
    Kind: lambda kind, _: kind.value,
    Scope: lambda scope, _: scope.value,
    Provision: lambda rule, places: _packed_part(rule, _RULE, places),
}


def _unpacked(packed: dict[str, Any], moments: Sequence[datetime]) -> dict[str, Any]:
    return {name: _UNPACK.get(name, _plain)(value, moments) for name, value in packed.items()}


def _plain(value: Any, _moments: Sequence[datetime]) -> Any:  # noqa: ANN401 -- a list or a bare value
    return tuple(value) if isinstance(value, list) else value


def _moment(place: int | None, moments: Sequence[datetime]) -> datetime | None:
    return None if place is None else moments[place]


def _period(packed: Sequence[int | None] | None, moments: Sequence[datetime]) -> Period | None:
    return None if packed is None else Period(*(_moment(place, moments) for place in packed))


def _provision(packed: dict[str, Any], moments: Sequence[datetime]) -> Provision:
    return Provision(**_unpacked(packed, moments))


def _provisions(packed: list[dict[str, Any]], moments: Sequence[datetime]) -> tuple[Provision, ...]:
    return tuple(_provision(one, moments) for one in packed)


def _clauses(packed: list[dict[str, Any]] | None, moments: Sequence[datetime]) -> tuple[Clause, ...] | None:
    return None if packed is None else tuple(Clause(**_unpacked(one, moments)) for one in packed)


_UNPACK: Final[dict[str, Callable[[Any, Sequence[datetime]], Any]]] = {
    "kind": lambda value, _: Kind(value),
    "scope": lambda value, _: Scope(value),
    "dated_at": _moment,
    "period": _period,
    "data_period": _period,
    "root": _provision,
    "children": _provisions,
    "clauses": _clauses,
}


def _names_studies(rule: dict[str, Any]) -> bool:
    return "data_references" in rule or any(map(_names_studies, rule.get("children", ())))

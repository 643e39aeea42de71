"""A consent record as its shape and its moments: what most consents share, and what each has of its own.

The consents of a hospital were written from few forms and differ in their dates. A shape is a record
without its id in which every instant is replaced by a number; the moments are the instants in the
order of these numbers. Both together are the record again, with the offsets its source wrote.
"""

from __future__ import annotations

import json
from dataclasses import dataclass, field, fields
from datetime import datetime
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
        return cls(record.consent_id, Shape(text), moments)

    def record(self) -> ConsentRecord:
        """Return the record that was read."""
        return ConsentRecord(consent_id=self.consent_id, **_unpacked(self.shape.fields, self.moments))


def outline(record: ConsentRecord) -> tuple[str, tuple[datetime, ...]]:
    """Return the text of the record's shape, and its moments."""
    # By their text, since two equal instants may be written with different offsets.
    places: dict[str, int] = {}
    packed = _packed(record, places)
    del packed["consent_id"]
    return json.dumps(packed, separators=(",", ":")), tuple(map(datetime.fromisoformat, places))


# ------------------------------------------------------------------ packing


_FIELDS: Final = {
    kind: tuple(f.name for f in fields(kind) if f.init) for kind in (ConsentRecord, Provision, Clause, Period)
}


def _packed(value: Any, places: dict[str, int]) -> Any:  # noqa: ANN401 -- any field of a record
    names = _FIELDS.get(type(value))
    if names is not None:
        return {name: _packed(getattr(value, name), places) for name in names}
    if isinstance(value, tuple):
        return [_packed(one, places) for one in value]
    if isinstance(value, Kind | Scope):
        return value.value
    if isinstance(value, datetime):
        return places.setdefault(value.isoformat(), len(places))
    return value


def _unpacked(packed: dict[str, Any], moments: Sequence[datetime]) -> dict[str, Any]:
    return {name: _UNPACK.get(name, _plain)(value, moments) for name, value in packed.items()}


def _plain(value: Any, _moments: Sequence[datetime]) -> Any:  # noqa: ANN401 -- a list or a bare value
    return tuple(value) if isinstance(value, list) else value


def _moment(place: int | None, moments: Sequence[datetime]) -> datetime | None:
    return None if place is None else moments[place]


def _period(packed: dict[str, int | None] | None, moments: Sequence[datetime]) -> Period | None:
    return None if packed is None else Period(_moment(packed["start"], moments), _moment(packed["end"], moments))


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
    return bool(rule["data_references"]) or any(map(_names_studies, rule["children"]))

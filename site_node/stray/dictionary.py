"""The hospital's own patients as keyed digests: what is asked can be told from them, what was told cannot be read."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from datetime import date  # noqa: TC003 -- of a NamedTuple
from functools import lru_cache
from typing import TYPE_CHECKING, NamedTuple

import numpy as np

from site_node.second_look.words import technical, words
from site_node.stray.digests import BIRTH, FAMILY, PAIR, Entry, number_forms, numbers

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Sequence

    from numpy.typing import NDArray

    from site_node.stray.digests import Keyer

_MIN_FAMILY = 5
_MAX_PERSONS = 64  # who share a birth date or a name are not all asked about


class Patient(NamedTuple):
    """What a hospital knows of one patient; held in memory alone while the dictionary is made."""

    patient_id: str
    names: tuple[str, ...] = ()
    birth_date: date | None = None
    numbers: tuple[str, ...] = ()


def entries(patient: Patient, keyer: Keyer) -> Iterator[Entry]:
    """Yield what is known of a patient as digests."""
    person = keyer.person(patient.patient_id.strip() or "\0".join(patient.names))
    yield from numbers(person, (patient.patient_id, *patient.numbers), keyer)
    for name in patient.names:
        for group in name.split("="):
            parts = [word for word in words(group) if len(word) > 1]
            for pair in {tuple(sorted((one, other))) for one in parts for other in parts if one != other}:
                yield Entry(keyer.digest("pair", "\0".join(pair)), PAIR, person)
            family = words(group.split("^")[0]) if "^" in group else words(group.split(",")[0]) if "," in group else ()
            for word in family:
                if len(word) >= _MIN_FAMILY and word not in technical():
                    yield Entry(keyer.digest("family", word), FAMILY, person)
    if patient.birth_date is not None:
        yield Entry(keyer.digest("birth", patient.birth_date.isoformat()), BIRTH, person)


@dataclass(frozen=True, slots=True)
class Table:
    """The digests, sorted, and whom each is of; can be sent to another process."""

    digests: NDArray[np.uint64]
    persons: NDArray[np.uint64]

    @property
    def digest(self) -> str:
        """What the table is called: another name once another patient is in it."""
        return hashlib.sha256(self.digests.tobytes() + self.persons.tobytes()).hexdigest()[:16]

    @classmethod
    def of(cls, rows: Iterable[tuple[int, int]]) -> Table:
        """Return a table of (digest, person)."""
        made = np.array(list(rows), dtype=np.uint64).reshape(-1, 2)
        made = made[np.argsort(made[:, 0], kind="stable")]
        return cls(np.ascontiguousarray(made[:, 0]), np.ascontiguousarray(made[:, 1]))


class Dictionary:
    """Answers whether something is known of a patient."""

    def __init__(self, keyer: Keyer, table: Table) -> None:
        self.keyer, self._table = keyer, table
        self.pair = lru_cache(maxsize=65536)(self._pair)
        self.family = lru_cache(maxsize=65536)(self._family)
        self.number = lru_cache(maxsize=65536)(self._number)

    def __len__(self) -> int:
        return len(self._table.digests)

    def _pair(self, one: str, other: str) -> int:
        return self._first("pair", "\0".join(sorted((one, other))))

    def _family(self, word: str) -> int:
        return self._first("family", word)

    def _number(self, text: str) -> int:
        return next((person for form in number_forms(text) if (person := self._first("number", form))), 0)

    def born(self, day: date) -> Sequence[int]:
        """Return who was born on a day, 64 at most."""
        return self._persons("birth", day.isoformat())

    def _first(self, domain: str, text: str) -> int:
        return next(iter(self._persons(domain, text)), 0)

    def _persons(self, domain: str, text: str) -> list[int]:
        if not len(self):
            return []
        wanted = np.uint64(self.keyer.digest(domain, text))
        start = int(np.searchsorted(self._table.digests, wanted))
        stop = min(int(np.searchsorted(self._table.digests, wanted, "right")), start + _MAX_PERSONS)
        return [int(person) for person in self._table.persons[start:stop]]

"""The package offers what it lists, sorted."""

from __future__ import annotations

import consent


def test_the_public_names_are_sorted_and_exist() -> None:
    names = consent.__all__

    constants = [name for name in names if name.isupper()]
    assert names == sorted(constants) + sorted(set(names) - set(constants))
    assert all(hasattr(consent, name) for name in names)

"""The order in which updates arrive changes nothing in the mean of a round, which can be made again without some."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from coordinator.folding import OrderedMean
from models import WeightedMean

if TYPE_CHECKING:
    from pathlib import Path

    from numpy.typing import NDArray

SITES = ("east", "north", "south", "west")
BASE: dict[str, NDArray[Any]] = {"float32": np.zeros(5, np.float32), "int64": np.zeros(1, np.int64)}
WEIGHTS = {"east": 30, "north": 7, "south": 110, "west": 13}


def update(site: str) -> dict[str, NDArray[np.generic]]:
    rng = np.random.default_rng(SITES.index(site))
    return BASE | {"float32": rng.normal(size=5).astype(np.float32)}


def weights(sites: set[str]) -> dict[str, int]:
    return {site: WEIGHTS[site] for site in sites}


def in_turn(sites: set[str]) -> bytes:
    """Return the mean as it comes out where everybody answers in the order of the names."""
    mean = WeightedMean(BASE)
    for site in sorted(sites):
        mean.add(update(site), WEIGHTS[site])
    return mean.result()["float32"].tobytes()


@given(
    st.permutations(SITES),
    st.sets(st.sampled_from(SITES), max_size=3),
    st.sets(st.sampled_from(SITES), max_size=3),
)
def test_the_mean_is_the_same_to_the_last_bit_whoever_comes_first(
    tmp_path_factory: pytest.TempPathFactory, arrival: list[str], taken_back: set[str], silent: set[str]
) -> None:
    arrived = set(SITES) - silent
    mean = OrderedMean(BASE, tmp_path_factory.mktemp("open"))

    for site in arrival:
        if site in arrived:
            mean.add(site, update(site))

    for counted in (arrived, arrived - taken_back):  # the second time, as if some were taken back meanwhile
        if counted:
            assert mean.result(weights(counted))["float32"].tobytes() == in_turn(counted)


def test_updates_wait_on_disk_until_the_round_is_closed(tmp_path: Path) -> None:
    mean = OrderedMean(BASE, tmp_path / "open")

    mean.add("north", update("north"))
    mean.add("east", update("east"))
    mean.result(weights({"north", "east"}))
    waiting = {path.name for path in (tmp_path / "open").iterdir()}
    mean.discard()

    assert waiting == {"east.safetensors", "north.safetensors"}
    assert list((tmp_path / "open").iterdir()) == []


def test_what_a_killed_coordinator_left_is_removed(tmp_path: Path) -> None:
    OrderedMean(BASE, tmp_path / "open").add("west", update("west"))

    OrderedMean(BASE, tmp_path / "open")

    assert list((tmp_path / "open").iterdir()) == []


def test_a_round_without_updates_has_no_mean(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="nothing"):
        OrderedMean(BASE, tmp_path / "open").result({})

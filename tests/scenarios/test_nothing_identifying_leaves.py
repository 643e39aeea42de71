"""Two hospitals train a model together; what arrives at the coordinator, and all that is shown, is searched."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import pytest
from pydicom import dcmread

from demo.consortium import Consortium
from demo.searches import pixel_hits, planted_hits
from tests.scenarios.setting import SITES, Setting, counted, short_task

if TYPE_CHECKING:
    from pathlib import Path

    import numpy as np
    from numpy.typing import NDArray

pytestmark = pytest.mark.slow


@dataclass(frozen=True, slots=True)
class Heard:
    """What the hospitals hold, what arrived from them, and what partners and operators are shown."""

    planted: list[str]
    pixels: list[NDArray[np.generic]]
    arrivals: list[bytes]
    shown: list[bytes]


def images(folder: Path) -> list[NDArray[np.generic]]:
    return [dcmread(path).pixel_array for path in sorted((folder / "virtual").rglob("mr*.dcm"))]


def files(folder: Path) -> list[bytes]:
    return [path.read_bytes() for path in sorted(folder.rglob("*")) if path.is_file()]


@pytest.fixture(scope="module")
def heard(tmp_path_factory: pytest.TempPathFactory) -> Heard:
    root: Path = tmp_path_factory.mktemp("consortium")
    with Consortium(root, "demo", SITES) as consortium:
        setting = Setting(consortium)
        run = setting.start_run(setting.ready(short_task()))
        record = setting.finish(run)
        consortium.coordinator("models", "fetch", run, str(root / "bundle"), "--access", str(root / "acme.json"))
    assert [counted(record, number) for number in (1, 2)] == [sorted(SITES)] * 2
    assert (root / "bundle" / "models").is_dir()
    arrivals = files(root / "coordinator" / "arrivals")
    assert sum(map(len, arrivals)) > 100_000
    return Heard(
        sorted({text for inbox in setting.inboxes.values() for text in inbox.planted}),
        [image for name in SITES for image in images(root / "inbox" / name)],
        arrivals,
        files(root / "bundle") + [consortium.log(name).encode() for name in ("coordinator", *SITES)],
    )


def test_raw_pixels_never_leave(heard: Heard) -> None:
    assert pixel_hits(heard.arrivals, heard.pixels) == []
    # The same search finds what is there: the search itself is no dead letter.
    assert pixel_hits([heard.arrivals[0] + heard.pixels[0].tobytes()], heard.pixels[:1])


def test_no_patient_value_is_outside_the_hospital_nor_in_logs_and_errors(heard: Heard) -> None:
    assert planted_hits(heard.arrivals, heard.planted) == []
    assert planted_hits(heard.shown, heard.planted) == []
    assert planted_hits([heard.arrivals[0] + heard.planted[0].encode()], heard.planted)

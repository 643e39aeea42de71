"""Two hospitals train a model together; everything that arrives at the coordinator is searched."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest
from pydicom import dcmread

from demo.searches import pixel_hits, planted_hits
from tests.scenarios.setting import SITES, counted, short_task

if TYPE_CHECKING:
    from pathlib import Path

    import numpy as np
    from numpy.typing import NDArray

    from tests.scenarios.setting import Setting


def images(folder: Path) -> list[NDArray[np.generic]]:
    return [dcmread(path).pixel_array for path in sorted((folder / "virtual").rglob("mr*.dcm"))]


def files(folder: Path) -> list[bytes]:
    return [path.read_bytes() for path in sorted(folder.rglob("*")) if path.is_file()]


@pytest.mark.slow
def test_a_model_is_trained_and_neither_a_name_nor_a_pixel_arrives(setting: Setting) -> None:
    run = setting.start_run(setting.ready(short_task()))

    record = setting.finish(run)

    assert record["state"] == "finished"
    assert [counted(record, number) for number in (1, 2)] == [sorted(SITES)] * 2
    bundle = setting.root / "bundle"
    setting.consortium.coordinator("models", "fetch", run, str(bundle), "--access", str(setting.root / "acme.json"))
    assert (bundle / "models").is_dir()

    planted = sorted({text for inbox in setting.inboxes.values() for text in inbox.planted})
    pixels = [image for name in SITES for image in images(setting.root / "inbox" / name)]
    arrivals = files(setting.root / "coordinator" / "arrivals")
    assert sum(map(len, arrivals)) > 100_000
    assert planted_hits(arrivals, planted) == []
    assert pixel_hits(arrivals, pixels) == []
    shown = files(bundle) + [setting.consortium.log(name).encode() for name in ("coordinator", *SITES)]
    assert planted_hits(shown, planted) == []
    # The same search finds what is there: the search itself is no dead letter.
    assert planted_hits([arrivals[0] + planted[0].encode()], planted)
    assert pixel_hits([arrivals[0] + pixels[0].tobytes()], pixels[:1])

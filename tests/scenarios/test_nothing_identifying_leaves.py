"""Two hospitals train a model together; what arrives at the coordinator, and all that is shown, is searched."""

from __future__ import annotations

import json
from base64 import b64decode
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

    from demo.hospitals import HospitalName

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


def told(setting: Setting, name: HospitalName, run: str) -> list[str]:
    """Return every record that a hospital gives to others of what it did in a run."""
    site, patient = setting.consortium.site, setting.patients(name)[0]
    task = next(made["task"] for made in json.loads(setting.consortium.coordinator("runs", "list", "--json")))
    site(name, "statistics", task, "--send")
    accounting = site(name, "disclosures", "--by", "officer", "--json", said=f"{patient}\n")
    assert run in accounting
    visa = setting.root / f"{name}.jwt"
    site(
        name, "requests", "visa", "1", "--to", str(visa), "--issuer", "https://n.example", "--subject", "s", "--by", "b"
    )
    return [
        accounting,
        site(name, "disclosures", "--by", "officer", said=f"{patient}\n"),
        site(name, "audit-events"),
        site(name, "ledger"),
        "".join(b64decode(part + "==", "-_").decode("latin-1") for part in visa.read_text().split(".")[:2]),
        setting.consortium.coordinator("statistics", task),
    ]


@pytest.fixture(scope="module")
def heard(tmp_path_factory: pytest.TempPathFactory) -> Heard:
    root: Path = tmp_path_factory.mktemp("consortium")
    with Consortium(root, "demo", SITES) as consortium:
        setting = Setting(consortium)
        run = setting.start_run(setting.ready(short_task()))
        record = setting.finish(run)
        consortium.coordinator("models", "fetch", run, str(root / "bundle"), "--access", str(root / "acme.json"))
        records = [text.encode() for name in SITES for text in told(setting, name, run)]
    assert [counted(record, number) for number in (1, 2)] == [sorted(SITES)] * 2
    assert (root / "bundle" / "models").is_dir()
    arrivals = files(root / "coordinator" / "arrivals")
    statistics = [path.read_bytes() for path in (root / "coordinator" / "arrivals").glob("*-statistics")]
    assert len(statistics) == len(SITES)
    arrivals += [b64decode(json.loads(envelope)["payload"]) for envelope in statistics]
    assert sum(map(len, arrivals)) > 100_000
    return Heard(
        sorted({text for inbox in setting.inboxes.values() for text in inbox.planted}),
        [image for name in SITES for image in images(root / "inbox" / name)],
        arrivals,
        files(root / "bundle") + [consortium.log(name).encode() for name in ("coordinator", *SITES)] + records,
    )


def test_raw_pixels_never_leave(heard: Heard) -> None:
    assert pixel_hits(heard.arrivals, heard.pixels) == []
    # The same search finds what is there: the search itself is no dead letter.
    assert pixel_hits([heard.arrivals[0] + heard.pixels[0].tobytes()], heard.pixels[:1])


def test_no_patient_value_is_outside_the_hospital_nor_in_logs_and_errors(heard: Heard) -> None:
    assert planted_hits(heard.arrivals, heard.planted) == []
    assert planted_hits(heard.shown, heard.planted) == []
    assert planted_hits([heard.arrivals[0] + heard.planted[0].encode()], heard.planted)

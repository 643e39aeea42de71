"""What the same training gives without a federation: each hospital alone, and all images together.

Possible only in a demo: this process opens the de-identified stores of all hospitals at once, which
in a federation nobody can. Functions, epochs and held-out patients are those of the federated run;
a given federated model is scored and pictured as well, and never trained.
"""

from __future__ import annotations

import argparse
import json
from dataclasses import asdict, dataclass
from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import numpy as np
import torch
from safetensors.numpy import load_file

from consent import Request
from demo.report import FEDERATED, POOLED
from demo.results import Curve, Picture, Score
from models import parse_layout, parse_task
from models.learning.build import build_network, load_state
from models.learning.evaluate import evaluate, predict
from models.learning.train import train
from site_node.catalogue import Series, series_with_labels
from site_node.cohort import freeze, split
from site_node.consents import ConsentReader, current_epoch
from site_node.dataset import Example, examples_from_series
from site_node.store import open_store, reading

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence

    from numpy.typing import NDArray
    from torch import nn

    from models import Task

_PICTURED: Final = (1 / 3, 2 / 3)  # which of the held-out slices are shown
_WHITE: Final = 99.5  # percentile of the image that is shown white


@dataclass(frozen=True, slots=True)
class SiteExamples:
    """One hospital's permitted examples: those to train on, and those of held-out patients."""

    train: tuple[Example, ...]
    held_out: tuple[Example, ...]


@dataclass(frozen=True, slots=True)
class Baselines:
    """Curves of every comparison, final curves of the federated model, and its pictures by site."""

    curves: tuple[Curve, ...]
    pictures: Mapping[str, tuple[Picture, ...]]


def read_site(home: Path, task: Task, recipient: str, at: datetime) -> SiteExamples:
    """Give the examples whose use for `task` the patients' consents permit at `at`."""
    store = reading(open_store(home / "site.db"))
    with store.connect() as db:
        held = ConsentReader().read(db, current_epoch(db))
        labelled = [one for one in series_with_labels(db, task.input.modality) if one.segmentation is not None]
    store.dispose()
    request = Request(task.purpose.purposes, (recipient,))
    consents = {patient: some.readings for patient, some in held.items()}
    permitted = freeze(labelled, consents, request, at).items
    train_on, held_out = split(permitted, task.validation_fraction, task.seed)
    return SiteExamples(_examples(train_on, home, task), _examples(held_out, home, task))


def train_alone(task: Task, sites: Mapping[str, SiteExamples]) -> list[Curve]:
    """Give the curves of one model for each hospital, trained there and scored everywhere."""
    return [curve for name, site in sites.items() for curve in _learn(task, name, site.train, sites)]


def train_pooled(task: Task, sites: Mapping[str, SiteExamples]) -> list[Curve]:
    """Give the curves of one model trained on the examples of all hospitals together."""
    together = [example for site in sites.values() for example in site.train]
    return _learn(task, POOLED, together, sites)


def score(network: nn.Module, task: Task, examples: Sequence[Example]) -> Score:
    """Give the network's Dice on `examples`; a label that nobody sees anywhere scores 0."""
    metrics = evaluate(network, task, examples)
    by_label = tuple(metrics.get(f"dice_{label.value}", 0.0) for label in task.labels)
    return Score(metrics.get("dice", 0.0), by_label)


def picture(network: nn.Module, task: Task, example: Example, caption: str) -> Picture:
    """Give one labelled slice with the network's prediction."""
    image, truth = example["image"], np.asarray(example["label"])[0]
    white = max(float(np.percentile(image, _WHITE)), 1.0)
    shown = np.clip(image[0] * (255 / white), 0, 255).astype(np.uint8)
    return Picture(caption, _rows(shown), _rows(truth), _rows(predict(network, task, image)))


def load_baselines(document: bytes) -> Baselines:
    """Read what this program wrote."""
    content = json.loads(document)
    pictures = {site: tuple(Picture(**_tupled(each)) for each in shown) for site, shown in content["pictures"].items()}
    return Baselines(tuple(_curve(each) for each in content["curves"]), pictures)


def main() -> None:
    """Train and score the baselines and write them as JSON."""
    arguments = _arguments()
    torch.set_num_threads(1)
    task = parse_task(arguments.task.read_bytes())
    sites = {
        name: read_site(Path(home), task, arguments.recipient, arguments.at)
        for name, home in (each.split("=", 1) for each in arguments.site)
    }
    curves = [*train_alone(task, sites), *train_pooled(task, sites)]
    pictures: dict[str, tuple[Picture, ...]] = {}
    if arguments.models is not None:
        curves += _scored(task, FEDERATED, _federated(task, arguments.models, 1), sites)
        (final,) = _federated(task, arguments.models, task.rounds)
        pictures = {name: _pictures(final, task, site) for name, site in sites.items()}
    found = Baselines(tuple(curves), pictures)
    arguments.output.write_text(json.dumps(asdict(found)))


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m demo.baselines", description=__doc__)
    parser.add_argument("--task", type=Path, required=True, help="the task document")
    parser.add_argument("--site", action="append", required=True, metavar="NAME=HOME")
    parser.add_argument("--recipient", required=True, help="as the consents are asked for it")
    parser.add_argument("--at", type=datetime.fromisoformat, required=True, help="with time zone")
    parser.add_argument("--models", type=Path, help="folder of the federated models, one a round")
    parser.add_argument("--output", type=Path, required=True)
    return parser.parse_args()


def _learn(task: Task, name: str, examples: Sequence[Example], sites: Mapping[str, SiteExamples]) -> list[Curve]:
    return _scored(task, name, _after_each_round(task, examples), sites)


def _after_each_round(task: Task, examples: Sequence[Example]) -> Iterable[nn.Module]:
    """Give the one network after every round's worth of epochs; it goes on learning."""
    network = build_network(task)
    for number in range(1, task.rounds + 1):
        train(network, task, examples, number, aborted=lambda: False)
        yield network


def _federated(task: Task, folder: Path, first: int) -> Iterable[nn.Module]:
    """Give the federated model after each round, from `first` on."""
    network = build_network(task)
    layout = parse_layout((folder / "layout.json").read_bytes())
    for number in range(first, task.rounds + 1):
        load_state(network, load_file(folder / f"round-{number:04d}.safetensors"), layout)
        yield network


def _scored(task: Task, name: str, networks: Iterable[nn.Module], sites: Mapping[str, SiteExamples]) -> list[Curve]:
    """Give one curve for each hospital that has held-out patients."""
    places = {place: site.held_out for place, site in sites.items() if site.held_out}
    scores = [{place: score(network, task, held_out) for place, held_out in places.items()} for network in networks]
    return [Curve(name, place, tuple(each[place] for each in scores)) for place in places]


def _pictures(network: nn.Module, task: Task, site: SiteExamples) -> tuple[Picture, ...]:
    chosen = [int(len(site.held_out) * part) for part in _PICTURED] if site.held_out else []
    return tuple(picture(network, task, site.held_out[place], f"Held-out slice {place + 1}") for place in chosen)


def _examples(items: Iterable[object], home: Path, task: Task) -> tuple[Example, ...]:
    codes = {(label.code.scheme, label.code.value): label.value for label in task.labels if label.code}
    return tuple(
        example
        for item in items
        if isinstance(item, Series)
        for example in examples_from_series(item, home, codes, task.input.spatial_dims)
    )


def _rows(pixels: NDArray[np.uint8]) -> tuple[tuple[int, ...], ...]:
    return tuple(tuple(row) for row in pixels.tolist())


def _curve(document: Mapping[str, Any]) -> Curve:
    scores = tuple(Score(**_tupled(each)) for each in document["scores"])
    return Curve(document["trained_on"], document["held_out_at"], scores)


def _tupled(document: Mapping[str, Any]) -> dict[str, Any]:
    return {key: _as_tuple(value) for key, value in document.items()}


def _as_tuple(value: object) -> object:
    return tuple(_as_tuple(each) for each in value) if isinstance(value, list) else value


if __name__ == "__main__":
    main()

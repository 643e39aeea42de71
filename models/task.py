"""A task: what shall be trained, on what, for which purpose, and how.

It is data; nothing in it is ever executed. Parsing is strict, every value has a bound, and the
parts must fit each other. Whether a hospital approves a task is not decided here: approval is given
to `task_digest`.
"""

from __future__ import annotations

import hashlib
import json
from datetime import date  # noqa: TC003 -- pydantic needs it at run time
from typing import TYPE_CHECKING, Annotated, Final, Literal, Self

import rfc8785
from pydantic import BaseModel, ConfigDict, Field, JsonValue, ValidationError, model_validator

from models.components import (
    LOSSES,
    NETWORKS,
    OPTIMISERS,
    TRANSFORMS,
    Arguments,
    check_component,
    check_dimensions,
    shown,
)
from models.errors import TaskRefused

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from pydantic_core import ErrorDetails

    from models.components import Component as Installed

MAX_TASK_BYTES: Final = 64 * 1024
METRICS: Final[Mapping[str, tuple[str, ...]]] = {
    "segmentation": ("dice",),
    "classification": ("accuracy",),
}
ALWAYS_REPORTED: Final = ("train_loss", "validation_loss")

Kind = Literal["segmentation", "classification"]
WithdrawalPolicy = Literal["keep", "stop-distribution", "rollback-retrain"]
Name = Annotated[str, Field(pattern=r"^[a-z0-9][a-z0-9-]{0,63}$")]
# A bundle holds a task's words, and MONAI evaluates configuration text that begins with `$@%`.
Line = Annotated[str, Field(min_length=1, max_length=200, pattern=r"^[^\x00-\x1f\x7f$@%][^\x00-\x1f\x7f]*$")]
Text = Annotated[str, Field(max_length=2000, pattern=r"^([^$@%](.|\n)*)?$")]
Country = Annotated[str, Field(pattern=r"^[A-Z]{3}$")]
Code = Annotated[str, Field(pattern=r"^[A-Za-z0-9:._-]{1,64}$")]


class _Strict(BaseModel):
    """Frozen, strictly typed, finite, and without any key that is not declared."""

    model_config = ConfigDict(frozen=True, strict=True, extra="forbid", allow_inf_nan=False)


class Purpose(_Strict):
    """What the result is for; a hospital compares it with patients' consents and its data's terms of use.

    What is not stated is unknown, and unknown is never taken as an approval. `countries` (ISO 3166 alpha-3),
    `institutions` and `users` are those of every participant, the coordinator included. Developing a model is
    methods development (DUO NMDS).
    """

    purposes: tuple[Code, ...] = Field(min_length=1, max_length=16)  # HL7 v3-ActReason
    description: Text = ""
    research: Literal["health", "general"] | None = None  # DUO HMB, GRU
    diseases: tuple[Code, ...] = Field(default=(), max_length=64)  # MONDO; DUO DS
    methods_development: bool | None = None  # DUO NMDS
    ancestry: bool | None = None  # DUO POA, NPOA
    clinical_care: bool | None = None  # DUO CC
    commercial: bool | None = None  # DUO NCU
    for_profit: bool | None = None  # DUO NPU
    countries: tuple[Country, ...] = Field(default=(), max_length=250)  # DUO GS
    institutions: tuple[Line, ...] = Field(default=(), max_length=1000)  # DUO IS
    users: tuple[Line, ...] = Field(default=(), max_length=1000)  # DUO US
    topics: tuple[Line, ...] = Field(default=(), max_length=64)  # DUO RS
    ethics_approved_until: date | None = None  # DUO IRB
    will_publish: bool | None = None  # DUO PUB
    publishes_from: date | None = None  # DUO MOR
    collaboration_signed: bool | None = None  # DUO COL
    returns_data: bool | None = None  # DUO RTN
    retrospective: bool = False  # studies older than the consent are wanted (MII 24.5.3.45)
    linked: bool = False  # the data are joined with those of others (MII 24.5.3.9)
    outside_gdpr: bool | None = None  # a recipient is outside the level of the GDPR (MII 24.5.3.49)


class Input(_Strict):
    """The images the task needs."""

    modality: Annotated[str, Field(pattern=r"^[A-Z]{2,16}$")]  # DICOM (0008,0060)
    spatial_dims: Literal[2, 3]


class LabelCode(_Strict):
    """A coded concept, as DICOM writes it (PS3.3 table 8.8-1)."""

    scheme: Code
    value: Code
    meaning: Line


class Label(_Strict):
    """One class and its value in label maps and class labels."""

    value: Annotated[int, Field(ge=0, le=255)]
    name: Line
    code: LabelCode | None = None


class Component(_Strict):
    """An installed component by name, with its arguments."""

    name: Annotated[str, Field(min_length=1, max_length=64)]
    arguments: dict[str, JsonValue] = Field(default_factory=dict, max_length=32)


class Transforms(_Strict):
    """What is done to an example before the network sees it."""

    train: tuple[Component, ...] = Field(default=(), max_length=32)
    evaluate: tuple[Component, ...] = Field(default=(), max_length=32)


class StrategySettings(_Strict):
    """How updates combine, and how long a round waits."""

    name: Literal["FedAvg"]
    quorum: Annotated[int, Field(ge=1, le=1000)]
    deadline_s: Annotated[float, Field(ge=1, le=604_800)]  # at most a week
    max_update_norm: Annotated[float, Field(gt=0, le=1e9)]  # L2, in units of the weights


class Task(_Strict):
    """A whole task; one that exists has parts that are installed, bounded and fit each other."""

    format: Literal["filmroom-task/1"]
    name: Name
    title: Line
    project: Line
    kind: Kind
    purpose: Purpose
    input: Input
    labels: tuple[Label, ...] = Field(min_length=1, max_length=255)
    network: Component
    loss: Component
    optimiser: Component
    transforms: Transforms = Transforms()
    metrics: tuple[str, ...] = Field(min_length=1, max_length=8)
    rounds: Annotated[int, Field(ge=1, le=1000)]
    local_epochs: Annotated[int, Field(ge=1, le=100)]
    batch_size: Annotated[int, Field(ge=1, le=1024)]
    seed: Annotated[int, Field(ge=0, le=2**32 - 1)]
    validation_fraction: Annotated[float, Field(ge=0, le=0.9)]
    strategy: StrategySettings
    minimum_examples: Annotated[int, Field(ge=1, le=1_000_000)] = 1
    # What becomes of a model once the permission for something it was trained on is withdrawn.
    withdrawal_policy: WithdrawalPolicy = "stop-distribution"

    @model_validator(mode="after")
    def _parts_fit(self) -> Self:
        _check_labels(self)
        _check_network(self)
        _check_choice("loss", LOSSES, self.loss, self.kind)
        _check_choice("optimiser", OPTIMISERS, self.optimiser, self.kind)
        _check_transforms("transforms.train", self.transforms.train, self)
        _check_transforms("transforms.evaluate", self.transforms.evaluate, self)
        _check_metrics(self)
        return self


def parse_task(data: bytes) -> Task:
    """Read a task document.

    Raises: TaskRefused, naming the key that is wrong.
    """
    if len(data) > MAX_TASK_BYTES:
        raise TaskRefused("task", f"is larger than {MAX_TASK_BYTES} bytes")
    document = _strict_json(data)
    try:
        return Task.model_validate_json(json.dumps(document))
    except ValidationError as error:
        first = error.errors(include_url=False, include_context=True)[0]
        raise TaskRefused(_path(first["loc"]), _why(first)) from error


def canonical(task: Task) -> bytes:
    """Give the task as canonical JSON, defaults written out.

    Source: RFC 8785.
    """
    return rfc8785.dumps(task.model_dump(mode="json"))


def task_digest(task: Task) -> str:
    """Give the SHA-256 of the canonical task, in hexadecimal; what a hospital approves."""
    return hashlib.sha256(canonical(task)).hexdigest()


def metric_names(task: Task) -> tuple[str, ...]:
    """Give the exact names of the scalar metrics that may leave a hospital for this task."""
    per_label = [f"dice_{label.value}" for label in task.labels if "dice" in task.metrics]
    return (*ALWAYS_REPORTED, *task.metrics, *per_label)


def class_count(task: Task) -> int:
    """Give the number of classes the network tells apart; label maps have a background as well."""
    return len(task.labels) + (task.kind == "segmentation")


def _strict_json(data: bytes) -> object:
    try:
        return json.loads(data.decode("utf-8"), object_pairs_hook=_no_duplicates, parse_constant=_no_constant)
    except (ValueError, RecursionError) as error:
        raise TaskRefused("task", "is not JSON in UTF-8") from error


def _no_duplicates(pairs: list[tuple[str, object]]) -> dict[str, object]:
    seen: dict[str, object] = {}
    for key, value in pairs:
        if key in seen:
            raise TaskRefused(shown(key)[1:-1], "appears twice")
        seen[key] = value
    return seen


def _no_constant(word: str) -> object:
    raise TaskRefused("task", f"{word} is not a JSON number")


def _path(location: Sequence[int | str]) -> str:
    path = ""
    for step in location:
        path += f"[{step}]" if isinstance(step, int) else f".{shown(step)[1:-1]}"
    return path.removeprefix(".") or "task"


_WHY: Final[Mapping[str, str]] = {
    "json_invalid": "is not JSON in UTF-8",
    "extra_forbidden": "unknown key",
    "missing": "missing",
    "less_than_equal": "{value} is above {le}",
    "greater_than_equal": "{value} is below {ge}",
    "greater_than": "{value} is not above {gt}",
    "literal_error": "{value} is not offered; choose one of {expected}",
    "string_pattern_mismatch": "{value} does not match {pattern}",
    "too_long": "has {actual_length} items, more than {max_length}",
    "too_short": "has {actual_length} items, fewer than {min_length}",
}


def _why(error: ErrorDetails) -> str:
    pattern = _WHY.get(error["type"])
    if pattern is None:
        return f"{shown(error['input'])}: {error['msg']}"
    return pattern.format(value=shown(error["input"]), **error.get("ctx", {}))


def _check_labels(task: Task) -> None:
    first = 1 if task.kind == "segmentation" else 0
    for place, label in enumerate(task.labels):
        if label.value != place + first:
            why = f"{label.value} is out of order; a {task.kind} counts its labels from {first}"
            raise TaskRefused(f"labels[{place}].value", why)


def _check_choice(key: str, table: Mapping[str, Installed], chosen: Component, kind: Kind) -> Arguments:
    installed = check_component(table, key, chosen.name, chosen.arguments)
    if kind not in installed.kinds:
        raise TaskRefused(f"{key}.name", f"{shown(chosen.name)} does not do {kind}")
    return chosen.arguments


def _check_network(task: Task) -> None:
    arguments = _check_choice("network", NETWORKS, task.network, task.kind)
    expected = {"spatial_dims": task.input.spatial_dims, "out_channels": class_count(task)}
    for name, value in expected.items():
        if arguments[name] != value:
            why = f"{shown(arguments[name])} does not fit the task, which needs {value}"
            raise TaskRefused(f"network.arguments.{name}", why)


def _check_transforms(key: str, chosen: Sequence[Component], task: Task) -> None:
    for place, component in enumerate(chosen):
        here = f"{key}[{place}]"
        installed = check_component(TRANSFORMS, here, component.name, component.arguments)
        check_dimensions(f"{here}.arguments", component.arguments, task.input.spatial_dims)
        if installed.random and key == "transforms.evaluate":
            raise TaskRefused(f"{here}.name", f"{shown(component.name)} is random; evaluation is not")
        moves_label = installed.spatial and task.kind == "segmentation"
        _check_keys(f"{here}.arguments", component.arguments, moves_label=moves_label)


def _check_keys(key: str, arguments: Arguments, *, moves_label: bool) -> None:
    """Let a label map move with its image, by whole labels; let nothing else touch a label."""
    expected = ["image", "label"] if moves_label else ["image"]
    if arguments["keys"] != expected:
        raise TaskRefused(f"{key}.keys", f"must be {json.dumps(expected)} here")
    mode = arguments.get("mode")
    if not isinstance(mode, list):
        return
    if len(mode) != len(expected) or (moves_label and mode[1] != "nearest"):
        raise TaskRefused(f"{key}.mode", 'must be one word for each key, "nearest" for the label')


def _check_metrics(task: Task) -> None:
    offered = METRICS[task.kind]
    for place, name in enumerate(task.metrics):
        if name not in offered or name in task.metrics[:place]:
            why = f"{shown(name)} is not offered for a {task.kind}, or appears twice"
            raise TaskRefused(f"metrics[{place}]", f"{why}; choose from {', '.join(offered)}")

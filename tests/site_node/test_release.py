"""The only way out: what may leave is declared, and everything else is refused."""

from __future__ import annotations

import json
import math
import re
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from consent import bucket_with_hysteresis, count_bucket
from demo.task import TASK as DOCUMENT
from models import UpdateRefused, metric_names, parse_task
from site_node.errors import ReleaseRefused
from site_node.release import ABSTAIN, LEAVES, Line, check_arrays, check_metrics, steps_of
from tests.site_node.hospital import TASK_DOCUMENT, message

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from consent import Bucket
    from models import Task

TASK = parse_task(TASK_DOCUMENT)
BASE: dict[str, NDArray[Any]] = {"float32": np.zeros(3, np.float32), "int64": np.zeros(1, np.int64)}
README = Path(__file__).parents[2] / "README.md"


class Wire:
    """Stands where the network would begin."""

    def __init__(self) -> None:
        self.sent: list[Any] = []

    def hand_over(self, reply: Any) -> None:
        """Keep what would leave."""
        self.sent.append(reply)


CLASSIFICATION: dict[str, Any] = DOCUMENT | {
    "kind": "classification",
    "labels": [{"value": 0, "name": "no lesion"}, {"value": 1, "name": "lesion"}],
    "network": {"name": "DenseNet121", "arguments": {"spatial_dims": 2, "in_channels": 1, "out_channels": 2}},
    "loss": {"name": "CrossEntropyLoss"},
    "transforms": {},
    "metrics": ["accuracy"],
}
BUCKETS = st.integers(1, 5_000).map(count_bucket)
FRACTIONS = st.floats(0.05, 0.9)
METRICS = dict.fromkeys(("dice", "dice_1"), st.floats(0, 1)) | dict.fromkeys(("train_loss",), st.floats(0, 1e6))


def classification(fraction: float) -> Task:
    document = CLASSIFICATION | {"validation_fraction": fraction}
    return parse_task(json.dumps(document).encode())


def stands_for(bucket: Bucket) -> range:
    """Return the numbers of studies for which the range stays as it is."""
    return range(bucket.fewest, 2 * bucket.lowest + bucket.slack)


@given(st.fixed_dictionaries({}, optional=METRICS))
def test_declared_finite_metrics_leave_in_declared_order(metrics: dict[str, float]) -> None:
    checked = check_metrics(TASK, metrics, count_bucket(24))

    assert list(checked) == [name for name in metric_names(TASK) if name in metrics]


@pytest.mark.parametrize("studies", [1, 2, 4, 8, 16, 32, 64])
def test_a_range_stands_for_exactly_the_numbers_between_which_it_is_kept(studies: int) -> None:
    bucket = count_bucket(studies)
    kept = [n for n in range(1, 3 * studies + 3) if bucket_with_hysteresis(n, bucket) == bucket]

    assert kept == list(stands_for(bucket))


@settings(max_examples=60)
@given(BUCKETS, FRACTIONS, st.data())
def test_an_accuracy_has_the_same_values_whatever_number_of_the_range_it_was_counted_of(
    bucket: Bucket, fraction: float, data: st.DataObject
) -> None:
    task = classification(fraction)
    steps = steps_of("accuracy", task, bucket)
    studies = data.draw(st.sampled_from(stands_for(bucket)))
    images = max(1, int(studies * fraction))

    released = {check_metrics(task, {"accuracy": right / images}, bucket)["accuracy"] for right in range(images + 1)}

    assert released == {value / steps for value in range(steps + 1)}


@pytest.mark.parametrize("studies", [8, 16, 31, 64])
def test_one_study_less_changes_no_grid(studies: int) -> None:
    task, before = classification(0.25), count_bucket(studies)
    after = bucket_with_hysteresis(studies - 1, before)

    for name in metric_names(task):
        assert steps_of(name, task, after) == steps_of(name, task, before)


def test_what_six_and_five_images_gave_away_does_not_leave() -> None:
    task, bucket = classification(0.25), count_bucket(24)
    leaves = {
        (right, images): check_metrics(task, {"accuracy": right / images}, bucket)["accuracy"]
        for images in (5, 6)
        for right in range(images + 1)
    }

    assert leaves[3, 6] == leaves[2, 5] == leaves[3, 5] == 0.5
    assert {leaves[right, 5] for right in range(6)} == {leaves[right, 6] for right in range(7)} == {0, 0.5, 1}


@given(st.sampled_from([f"{kind}_loss" for kind in ("train", "validation")]), st.floats(-1e300, 1e300), BUCKETS)
def test_a_loss_keeps_its_size_and_few_of_its_digits(name: str, loss: float, bucket: Bucket) -> None:
    steps = steps_of(name, TASK, bucket)

    released = check_metrics(TASK, {name: loss}, bucket)[name]

    fraction, _ = math.frexp(released)
    assert (fraction * steps).is_integer()
    assert abs(released - loss) <= abs(loss) / steps + 1e-300


def test_a_loss_that_cannot_be_rounded_is_refused() -> None:
    with pytest.raises(ReleaseRefused, match="too large"):
        check_metrics(TASK, {"train_loss": sys.float_info.max}, count_bucket(24))


@pytest.mark.parametrize("value", [-0.1, 1.1])
def test_a_share_that_is_none_is_refused(value: float) -> None:
    with pytest.raises(ReleaseRefused, match="metric dice is not between 0 and 1"):
        check_metrics(TASK, {"dice": value}, count_bucket(24))


@given(st.text().filter(lambda name: name not in metric_names(TASK)))
def test_no_undeclared_metric_leaves_and_its_name_is_not_repeated(name: str) -> None:
    with pytest.raises(ReleaseRefused) as refusal:
        check_metrics(TASK, {"dice": 0.5, name: 1.0}, count_bucket(24))

    assert str(refusal.value) == "a metric is not among the task's declared metrics"


@pytest.mark.parametrize("value", [float("nan"), float("inf"), 1, True, [0.5], "0.5", None, np.float64(0.5)])
def test_a_metric_is_one_finite_float(value: Any) -> None:
    with pytest.raises(ReleaseRefused):
        check_metrics(TASK, {"dice": value}, count_bucket(24))


def test_weights_like_the_base_models_leave_in_its_order() -> None:
    arrays: dict[str, NDArray[Any]] = {"int64": np.ones(1, np.int64), "float32": np.ones(3, np.float32)}

    checked = check_arrays(TASK, arrays, BASE)

    assert list(checked) == list(BASE)
    np.testing.assert_array_equal(checked["float32"], arrays["float32"])
    assert not any(np.shares_memory(checked[name], given[name]) for name in BASE for given in (arrays, BASE))


def test_how_many_batches_a_site_trained_on_does_not_leave() -> None:
    trained = BASE | {"int64": np.array([41])}

    np.testing.assert_array_equal(check_arrays(TASK, trained, BASE)["int64"], BASE["int64"])


@pytest.mark.parametrize(
    "changed",
    [
        {"float32": np.zeros((3, 1), np.float32)},
        {"float32": np.zeros(2, np.float32)},
        {"float32": np.zeros(3, np.float16)},
        {"int64": np.zeros(1, np.int32)},
        {"extra": np.zeros(3, np.float32)},
        {"float32": np.array([0, np.inf, 0], np.float32)},
        {"float32": np.full(3, 600, np.float32)},  # its norm is above the task's 1000
    ],
    ids=["shape", "length", "dtype", "another kind of integer", "one more", "not finite", "norm"],
)
def test_weights_unlike_the_base_models_are_refused(changed: dict[str, Any]) -> None:
    with pytest.raises(UpdateRefused):
        check_arrays(TASK, BASE | changed, BASE)


def test_a_missing_array_is_refused() -> None:
    with pytest.raises(UpdateRefused):
        check_arrays(TASK, {"float32": BASE["float32"]}, BASE)


def test_a_release_holds_weights_metrics_and_receipt_and_nothing_else() -> None:
    wire = Wire()
    head = message({"secret": "from the coordinator"}, BASE, "m1")

    Line(wire).release(head, BASE, {"dice": 0.5}, b"receipt")  # type: ignore[arg-type] # only `hand_over` is used

    (reply,) = wire.sent
    assert set(reply.content) == {"arrays", "metrics", "receipt"}
    assert dict(reply.content["metrics"]) == {"dice": 0.5}
    assert dict(reply.content["receipt"]) == {"envelope": b"receipt"}
    assert list(reply.content["arrays"]) == list(BASE)


def test_an_untrained_model_is_sent_whole_only_where_it_is_asked_for() -> None:
    wire = Wire()
    line, head = Line(wire), message(None, {}, "m1")  # type: ignore[arg-type] # only `hand_over` is used

    line.release_initial(head, BASE, "[]", whole=False)
    line.release_initial(head, BASE, "[]", whole=True)

    assert [set(reply.content) for reply in wire.sent] == [{"model"}, {"model", "arrays"}]


def test_an_abstention_is_one_code_and_no_content() -> None:
    wire = Wire()

    Line(wire).abstain(message(None, {}, "m1"))  # type: ignore[arg-type] # only `hand_over` is used

    (reply,) = wire.sent
    assert not reply.has_content()
    assert (reply.error.code, reply.error.reason) == (ABSTAIN, "abstain")


@pytest.mark.skipif(not README.exists(), reason="the README is not written yet")
def test_the_readme_says_exactly_what_leaves_the_hospital() -> None:
    section = README.read_text().split("What leaves the hospital", 1)[1].split("\n#", 1)[0]
    bullets = re.findall(r"^[-*] (.+(?:\n {2,}.+)*)", section, re.MULTILINE)

    assert tuple(" ".join(bullet.split()) for bullet in bullets) == LEAVES

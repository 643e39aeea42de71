"""The only way out: what may leave is declared, and everything else is refused."""

from __future__ import annotations

import re
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from models import UpdateRefused, metric_names, parse_task
from site_node.errors import ReleaseRefused
from site_node.release import ABSTAIN, LEAVES, Line, check_arrays, check_metrics
from tests.site_node.hospital import TASK_DOCUMENT, message

if TYPE_CHECKING:
    from numpy.typing import NDArray

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


@given(st.dictionaries(st.sampled_from(metric_names(TASK)), st.floats(allow_nan=False, allow_infinity=False)))
def test_declared_finite_metrics_leave_as_they_are_in_declared_order(metrics: dict[str, float]) -> None:
    checked = check_metrics(TASK, metrics)

    assert checked == metrics
    assert list(checked) == [name for name in metric_names(TASK) if name in metrics]


@given(st.text().filter(lambda name: name not in metric_names(TASK)))
def test_no_undeclared_metric_leaves_and_its_name_is_not_repeated(name: str) -> None:
    with pytest.raises(ReleaseRefused) as refusal:
        check_metrics(TASK, {"dice": 0.5, name: 1.0})

    assert str(refusal.value) == "a metric is not among the task's declared metrics"


@pytest.mark.parametrize("value", [float("nan"), float("inf"), 1, True, [0.5], "0.5", None, np.float64(0.5)])
def test_a_metric_is_one_finite_float(value: Any) -> None:
    with pytest.raises(ReleaseRefused):
        check_metrics(TASK, {"dice": value})


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

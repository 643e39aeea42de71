"""The only way out of the hospital. No other module may import the line (import-linter holds it to that).

Everything that leaves is built here, from scratch, out of a declared schema; nothing that training returned is
forwarded. What may leave is listed in `LEAVES`, which the README repeats and a test compares.
"""

from __future__ import annotations

import base64
import math
from contextlib import contextmanager
from typing import TYPE_CHECKING

import numpy as np
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat
from flwr.app import Array, ArrayRecord, ConfigRecord, Error, Message, MetricRecord, RecordDict

from models import check_update, metric_names, model_digest, npy_bytes
from models.task import ALWAYS_REPORTED
from models.update import is_floating, require_like
from site_node import link
from site_node.errors import ReleaseRefused
from site_node.link import Incoming

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from numpy.typing import NDArray

    from consent import Bucket, Succession
    from models import Task
    from site_node.config import Identity

    Arrays = Mapping[str, NDArray[np.generic]]

__all__ = ["Incoming"]  # for those who may not see the line; the rest is imported by name

LEAVES = (
    "when joining: the one-time token, three public keys and a certificate signing request",
    "when the receipt key is changed: the new public key, signed by the old and by the new one",
    "while connected: signed timestamps of the node key (to be known, to keep the lease, to ask for work)",
    "per training round: the model's weights after local training, in the shapes of the global model",
    "per training round and evaluation: the task's declared metrics, as coarse as its receipt's range of studies",
    "per training round and evaluation: one signed consent receipt, which shows two signed states of the consent log",
    "per training round and evaluation, where witnesses are named: size, root and growth of the consent log",
    "once per run: the untrained model's weights, layout and digest, which follow from the task alone",
    "instead of a result: one code for every reason to abstain",
    "on a person's command: how many studies consents permit for a task, in ranges, as one signed statement",
    "after a withdrawal: one signed notice that names the receipts of updates that may no longer be used",
)

ABSTAIN = 1001
NPY = "numpy.ndarray"  # Flower's name for an npy file


# An accuracy counts images: its grid may never be finer than there are images to measure with. A Dice counts pixels,
# and a loss is a mean: a hospital with few images still gets a curve.
COUNTS_IMAGES = frozenset({"accuracy"})
COARSEST = 8


def steps_of(name: str, task: Task, bucket: Bucket) -> int:
    """Return how many steps of its grid a metric has between 0 and 1; a power of two.

    At most as many as the validation part has studies if there are the fewest the range stands for: then every value of
    the grid can come of every number the range stands for, and the values do not tell which. It follows from the task
    and the range alone, so that it is steady while the range is.
    """
    validated = max(1, int(bucket.fewest * task.validation_fraction))
    steps = 1 << (validated.bit_length() - 1)
    return steps if name in COUNTS_IMAGES else max(COARSEST, steps)


def check_metrics(task: Task, metrics: Mapping[str, float], bucket: Bucket) -> dict[str, float]:
    """Return the metrics that may leave for `task`, coarsened, as plain floats in declared order.

    A share is rounded to the grid of `steps_of`; of a loss, the binary fraction is, between 0.5 and 1.
    Raises: ReleaseRefused if there is any other, one is not a finite number, or a share not between 0 and 1.
    """
    names = metric_names(task)
    for name, value in metrics.items():
        if name not in names:
            raise ReleaseRefused("a metric is not among the task's declared metrics")
        if type(value) is not float or not math.isfinite(value):
            raise ReleaseRefused(f"metric {name} is not a finite number")
        if name not in ALWAYS_REPORTED and not 0 <= value <= 1:
            raise ReleaseRefused(f"metric {name} is not between 0 and 1")
    coarse = {name: _coarse(metrics[name], steps_of(name, task, bucket), name) for name in names if name in metrics}
    if not all(map(math.isfinite, coarse.values())):
        raise ReleaseRefused("a loss is too large")
    return coarse


def _coarse(value: float, steps: int, name: str) -> float:
    if name not in ALWAYS_REPORTED:
        return round(value * steps) / steps
    fraction, exponent = math.frexp(value)
    return 2 * round(fraction * steps) / steps * 2.0 ** (exponent - 1)


def check_arrays(task: Task, arrays: Arrays, base: Arrays) -> dict[str, NDArray[np.generic]]:
    """Return copies of the weights in the base model's order, names, shapes and dtypes.

    Only floating-point numbers leave: the rest, such as a layer's count of the batches it saw, is the base model's own.
    Raises: UpdateRefused if they differ from the base model in kind, are not finite, or moved too far.
    """
    require_like(arrays, base)
    made = {name: np.array(arrays[name] if is_floating(base[name]) else base[name]) for name in base}
    check_update(made, base, task.strategy.max_update_norm)
    return made


@contextmanager
def open_line(address: str, identity: Identity) -> Iterator[Line]:
    """Connect to the federation's fleet until the block ends.

    Raises: PeerError if the coordinator is unreachable or does not know this site.
    """
    with link.connect(address, identity) as connected:
        yield Line(connected)


class Line:
    """The connected line: messages come in as they are, and go out only by the methods below."""

    def __init__(self, connected: link.Link) -> None:
        self._link = connected

    def announce(self) -> Incoming | None:
        """Wait for the next message; None if there was none for a while."""
        return self._link.announce()

    def fetch(self, incoming: Incoming) -> Message:
        """Return the announced message with its body."""
        return self._link.fetch(incoming)

    def release(self, head: Message, arrays: Arrays, metrics: Mapping[str, float], receipt: bytes) -> None:
        """Answer `head` with weights, metrics and the receipt that binds them."""
        content: dict[str, MetricRecord | ConfigRecord] = {
            "metrics": MetricRecord(dict(metrics)),
            "receipt": ConfigRecord({"envelope": receipt}),
        }
        self._send(head, arrays, content)

    def release_initial(self, head: Message, arrays: Arrays, layout: str, *, whole: bool) -> None:
        """Answer `head` with the untrained model's digest and layout, and its weights if `whole`."""
        model = ConfigRecord({"digest": model_digest(arrays), "layout": layout})
        self._send(head, arrays if whole else {}, {"model": model})

    def abstain(self, head: Message) -> None:
        """Answer `head` with the one code that stands for every reason not to take part."""
        self._link.hand_over(Message(Error(code=ABSTAIN, reason="abstain"), reply_to=head))

    def _send(self, head: Message, arrays: Arrays, content: Mapping[str, MetricRecord | ConfigRecord]) -> None:
        records = RecordDict(dict(content))
        if arrays:
            records["arrays"] = ArrayRecord({name: _packed(array) for name, array in arrays.items()})
        self._link.hand_over(Message(records, reply_to=head))


def _packed(array: NDArray[np.generic]) -> Array:
    return Array(array.dtype.name, array.shape, NPY, npy_bytes(array))


def join(
    url: str, authority_pem: str, token: str, signing_request: bytes, keys: Mapping[str, bytes]
) -> Mapping[str, str]:
    """Send this site's public keys to the coordinator and return its answer.

    Raises: PeerError if the invitation is refused or the coordinator is not who the invitation says.
    """
    request = {
        "token": token,
        "signing_request": signing_request.decode(),
        "node_key": keys["node"].decode(),
        "receipt_key": keys["receipt"].decode(),
    }
    return link.post_join(url, authority_pem, request)


def offered_tasks(address: str, identity: Identity) -> tuple[bytes, ...]:
    """Ask the coordinator for the tasks it offers; nothing but the question leaves.

    Raises: PeerError if the coordinator cannot be asked.
    """
    return link.get_tasks(address, identity)


def tell_statistics(address: str, identity: Identity, envelope: bytes) -> None:
    """Hand over a signed statement of consent statistics.

    Raises: PeerRefused if the coordinator will not have it; PeerError if it cannot be reached.
    """
    link.post_statistics(address, identity, envelope)


def give_notice(address: str, identity: Identity, envelope: bytes) -> tuple[bytes, bytes]:
    """Tell the coordinator which updates may no longer be used; return its signed answer and its signer's certificate.

    Raises: PeerRefused if it will not have this notice, whenever it is asked; PeerError if it cannot be told now.
    """
    return link.post_notice(address, identity, envelope)


def ask_witness(address: str, identity: Identity, witness: str, request: bytes) -> tuple[int, str]:
    """Ask a witness, through the coordinator, to cosign the state of the consent log; return its status and text.

    What leaves is the signed size and root of the log, and hashes that prove that it grew.
    Raises: PeerError if the coordinator cannot be reached.
    """
    return link.post_checkpoint(address, identity, witness, request)


def announce_key(identity: Identity, succession: Succession) -> str:
    """Tell the coordinator this site's next receipt key, signed by the old one and by itself.

    Return why it refuses the key, or nothing if it takes it.
    Raises: PeerError if it does not say.
    """
    pem = succession.key.public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo)
    signed = {"by_old": succession.by_old, "by_new": succession.by_new}
    texts = {name: base64.b64encode(signature).decode() for name, signature in signed.items()}
    return link.post_receipt_key(identity, {"receipt_key": pem.decode(), **texts})

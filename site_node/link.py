"""The one line out: a Fleet client of Flower's SuperLink that runs nothing the coordinator ships.

It activates this site's node with a signed request over mutual TLS, receives messages and hands replies over. It never
asks for an app bundle, starts no child of Flower's, and knows nothing of what a message means. A reply may be handed
over again: Flower's object push is not idempotent, so a lost answer is cured by announcing the same message once more.
"""

from __future__ import annotations

import json
import ssl
import threading
import time
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Self

import httpx
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import load_pem_private_key
from flwr.app import Message
from flwr.app.message import remove_content_from_message
from flwr.common.constant import HEARTBEAT_MIN_INTERVAL
from flwr.common.serde import message_from_proto, message_to_proto
from flwr.proto.fleet_pb2 import (
    ActivateNodeRequest,
    DeactivateNodeRequest,
    PullMessagesRequest,
    PushMessagesRequest,
)
from flwr.proto.heartbeat_pb2 import SendNodeHeartbeatRequest
from flwr.proto.message_pb2 import (
    ConfirmMessageReceivedRequest,
    PullObjectRequest,
    PushObjectRequest,
)
from flwr.proto.node_pb2 import Node
from flwr.supercore.inflatable.inflatable_object import (
    UnexpectedObjectContentError,
    get_all_nested_objects,
    get_object_tree,
    iterate_object_tree,
    no_object_id_recompute,
)
from flwr.supercore.inflatable.inflatable_utils import inflate_object_from_contents
from flwr.supercore.interceptors.http.runtime_version import RuntimeVersionHttpInterceptor
from flwr.supercore.primitives.asymmetric import public_key_to_bytes
from flwr.supernode.fleet_http_client import FleetHttpClient
from flwr.supernode.node_auth_http_interceptor import NodeAuthHttpInterceptor
from google.protobuf.message import DecodeError

from site_node.errors import ConfigurationError, NotAMember, PeerError, PeerRefused

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from flwr.proto.message_pb2 import ObjectTree

    from site_node.config import Identity

# The coordinator holds an idle request for at most 35 s; beyond this it is gone.
TIMEOUT_S = 40.0
# A part of a model is half of this at most; a larger one is not used.
MAX_OBJECT_BYTES = 16 * 2**20
MAX_OBJECTS = 4096
# A message may be announced before its parts are stored (found, not available): they are awaited for so long.
STORING_S = 60.0
PUSH_ATTEMPTS = 5
# What putting the parts of a message together raises.
NO_MESSAGE = (
    UnexpectedObjectContentError, DecodeError, ValueError, TypeError, LookupError, AttributeError, RecursionError,
)  # fmt: skip
MAX_ANSWER_BYTES = 16 * 2**20
MAX_COSIGNATURE_BYTES = 4096
# Client errors (RFC 9110, 6585, 8470) that may be another answer if the same is asked again later.
TRY_AGAIN = frozenset({408, 423, 425, 429})
MAX_REASON_CHARS = 200
# What the coordinator's gate answers with 403; Flower behind it answers 403 to a reply that is no longer wanted.
NOT_A_MEMBER = b"not a member"
REVOKED = "the coordinator answered 403: this site is no member of it, or no longer; ask it for a new invitation"


@dataclass(frozen=True, slots=True)
class Incoming:
    """A message as announced: its head, and the ids of the objects that make its body."""

    head: Message
    tree: ObjectTree


class Link:
    """An activated node of the federation; made by `connect`."""

    def __init__(self, client: FleetHttpClient, node: Node) -> None:
        self._client = client
        self._node = node

    @property
    def node_id(self) -> int:
        """The id the coordinator knows this node by."""
        return int(self._node.node_id)

    def announce(self) -> Incoming | None:
        """Wait for the next message, as long as the coordinator holds the request; None if there is none."""
        with _translated("waiting for work"):
            answer = self._client.PullMessages(PullMessagesRequest(node=self._node))
        if not answer.messages_list:
            return None
        return Incoming(message_from_proto(answer.messages_list[0]), answer.message_object_trees[0])

    def fetch(self, incoming: Incoming) -> Message:
        """Pull the body of an announced message.

        Raises: PeerError if the coordinator lacks a part, sends more than this site accepts, or what makes no message.
        """
        run_id = incoming.head.metadata.run_id
        ids = [node.object_id for node in iterate_object_tree(incoming.tree)]
        if len(ids) > MAX_OBJECTS:
            raise PeerError(f"the coordinator announced {len(ids)} objects; {MAX_OBJECTS} allowed")
        contents = {object_id: self._pull(run_id, object_id) for object_id in dict.fromkeys(ids)}
        with _translated("confirming a message"):
            self._client.ConfirmMessageReceived(
                ConfirmMessageReceivedRequest(node=self._node, run_id=run_id, message_object_id=incoming.tree.object_id)
            )
        try:
            message = inflate_object_from_contents(incoming.tree.object_id, contents)
        except NO_MESSAGE as error:
            raise PeerError("the coordinator announced something that cannot be put together") from error
        if not isinstance(message, Message):
            raise PeerError("the coordinator announced something that is not a message")
        _set_id(message, incoming.head.metadata.message_id)
        return message

    def hand_over(self, reply: Message) -> None:
        """Deliver `reply`; announces it again if an answer was lost on the way.

        Raises: PeerRefused if the coordinator will not have it; PeerError if it stays unreachable.
        """
        with no_object_id_recompute():
            _set_id(reply, reply.object_id)
            for attempt in range(PUSH_ATTEMPTS):
                try:
                    self._push(reply)
                except PeerRefused:
                    raise
                except PeerError:
                    if attempt == PUSH_ATTEMPTS - 1:
                        raise
                    threading.Event().wait(0.2 * 2**attempt)
                else:
                    return

    def _push(self, reply: Message) -> None:
        with _translated("handing over a reply"):
            head = remove_content_from_message(reply) if reply.has_content() else reply
            answer = self._client.PushMessages(
                PushMessagesRequest(
                    node=self._node,
                    messages_list=[message_to_proto(head)],
                    message_object_trees=[get_object_tree(reply)],
                    clientapp_runtime_list=[0.0],
                )
            )
            wanted = set(answer.objects_to_push)
            for object_id, part in get_all_nested_objects(reply).items():
                if object_id in wanted:
                    stored = self._client.PushObject(
                        PushObjectRequest(
                            node=self._node,
                            run_id=reply.metadata.run_id,
                            session_id=answer.session_id,
                            object_id=object_id,
                            object_content=part.deflate(),
                        )
                    ).stored
                    if not stored:
                        raise PeerError("the coordinator did not keep a part of the reply")

    def _pull(self, run_id: int, object_id: str) -> bytes:
        request = PullObjectRequest(node=self._node, run_id=run_id, object_id=object_id)
        end, pause = time.monotonic() + STORING_S, 0.05
        with _translated("fetching a message"):
            answer = self._client.PullObject(request)
            while answer.object_found and not answer.object_available and time.monotonic() < end:
                threading.Event().wait(pause)
                pause = min(2 * pause, 1.0)
                answer = self._client.PullObject(request)
        if not answer.object_found:
            raise PeerError("the coordinator no longer has a part of the message")
        if not answer.object_available:
            raise PeerError("the coordinator announced a message and did not store a part of it")
        if len(answer.object_content) > MAX_OBJECT_BYTES:
            raise PeerError(f"a part of the message is larger than {MAX_OBJECT_BYTES} bytes")
        return answer.object_content


@contextmanager
def connect(address: str, identity: Identity) -> Iterator[Link]:
    """Activate this site's node at the coordinator and keep its lease alive until the block ends.

    Raises: PeerError if the coordinator is unreachable or does not know this node.
    """
    private = load_pem_private_key(identity.node_key.read_bytes(), password=None)
    if not isinstance(private, ec.EllipticCurvePrivateKey):
        raise ConfigurationError(f"{identity.node_key}: not an EC key")
    client = FleetHttpClient(
        f"https://{address}",
        interceptors=[
            RuntimeVersionHttpInterceptor(component_name="SuperNode"),
            NodeAuthHttpInterceptor(private, private.public_key()),
        ],
        verify=tls_context(identity),
        timeout=TIMEOUT_S,
    )
    request = ActivateNodeRequest(
        public_key=public_key_to_bytes(private.public_key()),
        heartbeat_interval=HEARTBEAT_MIN_INTERVAL,
    )
    with client:
        node = Node(node_id=_activate(client, request, identity.node_id))
        with _heartbeat(client, node):
            try:
                yield Link(client, node)
            finally:
                _give_back(client, node.node_id)


def tls_context(identity: Identity) -> ssl.SSLContext:
    """Return mutual TLS with this site's certificate, trusting the federation's authority alone."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.minimum_version = ssl.TLSVersion.TLSv1_3
    context.load_verify_locations(identity.authority)
    context.load_cert_chain(identity.tls_certificate, identity.tls_key)
    return context


def _activate(client: FleetHttpClient, request: ActivateNodeRequest, node_id: int) -> int:
    """Return the id of the activated node; the lease of a killed predecessor is given back first."""
    try:
        return int(client.ActivateNode(request).node_id)
    except httpx.HTTPStatusError:
        _give_back(client, node_id)
    except httpx.HTTPError as error:
        raise PeerError(f"joining the fleet: {type(error).__name__}") from error
    with _translated("joining the fleet"):
        return int(client.ActivateNode(request).node_id)


def _give_back(client: FleetHttpClient, node_id: int) -> None:
    try:
        client.DeactivateNode(DeactivateNodeRequest(node_id=node_id))
    except (httpx.HTTPError, RuntimeError):
        return  # no lease to give back, or nobody to give it to: both are fine


@contextmanager
def _heartbeat(client: FleetHttpClient, node: Node) -> Iterator[None]:
    stop = threading.Event()
    request = SendNodeHeartbeatRequest(node=node, heartbeat_interval=HEARTBEAT_MIN_INTERVAL)

    def beat() -> None:
        while not stop.wait(HEARTBEAT_MIN_INTERVAL / 2):
            try:
                client.SendNodeHeartbeat(request)
            except (httpx.HTTPError, RuntimeError):
                continue  # the main loop meets the same silence and reports it

    thread = threading.Thread(target=beat, name="heartbeat", daemon=True)
    thread.start()
    try:
        yield
    finally:
        stop.set()


class _translated:  # noqa: N801 -- reads as a clause
    """Turn transport failures into PeerError, naming what was being done."""

    def __init__(self, doing: str) -> None:
        self._doing = doing

    def __enter__(self) -> Self:
        return self

    def __exit__(self, _kind: object, error: BaseException | None, _trace: object) -> None:
        if isinstance(error, httpx.HTTPStatusError):
            if error.response.status_code == httpx.codes.FORBIDDEN and error.response.content == NOT_A_MEMBER:
                raise NotAMember(f"{self._doing}: {REVOKED}") from error
            kind = PeerRefused if error.response.is_client_error else PeerError
            raise kind(f"{self._doing}: the coordinator answered {error.response.status_code}") from error
        if isinstance(error, httpx.HTTPError | httpx.InvalidURL | RuntimeError | ssl.SSLError):
            raise PeerError(f"{self._doing}: {type(error).__name__}") from error


def _set_id(message: Message, message_id: str) -> None:
    message.metadata.__dict__["_message_id"] = message_id


def post_join(url: str, authority_pem: str, request: Mapping[str, str]) -> Mapping[str, str]:
    """Send a join request to the coordinator the invitation names and return its answer.

    Raises: PeerError if it cannot be reached, is another than the invitation says, or refuses;
        ConfigurationError if the authority is not a certificate.
    """
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.minimum_version = ssl.TLSVersion.TLSv1_3
    try:
        context.load_verify_locations(cadata=authority_pem)
    except (ssl.SSLError, TypeError, ValueError) as error:
        raise ConfigurationError("the invitation's authority is not a certificate") from error
    with _translated("joining"), httpx.Client(verify=context, timeout=TIMEOUT_S) as client:
        answer = client.post(f"{url}/v1/join", json=dict(request))
        if answer.status_code == httpx.codes.FORBIDDEN:
            raise PeerError(
                "the coordinator refused the invitation: it is used, expired or not its own; ask for a new one"
            )
        answer.raise_for_status()
        document = _small_json(answer)
    if not isinstance(document, dict) or not all(isinstance(v, str) for v in document.values()):
        raise PeerError("joining: the coordinator's answer is malformed")
    return document


def get_tasks(address: str, identity: Identity) -> tuple[bytes, ...]:
    """Return the task documents the coordinator offers to members.

    Raises: PeerError if it cannot be asked.
    """
    with (
        _translated("asking for tasks"),
        httpx.Client(verify=tls_context(identity), timeout=TIMEOUT_S) as client,
    ):
        answer = client.get(f"https://{address}/v1/members/tasks")
        answer.raise_for_status()
        document = _small_json(answer)
    if not isinstance(document, list) or not all(isinstance(item, str) for item in document):
        raise PeerError("asking for tasks: the coordinator's answer is malformed")
    return tuple(item.encode() for item in document)


def post_statistics(address: str, identity: Identity, envelope: bytes) -> None:
    """Send a signed statement to the members' pages.

    Raises: PeerRefused if it is not taken; PeerError if it cannot be sent.
    """
    with (
        _translated("telling statistics"),
        httpx.Client(verify=tls_context(identity), timeout=TIMEOUT_S) as client,
    ):
        answer = client.post(f"https://{address}/v1/members/statistics", content=envelope)
        answer.raise_for_status()


def post_notice(address: str, identity: Identity, envelope: bytes) -> tuple[bytes, bytes]:
    """Send a withdrawal notice and return the coordinator's signed answer, and the certificate (PEM) of its signer.

    Raises: PeerRefused with status and reason if it will not have this notice, whenever it is asked; NotAMember;
        PeerError if it cannot be told, or not now.
    """
    with (
        _translated("telling of a withdrawal"),
        httpx.Client(verify=tls_context(identity), timeout=TIMEOUT_S) as client,
    ):
        answer = client.post(f"https://{address}/v1/members/withdrawals", content=envelope)
        if answer.status_code in TRY_AGAIN:
            raise PeerError(f"telling of a withdrawal: the coordinator answered {answer.status_code}")
        if answer.is_client_error and answer.content != NOT_A_MEMBER:
            raise PeerRefused(f"{answer.status_code} {_reason(answer)}".rstrip())
        answer.raise_for_status()
        document = _small_json(answer)
    if not isinstance(document, dict) or document.keys() != {"answer", "certificate"}:
        raise PeerError("telling of a withdrawal: the coordinator's answer is not signed")
    if not all(isinstance(text, str) and text.isascii() for text in document.values()):
        raise PeerError("telling of a withdrawal: the coordinator's answer is malformed")
    return document["answer"].encode(), document["certificate"].encode()


def post_checkpoint(address: str, identity: Identity, witness: str, request: bytes) -> tuple[int, str]:
    """Have the coordinator pass a request on to a witness; return the witness's status and text.

    Raises: PeerError if the coordinator cannot be reached, or answers at length.
    """
    with (
        _translated("asking a witness"),
        httpx.Client(verify=tls_context(identity), timeout=TIMEOUT_S) as client,
    ):
        answer = client.post(f"https://{address}/v1/members/checkpoints", params={"witness": witness}, content=request)
        if answer.content == NOT_A_MEMBER:
            answer.raise_for_status()
    if len(answer.content) > MAX_COSIGNATURE_BYTES:
        raise PeerError(f"asking a witness: an answer larger than {MAX_COSIGNATURE_BYTES} bytes")
    return answer.status_code, answer.text


def post_receipt_key(identity: Identity, request: Mapping[str, str]) -> str:
    """Have the coordinator take a new receipt key; return why it will not have it, or nothing if it has it.

    Raises: PeerError if it does not say.
    """
    with (
        _translated("changing the receipt key"),
        httpx.Client(verify=tls_context(identity), timeout=TIMEOUT_S) as client,
    ):
        answer = client.post(f"https://{identity.fleet_address}/v1/members/receipt-key", json=dict(request))
        if answer.status_code in (httpx.codes.CONFLICT, httpx.codes.UNPROCESSABLE_ENTITY):
            document = _small_json(answer)
            return str(document.get("detail") if isinstance(document, dict) else None)[:200]
        answer.raise_for_status()
    return ""


def _reason(answer: httpx.Response) -> str:
    """Return the reason in a refusal, fit to be shown; nothing if it states none."""
    try:
        document = json.loads(answer.content[:MAX_ANSWER_BYTES])
    except ValueError:
        return ""
    stated = document.get("detail") if isinstance(document, dict) else None
    text = stated if isinstance(stated, str) else ""
    return "".join(letter for letter in text if letter.isascii() and letter.isprintable())[:MAX_REASON_CHARS]


def _small_json(answer: httpx.Response) -> object:
    if len(answer.content) > MAX_ANSWER_BYTES:
        raise PeerError(f"the coordinator's answer is larger than {MAX_ANSWER_BYTES} bytes")
    try:
        return answer.json()
    except ValueError as error:
        raise PeerError("the coordinator's answer is not JSON") from error

"""Flower's SuperLink inside the coordinator: the listener the sites reach, and the grid the rounds use.

The listener asks for a member's client certificate, lets through the few Fleet routes a site needs plus the members'
own pages, and nothing else: no Control API, no Runtime API, no documentation, no app bundle. A site whose membership
was revoked is refused, and so is its request that is being held. An idle site's request is held until there is work,
so a site neither polls nor waits. A message whose sender is not the node that signed the request is refused: Flower
itself does not compare the two.
"""

from __future__ import annotations

import asyncio
import gc
import threading
import time
from base64 import b64decode
from binascii import Error as Base64Error
from contextlib import suppress
from typing import TYPE_CHECKING, Any, NoReturn

from flwr.app.message import Message, remove_content_from_message
from flwr.common.constant import SUPERLINK_NODE_ID, Status, SubStatus
from flwr.proto.fleet_pb2 import PushMessagesRequest
from flwr.server.superlink.linkstate.sql_linkstate import SqlLinkState
from flwr.serverapp import Grid
from flwr.supercore.constant import FLEET_HTTP_PUBLIC_KEY_HEADER
from flwr.supercore.inflatable.inflatable_object import (
    InflatableObject,
    UnexpectedObjectContentError,
    get_all_nested_objects,
    get_object_tree,
    iterate_object_tree,
    no_object_id_recompute,
)
from flwr.supercore.inflatable.inflatable_utils import inflate_object_from_contents
from flwr.supercore.object_store.object_store import NoObjectInStoreError
from flwr.supercore.task_identity import TaskIdentity
from flwr.superlink.auth_plugin import NoOpControlAuthnPlugin
from flwr.superlink.cli.flower_superlink import SuperLinkLifespan
from flwr.superlink.config_loader import SuperLinkLifespanConfig
from flwr.superlink.main import create_app
from google.protobuf.message import DecodeError

from coordinator.errors import CoordinatorError
from coordinator.listener import Listener, answer, answer_empty, certificate_of, read_body, replay
from coordinator.objects import FileObjectStore

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Sequence
    from pathlib import Path

    from flwr.server.superlink.linkstate import LinkState, LinkStateFactory
    from flwr.supercore.run import Run

    from coordinator.authority import Authority
    from coordinator.listener import Application, Arrivals, Event, Receive, Send

FLEET_PATHS = frozenset(
    f"/v1/fleet/{verb}"
    for verb in (
        "activate-node",
        "deactivate-node",
        "send-node-heartbeat",
        "pull-messages",
        "push-messages",
        "push-object",
        "pull-object",
        "confirm-message-received",
    )
)
MEMBER_PREFIX = "/v1/members/"
# Flower answers 403 too, to an answer that is no longer wanted; by these words a site tells the two apart.
NOT_A_MEMBER = b"not a member"
UNFINISHED = (Status.PENDING, Status.STARTING, Status.RUNNING)
# What a reply raises that was announced and cannot be put together, or lost a part.
NO_REPLY = (
    OSError, NoObjectInStoreError, UnexpectedObjectContentError, DecodeError,
    ValueError, TypeError, LookupError, AttributeError, RecursionError,
)  # fmt: skip
# How long the database is not asked for replies that nobody announced: those that Flower itself makes for lost sites.
LOOK_S = 1.0
# The Control and Runtime APIs are unreachable; the secret only keeps their code paths shut.
_CLOSED = b"never handed to anyone"


class FleetGate:
    """ASGI application in front of the SuperLink; see the module's docstring."""

    def __init__(
        self,
        superlink: Application,
        members: Application,
        admits: Callable[[str], bool],
        hold_s: float,
        arrivals: Arrivals | None,
    ) -> None:
        self._superlink = superlink
        self._members = members
        self._admits = admits
        self._hold_s = hold_s
        self._arrivals = arrivals
        self._loop: asyncio.AbstractEventLoop | None = None
        self._work = asyncio.Event()
        # Flower copies a part of a model several times over on its way: one request at a time keeps that to one part.
        self._turn = asyncio.Lock()
        self.arrived = threading.Event()
        self.announced = 0
        self.first_byte_at = 0.0
        self.last_arrival_at = 0.0

    def wake_sites(self) -> None:
        """Let every held request look for work again; callable from any thread."""
        if self._loop is not None:
            self._loop.call_soon_threadsafe(self._wake)

    def _wake(self) -> None:
        self._work.set()
        self._work = asyncio.Event()

    async def __call__(self, scope: Event, receive: Receive, send: Send) -> None:
        """Serve one request."""
        if scope["type"] != "http":
            await self._superlink(scope, receive, send)
            return
        self._loop = asyncio.get_running_loop()
        path: str = scope["path"]
        if path not in FLEET_PATHS and not path.startswith(MEMBER_PREFIX):
            await answer_empty(send, 404)
            return
        if not self._admits(certificate_of(scope)):
            await answer(send, 403, NOT_A_MEMBER)
            return
        body = await read_body(receive)
        if body is None:
            await answer_empty(send, 413)
            return
        if self._arrivals is not None:
            self._arrivals(path, body)
        if path.startswith(MEMBER_PREFIX):
            await self._members(scope, replay(body), send)
        elif path.endswith("/pull-messages"):
            await self._hold(scope, body, receive, send)
        elif path.endswith("/push-messages") and not _is_own_reply(scope, body):
            await answer_empty(send, 403)
        else:
            await self._pass_on(scope, body, send)

    async def _pass_on(self, scope: Event, body: bytes, send: Send) -> None:
        came_at, path = time.time(), scope["path"]
        async with self._turn:
            events = await self._look(scope, body)
        for event in events:
            await send(event)
        if path.endswith(("/push-object", "/push-messages")):
            self.announced += path.endswith("/push-messages")
            self.last_arrival_at = came_at
            self.arrived.set()

    async def _hold(self, scope: Event, body: bytes, receive: Receive, send: Send) -> None:
        """Answer with work as soon as there is some; a site that hung up is handed none, since it is handed once."""
        end = time.monotonic() + self._hold_s
        gone = asyncio.ensure_future(receive())  # the body is whole: what comes next is the end of the connection
        try:
            while True:
                work = asyncio.ensure_future(self._work.wait())
                events = await self._look(scope, body)
                left = end - time.monotonic()
                if left <= 0 or not _is_empty(events):
                    break
                done, _ = await asyncio.wait({work, gone}, timeout=left, return_when=asyncio.FIRST_COMPLETED)
                if gone in done:
                    return
                if not done:
                    break
        finally:
            gone.cancel()
            work.cancel()
        if not _is_empty(events):
            self.first_byte_at = self.first_byte_at or time.time()
        for event in events:
            await send(event)

    async def _look(self, scope: Event, body: bytes) -> list[Event]:
        events: list[Event] = []

        async def collect(event: Event) -> None:
            events.append(event)

        if self._admits(certificate_of(scope)):
            await self._superlink(dict(scope), replay(body), collect)
        else:
            await answer(collect, 403, NOT_A_MEMBER)
        return events


class LinkStateGrid(Grid):
    """Flower's grid on the SuperLink's own state: no second network hop for the coordinator."""

    def __init__(
        self, state: LinkState, store: FileObjectStore, gate: FleetGate, run: Run, wanted: Callable[[], bool]
    ) -> None:
        self._state = state
        self._store = store
        self._gate = gate
        self._run = run
        self._wanted = wanted
        self._heads: dict[str, Message] = {}  # replies announced and not yet whole, by the message they answer

    def set_run(self, run: Run) -> None:
        """Take over another run."""
        self._run = run

    @property
    def run(self) -> Run:
        """The run whose messages these are."""
        return self._run

    def create_message(self, *_args: object, **_kwargs: object) -> NoReturn:
        """Refuse: Flower's own deprecated constructor, not used here."""
        raise NotImplementedError("build a flwr.app.Message")

    def get_node_ids(self) -> Iterable[int]:
        """Return the ids of the nodes that are online."""
        return sorted(self._state.get_nodes(self._run.run_id))

    def get_nodes(self) -> Any:  # noqa: ANN401 -- Flower's NodeInfo, passed through
        """Return what Flower knows of the online nodes."""
        return self._state.get_node_info(node_ids=list(self.get_node_ids()))

    def push_messages(self, messages: Iterable[Message]) -> Iterable[str]:
        """Store each message durably and wake the sites; an empty id means it was not accepted."""
        run_id, ids = self._run.run_id, []
        # Before the first is stored: a site that happens to ask just then is handed it without being woken.
        self._gate.first_byte_at = 0.0
        parts: dict[str, InflatableObject] = {}
        missing: dict[str, None] = {}
        with no_object_id_recompute():
            session = self._state.start_session(run_id)
            for message in messages:
                message.metadata.__dict__["_message_id"] = message.object_id
                parts |= get_all_nested_objects(message)
                stored, wanted = self._state.store_message_and_object_tree(
                    remove_content_from_message(message), get_object_tree(message), session
                )
                ids.append(message.metadata.message_id if stored else "")
                missing |= dict.fromkeys(wanted)
            for object_id in missing:
                self._state.store_object(run_id, session, object_id, parts[object_id].deflate())
        self._gate.wake_sites()
        return ids

    def pull_messages(self, message_ids: Iterable[str]) -> Iterable[Message]:
        """Return the replies that have arrived whole; they leave the store as they are returned."""
        wanted = set(message_ids)
        self._note_heads(wanted)
        replies = [self._take(self._heads[message_id]) for message_id in sorted(wanted & self._heads.keys())]
        return [reply for reply in replies if reply is not None]

    def wait(self, timeout_s: float) -> None:
        """Sleep until something arrived, at most `timeout_s`."""
        self._gate.arrived.wait(timeout_s)
        self._gate.arrived.clear()

    def first_byte_at(self) -> float:
        """When the first site was handed the messages pushed last (epoch seconds); 0 if none yet."""
        return self._gate.first_byte_at

    def last_arrival_at(self) -> float:
        """When the last part of a reply had come in whole (epoch seconds); 0 if none has."""
        return self._gate.last_arrival_at

    def send_and_receive(self, messages: Iterable[Message], *, timeout: float | None = None) -> Iterable[Message]:
        """Push `messages` and yield each reply as it lands.

        It ends when all are in, when `timeout` seconds passed, or soon after the run is not wanted any more.
        """
        waiting = {message_id for message_id in self.push_messages(messages) if message_id}
        end = time.monotonic() + (timeout if timeout is not None else float("inf"))
        announced, looked_at, littered = -1, 0.0, True
        while waiting and (now := time.monotonic()) < end and self._wanted():
            if announced != self._gate.announced or now - looked_at > LOOK_S:
                announced, looked_at = self._gate.announced, now
                self._note_heads(waiting)
                self._let_expire()
            arrived = False
            for message_id in sorted(waiting & self._heads.keys()):
                # One at a time: at most one model is in memory.
                reply = self._take(self._heads[message_id])
                if reply is not None:
                    waiting.discard(message_id)
                    arrived = littered = True
                    yield reply
            if waiting and not arrived:
                self.wait(max(0.0, min(LOOK_S, end - time.monotonic())))
                if littered:  # requests refer to themselves in circles, and hold their bodies until this
                    gc.collect()
                    littered = False

    def _note_heads(self, message_ids: set[str]) -> None:
        """Ask the database for the heads of replies, which precede their bodies."""
        for head in self._state.get_message_res(message_ids=message_ids - self._heads.keys(), run_id=self._run.run_id):
            self._heads[head.metadata.reply_to_message_id] = head

    def _let_expire(self) -> None:
        """Drop replies whose parts stopped coming for longer than Flower waits; their sites may announce them again."""
        for answered, head in list(self._heads.items()):
            with suppress(NoObjectInStoreError):
                missing = self._store.missing(head.metadata.message_id)
                # Asked for a part that is late, Flower removes the whole reply if it is too late.
                if missing is not None and self._state.get_object(self._run.run_id, missing) is None:
                    del self._heads[answered]

    def _take(self, head: Message) -> Message | None:
        """Return the whole reply; None while a part is on its way, and where the parts make no message.

        A head may precede its body by the time the body takes on a slow line; other replies do not wait for it.
        """
        message_id = head.metadata.message_id
        try:
            if self._store.missing(message_id) is not None:
                return None
            reply = inflate_object_from_contents(message_id, self._contents(message_id))
        except NO_REPLY:
            reply = None
        del self._heads[head.metadata.reply_to_message_id]
        self._state.delete_messages(message_ins_ids={head.metadata.reply_to_message_id})
        self._store.delete(message_id)
        if not isinstance(reply, Message):
            return None
        reply.metadata.__dict__["_message_id"] = message_id
        return reply

    def _contents(self, message_id: str) -> dict[str, bytes]:
        """Return the parts of a message that is whole."""
        ids = dict.fromkeys(node.object_id for node in iterate_object_tree(self._store.get_object_tree(message_id)))
        return {object_id: self._store.get(object_id) or b"" for object_id in ids}


class Fleet:
    """The embedded SuperLink and its listener, from `start` to `stop`."""

    def __init__(
        self,
        database: Path,
        address: tuple[str, int],
        authority: Authority,
        members: Application,
        admits: Callable[[str], bool],
        hold_s: float,
        arrivals: Arrivals | None,
    ) -> None:
        superlink = create_app(_superlink_config(database, address, authority), SuperLinkLifespan)
        self._store = FileObjectStore(database.with_suffix(".objects"))
        self.state = _open_state(superlink.state.linkstate_factory, database, self._store)
        self.gate = FleetGate(superlink, members, admits, hold_s, arrivals)
        self._server = Listener(self.gate, address, authority, client_certificates=True)

    def start(self) -> None:
        """Close what a killed predecessor left open, then listen.

        Raises: ConfigurationError if the address is in use.
        """
        for run in self.state.get_run_info(statuses=UNFINISHED):
            self.state.stop_run(run.run_id)
        self._server.start()

    def stop(self) -> None:
        """Answer what is held, then stop listening."""
        self.gate.wake_sites()
        self._server.stop()

    def register(self, node_key: bytes, site: str) -> int:
        """Return the node id under which Flower knows `node_key` (PEM or OpenSSH public key bytes)."""
        known = self.state.get_node_id_by_public_key(node_key)
        if known is not None:
            return known
        return self.state.create_node("<id:none>", "none", node_key, 30, name=site)

    def open_run(self, name: str, task_digest: str, wanted: Callable[[], bool] = lambda: True) -> FlowerRun:
        """Open a run in Flower's state; the task's digest stands where Flower keeps an app's hash.

        `wanted` is asked at least once in `LOOK_S` whether the answers to an open round are still waited for.
        """
        return FlowerRun(self.state, self._store, self.gate, name, task_digest, wanted)


class FlowerRun:
    """A run in Flower's link state, kept alive by heartbeats until the block ends."""

    def __init__(
        self,
        state: LinkState,
        store: FileObjectStore,
        gate: FleetGate,
        name: str,
        task_digest: str,
        wanted: Callable[[], bool],
    ) -> None:
        self._state = state
        self._store = store
        self._gate = gate
        self._wanted = wanted
        self._stop = threading.Event()
        run_id = state.create_run(
            f"filmroom/{name}",
            "1.0.0",
            task_digest,
            {},
            "@none/default",
            None,
            "<id:none>",
            "flwr-serverapp",
        )
        self._run = state.get_run_info(run_ids=[run_id])[0]
        if self._run.primary_task_id is None:
            raise CoordinatorError("Flower's link state gave this run no task")
        self._task_id = self._run.primary_task_id

    def __enter__(self) -> LinkStateGrid:
        """Claim the run and return its grid."""
        if not (self._state.claim_task(self._task_id) and self._state.activate_task(self._task_id)):
            raise CoordinatorError("Flower's link state did not let this run start")
        TaskIdentity.task_id = self._task_id
        TaskIdentity.run_id = self._run.run_id
        TaskIdentity.node_id = SUPERLINK_NODE_ID
        threading.Thread(target=self._beat, name="run-heartbeat", daemon=True).start()
        return LinkStateGrid(self._state, self._store, self._gate, self._run, self._wanted)

    def __exit__(self, kind: object, _error: object, _trace: object) -> None:
        """Close the run and drop what it left in the store."""
        self._stop.set()
        outcome = SubStatus.COMPLETED if kind is None else SubStatus.FAILED
        self._state.finish_task(self._task_id, outcome, "")
        self._state.cleanup_run(self._run.run_id)

    def _beat(self) -> None:
        while not self._stop.wait(10):
            self._state.acknowledge_task_heartbeat(self._task_id)


class LeanLinkState(SqlLinkState):
    """Flower's durable link state, less what each of a round's hundred requests would ask or write in vain.

    Nobody reads Flower's count of bytes and seconds, and the node of a key never changes.
    """

    def __init__(self, *arguments: Any) -> None:  # noqa: ANN401 -- Flower's own, passed through
        super().__init__(*arguments)
        self._node_ids: dict[bytes, int] = {}

    def get_node_id_by_public_key(self, public_key: bytes) -> int | None:
        """Return the id of the node with this key, if there is one."""
        known = self._node_ids.get(public_key)
        if known is None:
            known = super().get_node_id_by_public_key(public_key)
            if known is not None:
                self._node_ids[public_key] = known
        return known

    def store_traffic(self, run_id: int, *, bytes_sent: int, bytes_recv: int) -> None:
        """Count nothing."""

    def add_clientapp_runtime(self, run_id: int, runtime: float) -> None:
        """Count nothing."""


def _open_state(factory: LinkStateFactory, database: Path, store: FileObjectStore) -> SqlLinkState:
    """Give the SuperLink a durable link state, and our store for what messages carry."""
    state = LeanLinkState(str(database), factory.federation_manager, store)
    state.initialize()
    factory.objectstore_factory.store_instance = store
    factory.state_instance = state
    return state


def _superlink_config(database: Path, address: tuple[str, int], authority: Authority) -> SuperLinkLifespanConfig:
    return SuperLinkLifespanConfig(
        control_address="",
        health_server_address=None,
        host=address[0],
        port=address[1],
        insecure=False,
        certificates=None,
        superexec_auth_secret=_CLOSED,
        authn_plugin=NoOpControlAuthnPlugin(),
        event_log_plugin=None,
        fleet_event_log_plugin=None,
        enable_event_log=False,
        artifact_provider=None,
        enable_supernode_auth=True,
        fleet_api_type="grpc-rere",
        fleet_api_address=None,
        simulation=False,
        ssl_ca_certfile=None,
        ssl_certfile=str(authority.server_certificate),
        ssl_keyfile=str(authority.server_key),
        database=str(database),
        isolation="process",
        runtime_dependency_install=False,
    )


def _is_own_reply(scope: Event, body: bytes) -> bool:
    """Return whether one message is pushed, of the node of the request, with the one tree that its id stands for.

    Flower checks that the request's node is the one whose key signed it; it does not look at the message within, and
    would register any tree for it.
    """
    headers = dict(scope["headers"])
    request = PushMessagesRequest()
    try:
        b64decode(headers[FLEET_HTTP_PUBLIC_KEY_HEADER.lower().encode()], validate=True)
        request.ParseFromString(body)
    except (KeyError, Base64Error, DecodeError):
        return False
    if len(request.messages_list) != 1 or len(request.message_object_trees) != 1:
        return False
    head, tree = request.messages_list[0].metadata, request.message_object_trees[0]
    return bool(head.src_node_id == request.node.node_id and head.message_id == tree.object_id)


def _is_empty(events: Sequence[Event]) -> bool:
    return bool(events) and events[0].get("status") == 200 and not any(event.get("body") for event in events[1:])  # noqa: PLR2004 -- HTTP's own OK

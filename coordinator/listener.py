"""TLS listeners, and the size limit that everything arriving passes.

TLS ends here, in this process; nothing in front of it holds a key. Each request's scope tells which client certificate
its connection showed.
"""

from __future__ import annotations

import asyncio
import hashlib
import ssl
import threading
import time
from collections.abc import Awaitable, Callable, MutableMapping
from typing import TYPE_CHECKING, Any, TypeAlias

import uvicorn

from coordinator.errors import ConfigurationError

if TYPE_CHECKING:
    from coordinator.authority import Authority

# ASGI's own types (asgiref): a scope and events are plain mappings.
Event: TypeAlias = MutableMapping[str, Any]
Receive: TypeAlias = Callable[[], Awaitable[Event]]
Send: TypeAlias = Callable[[Event], Awaitable[None]]
Application: TypeAlias = Callable[[Event, Receive, Send], Awaitable[None]]
# Told the path and the body of every request, for those who must see all that came in.
Arrivals: TypeAlias = Callable[[str, bytes], None]

# One part of a message: at most 8 MiB of array and its envelope.
MAX_BODY_BYTES = 16 * 2**20
_CERTIFICATE = "client_certificate"


class Listener:
    """A TLS listener in a thread of its own."""

    def __init__(
        self,
        application: Application,
        address: tuple[str, int],
        authority: Authority,
        *,
        client_certificates: bool,
    ) -> None:
        self._address = address
        config = uvicorn.Config(
            application,
            host=address[0],
            port=address[1],
            ssl_certfile=authority.server_certificate,
            ssl_keyfile=authority.server_key,
            ssl_ca_certs=str(authority.certificate),
            ssl_cert_reqs=ssl.CERT_REQUIRED if client_certificates else ssl.CERT_NONE,
            log_config=None,
            access_log=False,
            proxy_headers=False,
            server_header=False,
            ws="none",  # a WebSocket would pass the gate, which looks at requests
            timeout_graceful_shutdown=3,
        )
        config.load()
        if config.ssl is None:
            raise ConfigurationError("the listener has no TLS")
        config.http_protocol_class = _telling_certificate(config.http_protocol_class)
        config.ssl.minimum_version = ssl.TLSVersion.TLSv1_3
        self._server = uvicorn.Server(config)
        self._thread = threading.Thread(target=self._serve, name="listener", daemon=True)

    def _serve(self) -> None:
        try:
            self._server.run()
        except SystemExit:
            return  # uvicorn leaves so when the address is taken; `start` reports it

    def start(self) -> None:
        """Listen; return once connections are accepted.

        Raises: ConfigurationError if the address cannot be had.
        """
        self._thread.start()
        while not self._server.started:
            if not self._thread.is_alive():
                host, port = self._address
                raise ConfigurationError(
                    f"cannot listen on {host}:{port}: the port is in use or not ours; "
                    "choose another in coordinator.toml"
                )
            time.sleep(0.01)

    def stop(self) -> None:
        """Stop listening and wait for the thread."""
        self._server.should_exit = True
        self._thread.join(10)


class Limited:
    """An application whose requests are whole, limited in size, and shown to `arrivals`."""

    def __init__(self, application: Application, max_bytes: int, arrivals: Arrivals | None) -> None:
        self._application = application
        self._max_bytes = max_bytes
        self._arrivals = arrivals

    async def __call__(self, scope: Event, receive: Receive, send: Send) -> None:
        """Serve one request."""
        if scope["type"] != "http":
            await self._application(scope, receive, send)
            return
        body = await read_body(receive, self._max_bytes)
        if body is None:
            await answer_empty(send, 413)
            return
        if self._arrivals is not None:
            self._arrivals(scope["path"], body)
        await self._application(scope, replay(body), send)


def certificate_of(scope: Event) -> str:
    """Return the SHA-256 of the client certificate (DER) behind a request; empty if there is none."""
    return str(scope["state"].get(_CERTIFICATE, ""))


def _telling_certificate(protocol: type[asyncio.Protocol]) -> type[asyncio.Protocol]:
    """Return uvicorn's protocol, with the client certificate of its connection in the state of each request."""

    class Telling(protocol):  # type: ignore[valid-type, misc] # uvicorn chooses the class at run time
        app_state: dict[str, Any]

        def connection_made(self, transport: asyncio.Transport) -> None:
            super().connection_made(transport)
            shown = transport.get_extra_info("ssl_object").getpeercert(binary_form=True)
            if shown is not None:
                self.app_state = {**self.app_state, _CERTIFICATE: hashlib.sha256(shown).hexdigest()}

    return Telling


async def read_body(receive: Receive, max_bytes: int = MAX_BODY_BYTES) -> bytes | None:
    """Return the whole body; None if it is larger than `max_bytes`."""
    parts, size = list[bytes](), 0
    while True:
        event = await receive()
        if event["type"] == "http.disconnect":
            return b"".join(parts)
        part = event.get("body", b"")
        size += len(part)
        if size > max_bytes:
            return None
        parts.append(part)
        if not event.get("more_body"):
            return parts[0] if len(parts) == 1 else b"".join(parts)


def replay(body: bytes) -> Receive:
    """Return a receiver that yields `body` once."""
    pending: list[Event] = [{"type": "http.request", "body": body, "more_body": False}]

    async def receive() -> Event:
        if pending:
            return pending.pop()
        await asyncio.Event().wait()  # the body is whole; nothing more comes
        raise AssertionError

    return receive


async def answer_empty(send: Send, status: int) -> None:
    """Answer with a status and nothing else."""
    await answer(send, status, b"")


async def answer(send: Send, status: int, body: bytes) -> None:
    """Answer with a status and a body."""
    headers = [(b"content-length", str(len(body)).encode())]
    await send({"type": "http.response.start", "status": status, "headers": headers})
    await send({"type": "http.response.body", "body": body})

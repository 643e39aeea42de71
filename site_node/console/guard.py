"""What every request passes, and every answer carries.

A page is for this machine's browser alone: a name that leads here from elsewhere (DNS rebinding), a form of another
site, and a body that is too long or of unknown length are refused. An answer runs no script and is kept by nobody.
"""

from __future__ import annotations

import base64
import hashlib
from collections.abc import Awaitable, Callable, MutableMapping
from typing import Any, Final, TypeAlias

from starlette.datastructures import Headers, MutableHeaders
from starlette.responses import PlainTextResponse

from site_node.confirmation import STYLE

# ASGI's own types (asgiref): a scope and events are plain mappings.
Event: TypeAlias = MutableMapping[str, Any]
Receive: TypeAlias = Callable[[], Awaitable[Event]]
Send: TypeAlias = Callable[[Event], Awaitable[None]]
Application: TypeAlias = Callable[[Event, Receive, Send], Awaitable[None]]

# The page for the patient has its style in it, since it is kept as one file: let in by its digest, and no other.
_STYLE: Final = f"'sha256-{base64.b64encode(hashlib.sha256(STYLE.encode()).digest()).decode()}'"
HEADERS: Final = {
    "Content-Security-Policy": (
        f"default-src 'none'; style-src 'self' {_STYLE}; form-action 'self'; frame-ancestors 'none'; base-uri 'none'"
    ),
    "X-Content-Type-Options": "nosniff",
    "X-Frame-Options": "DENY",
    "Referrer-Policy": "same-origin",  # with none at all a browser would not say whose form it sends
    "Cross-Origin-Opener-Policy": "same-origin",
    "Cross-Origin-Resource-Policy": "same-origin",
    "Permissions-Policy": "camera=(), geolocation=(), microphone=()",
    "Cache-Control": "no-store",
}
FORBIDDEN, LENGTH_REQUIRED, TOO_LARGE, MISDIRECTED = 403, 411, 413, 421


class Guard:
    """Lets through to the pages what may reach them."""

    def __init__(self, pages: Application, hosts: frozenset[str], max_bytes: int) -> None:
        self._pages = pages
        self._hosts = hosts
        self._max_bytes = max_bytes

    async def __call__(self, scope: Event, receive: Receive, send: Send) -> None:
        """Refuse, or pass on."""
        if scope["type"] != "http":
            await self._pages(scope, receive, send)
            return

        async def send_guarded(event: Event) -> None:
            if event["type"] == "http.response.start":
                MutableHeaders(scope=event).update(HEADERS)
            await send(event)

        refusal = self._refusal(scope["method"], Headers(scope=scope))
        answer = PlainTextResponse(refusal[1], refusal[0]) if refusal else self._pages
        await answer(scope, receive, send_guarded)

    def _refusal(self, method: str, headers: Headers) -> tuple[int, str] | None:
        if headers.get("host") not in self._hosts:
            return (
                MISDIRECTED,
                "This console answers to its own address alone: open the address that the command printed.",
            )
        if method in {"GET", "HEAD"}:
            return None
        # 5.1 of the Fetch standard: a browser says of each POST where its form came from.
        if headers.get("origin") not in {f"http://{host}" for host in self._hosts}:
            return (
                FORBIDDEN,
                "This form does not come from this console. Nothing was changed: open the page there again.",
            )
        length = headers.get("content-length", "")
        if not length.isdecimal():
            return LENGTH_REQUIRED, "A body says how long it is. Nothing was changed: send the form from the page."
        if int(length) > self._max_bytes:
            return (
                TOO_LARGE,
                f"What is sent has at most {self._max_bytes} bytes. Nothing was changed: send a smaller file.",
            )
        return None

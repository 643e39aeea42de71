"""Serves the pages on this machine's loopback address, until interrupted."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

import uvicorn

from consent import MAX_BYTES
from site_node.console.guard import Guard
from site_node.errors import ConfigurationError

if TYPE_CHECKING:
    from collections.abc import Callable

    from site_node.console.guard import Application

ADDRESS: Final = "127.0.0.1"
_FORM_BYTES: Final = 64 * 1024


def serve(pages: Application, port: int, say: Callable[[str], None]) -> None:
    """Answer until interrupted.

    Raises: ConfigurationError if the port is in use.
    """
    guard = Guard(pages, frozenset({f"{ADDRESS}:{port}", f"localhost:{port}"}), MAX_BYTES + _FORM_BYTES)
    config = uvicorn.Config(
        guard,
        host=ADDRESS,
        port=port,
        log_config=None,
        access_log=False,
        proxy_headers=False,
        server_header=False,
        lifespan="off",
        ws="none",
    )
    try:
        listening = config.bind_socket()
    except SystemExit as error:  # how uvicorn says so
        raise ConfigurationError(f"port {port} on {ADDRESS} cannot be used") from error
    say(f"the console is at http://{ADDRESS}:{port}/")
    with listening:
        uvicorn.Server(config).run(sockets=[listening])

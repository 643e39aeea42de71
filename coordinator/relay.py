"""Passes a site's checkpoint on to a witness, because a hospital has one line out and it ends here.

Whatever the witness answers is passed back; the site checks the signature itself, so that a coordinator can keep a
cosignature back and never make one.
"""

from __future__ import annotations

import time
from typing import Final

import httpx

from consent import MAX_REQUEST_BYTES
from coordinator.witness import Answer

TIMEOUT_S: Final = 5.0
MAX_ANSWER_BYTES: Final = 4096
UNREACHABLE: Final = Answer(504)
# What C2SP tlog-witness lets a witness answer.
STATUSES: Final = frozenset({200, 400, 403, 404, 409, 422})


def pass_on(url: str, body: bytes) -> Answer:
    """Return what the witness at `url` answers; 504 if that is nothing that a witness answers, or too late."""
    if len(body) > MAX_REQUEST_BYTES:
        return Answer(413)
    until, content = time.monotonic() + TIMEOUT_S, b""
    try:
        with (
            httpx.Client(timeout=TIMEOUT_S, trust_env=False) as client,
            client.stream("POST", f"{url}/add-checkpoint", content=body) as answer,
        ):
            for part in answer.iter_bytes():
                content += part
                if len(content) > MAX_ANSWER_BYTES or time.monotonic() > until:
                    return UNREACHABLE
            text = content.decode()
    except (httpx.HTTPError, httpx.InvalidURL, UnicodeDecodeError):
        return UNREACHABLE
    return Answer(answer.status_code, text) if answer.status_code in STATUSES else UNREACHABLE

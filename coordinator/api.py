"""HTTP: the open door (joining with an invitation, partners with a token) and the members' pages (mutual TLS).

Thin: every request is parsed strictly and handed to the module that owns the subject. Annotations are evaluated here,
because FastAPI reads them at run time.
"""

import base64
import io
import json
import zipfile
from collections.abc import Callable, Mapping
from datetime import datetime
from pathlib import Path
from typing import Annotated

import sqlalchemy as sa
from fastapi import Depends, FastAPI, Header, HTTPException, Query, Request, Response
from fastapi.concurrency import run_in_threadpool
from fastapi.exceptions import RequestValidationError
from pydantic import BaseModel, ConfigDict, Field

from consent import Succession, key_id
from coordinator import members, tasks
from coordinator.authority import Authority
from coordinator.errors import ConfigurationError, PeerError
from coordinator.listener import certificate_of
from coordinator.members import JoinRequest
from coordinator.receipt_keys import read_key, take_over
from coordinator.relay import pass_on
from coordinator.runs import describe
from models import TaskRefused

_Pem = Annotated[str, Field(min_length=1, max_length=16_384)]
_Signature = Annotated[str, Field(min_length=88, max_length=88)]  # 64 bytes


class JoinForm(BaseModel):
    """What a site posts to join."""

    model_config = ConfigDict(strict=True, frozen=True, extra="forbid")

    token: Annotated[str, Field(min_length=1, max_length=256)]
    signing_request: _Pem
    node_key: _Pem
    receipt_key: _Pem


class KeyForm(BaseModel):
    """What a site posts to sign with a new receipt key; both signatures are over the same statement, in base64."""

    model_config = ConfigDict(strict=True, frozen=True, extra="forbid")

    receipt_key: _Pem
    by_old: _Signature
    by_new: _Signature


def open_door(
    store: sa.Engine,
    authority: Authority,
    register: Callable[[bytes, str], int],
    runs: Path,
    clock: Callable[[], datetime],
) -> FastAPI:
    """Return the application for those who have no client certificate."""
    app = FastAPI(openapi_url=None, exception_handlers={RequestValidationError: _malformed})

    def partner(authorization: Annotated[str, Header(max_length=512)] = "") -> str:
        try:
            return tasks.partner_of(store, authorization.removeprefix("Bearer "))
        except PeerError as error:
            raise HTTPException(403, str(error)) from error

    Partner = Annotated[str, Depends(partner)]  # noqa: N806 -- a type

    @app.post("/v1/join")
    def join(form: JoinForm) -> dict[str, str]:
        request = JoinRequest(
            form.token,
            form.signing_request.encode(),
            form.node_key.encode(),
            form.receipt_key.encode(),
        )
        try:
            return members.take_in(store, authority, register, request, clock())
        except PeerError as error:
            raise HTTPException(403, str(error)) from error

    @app.post("/v1/tasks")
    async def submit(request: Request, by: Partner) -> dict[str, str]:
        try:
            return {"digest": tasks.submit(store, await request.body(), by, clock())}
        except TaskRefused as refusal:
            raise HTTPException(422, str(refusal)) from refusal

    @app.get("/v1/runs/{run}/bundle")
    def bundle(run: str, by: Partner) -> Response:
        _own(store, run, by)
        folder = runs / run / "bundle"
        if not folder.is_dir():
            raise HTTPException(404, "the run has no finished model")
        return Response(_zip(folder), media_type="application/zip")

    return app


def member_pages(
    store: sa.Engine, federation: str, witnesses: Mapping[str, str], clock: Callable[[], datetime]
) -> FastAPI:
    """Return the application for members, who came through mutual TLS; `witnesses` are URLs by name."""
    app = FastAPI(openapi_url=None, exception_handlers={RequestValidationError: _malformed})

    @app.post("/v1/members/receipt-key")
    def succeed(form: KeyForm, request: Request) -> dict[str, str]:
        try:
            asked = Succession(read_key(form.receipt_key.encode()), _base64(form.by_old), _base64(form.by_new))
        except ValueError as error:
            raise HTTPException(422, "key-malformed") from error
        try:
            take_over(store, federation, certificate_of(request.scope), asked, clock())
        except PeerError as error:
            raise HTTPException(409, str(error)) from error
        return {"key_id": key_id(asked.key)}

    @app.post("/v1/members/checkpoints")
    async def checkpoint(request: Request, witness: Annotated[str, Query(max_length=256)]) -> Response:
        if witness not in witnesses:
            raise HTTPException(404, "the coordinator knows no witness of this name")
        answer = await run_in_threadpool(pass_on, witnesses[witness], await request.body())
        return Response(answer.body, answer.status, media_type="text/plain")

    @app.get("/v1/members/tasks")
    def offered() -> list[str]:
        return [document for _, document, _ in tasks.offered(store)]

    return app


async def _malformed(_request: Request, error: Exception) -> Response:
    """Answer with the keys that are wrong; what was sent, a token perhaps, is not repeated."""
    found = error.errors() if isinstance(error, RequestValidationError) else []
    faults = [{"loc": fault["loc"], "msg": fault["msg"]} for fault in found]
    return Response(json.dumps({"detail": faults}), 422, media_type="application/json")


def _base64(text: str) -> bytes:
    return base64.b64decode(text, validate=True)


def _own(store: sa.Engine, run: str, by: str) -> None:
    """Pass if the run is of a task that this partner submitted.

    Raises: HTTPException otherwise; it does not tell whether the run exists.
    """
    submitted = {digest for digest, _, partners in tasks.offered(store) if by in partners}
    try:
        known = describe(store, run)["task"] in submitted
    except ConfigurationError:
        known = False
    if not known:
        raise HTTPException(404, "there is no such run of this partner")


def _zip(folder: Path) -> bytes:
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", zipfile.ZIP_STORED) as archive:
        for path in sorted(folder.rglob("*")):
            if path.is_file():
                archive.write(path, path.relative_to(folder))
    return buffer.getvalue()

"""HTTP: the open door (joining with an invitation, partners with a token) and the members' pages (mutual TLS).

Thin: every request is parsed strictly and handed to the module that owns the subject. Annotations are evaluated here,
because FastAPI reads them at run time.
"""

import base64
import io
import json
import zipfile
from collections import Counter
from collections.abc import Callable, Mapping
from datetime import datetime
from pathlib import Path
from types import MappingProxyType
from typing import Annotated

import sqlalchemy as sa
from fastapi import Depends, FastAPI, Header, HTTPException, Query, Request, Response
from fastapi.concurrency import run_in_threadpool
from fastapi.exceptions import RequestValidationError
from pydantic import BaseModel, ConfigDict, Field

from consent import MAX_NOTICE_BYTES, Succession, key_id, sign_answer
from coordinator import members, statistics, tasks, withdrawals
from coordinator.authority import Authority, Signer
from coordinator.errors import ConfigurationError, PeerError
from coordinator.listener import certificate_of
from coordinator.members import JoinRequest, Member
from coordinator.provenance import texts_as_they_stand
from coordinator.receipt_keys import read_key, take_over
from coordinator.relay import pass_on
from coordinator.runs import RunRecord, describe
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
    federation: str,
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
        return Response(_bundle(store, federation, runs, run), media_type="application/zip")

    return app


def member_pages(
    store: sa.Engine,
    federation: str,
    clock: Callable[[], datetime],
    say: Callable[[str], None],
    signer: Callable[[], Signer],
    witnesses: Mapping[str, str] = MappingProxyType({}),
) -> FastAPI:
    """Return the application for members, who came through mutual TLS; `witnesses` are URLs by name.

    `signer` returns the key that the coordinator signs statements with.
    """
    app = FastAPI(openapi_url=None, exception_handlers={RequestValidationError: _malformed})

    def sender(request: Request) -> Member:
        try:
            return members.by_certificate(store, certificate_of(request.scope))
        except PeerError as error:
            raise HTTPException(403, str(error)) from error

    Sender = Annotated[Member, Depends(sender)]  # noqa: N806 -- a type

    async def small(request: Request) -> bytes:
        body = await request.body()
        if len(body) > MAX_NOTICE_BYTES:
            raise HTTPException(413, "the notice is too large")
        return body

    @app.get("/v1/members/tasks")
    def offered() -> list[str]:
        return [document for _, document, _ in tasks.offered(store)]

    @app.post("/v1/members/statistics", status_code=204)
    async def tell(request: Request, by: Sender) -> None:
        try:
            statistics.take(store, federation, by.site, by.receipt_key, await request.body(), clock())
        except PeerError as error:
            raise HTTPException(422, str(error)) from error

    _add_succession(app, store, federation, clock)
    _add_relay(app, witnesses)

    # Not `async`: it may wait for a round to close, and so runs in a thread of its own.
    @app.post("/v1/members/withdrawals")
    def withdraw(by: Sender, notice: Annotated[bytes, Depends(small)]) -> dict[str, str]:
        try:
            answers = withdrawals.take_in(store, federation, by, notice, clock())
        except PeerError as error:
            raise HTTPException(403, str(error)) from error
        told = ", ".join(f"{number} {said}" for said, number in sorted(Counter(answers.values()).items()))
        say(f"{by.site}: withdrawal: {told}")
        own = signer()
        answer = sign_answer(withdrawals.stated(store, federation, notice, answers), own.key)
        return {"answer": answer.decode(), "certificate": own.certificate.decode()}

    return app


def _add_succession(app: FastAPI, store: sa.Engine, federation: str, clock: Callable[[], datetime]) -> None:
    @app.post("/v1/members/receipt-key")
    def succeed(form: KeyForm, request: Request) -> dict[str, str]:
        try:
            asked = Succession(read_key(form.receipt_key.encode()), _base64(form.by_old), _base64(form.by_new))
        except ValueError as error:
            raise HTTPException(422, "key-malformed") from error
        try:
            take_over(store, federation, certificate_of(request.scope), asked, clock)
        except PeerError as error:
            raise HTTPException(409, str(error)) from error
        return {"key_id": key_id(asked.key)}


def _add_relay(app: FastAPI, witnesses: Mapping[str, str]) -> None:
    @app.post("/v1/members/checkpoints")
    async def checkpoint(request: Request, witness: Annotated[str, Query(max_length=256)]) -> Response:
        if witness not in witnesses:
            raise HTTPException(404, "the coordinator knows no witness of this name")
        answer = await run_in_threadpool(pass_on, witnesses[witness], await request.body())
        return Response(answer.body, answer.status, media_type="text/plain")


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


def _bundle(store: sa.Engine, federation: str, runs: Path, run: str) -> bytes:
    """Return a finished run's bundle as a ZIP file; what it says of itself is as the record stands now.

    Raises: HTTPException if there is none, or a withdrawal stopped that it is handed out.
    """
    stands = withdrawals.standing(store, run)
    if stands.refusal:
        raise HTTPException(410, stands.refusal)
    if stands.state != "finished":
        raise HTTPException(404, "the run has no finished model")
    record, texts = RunRecord(store, runs, run), dict[str, bytes]()
    if stands.is_flagged:
        texts = texts_as_they_stand(store, federation, record, tasks.find(store, stands.task))
    return _zip(record.folder / "bundle", texts)


def _zip(folder: Path, instead: Mapping[str, bytes]) -> bytes:
    """Return the folder as a ZIP file, with other contents for some of its paths."""
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", zipfile.ZIP_STORED) as archive:
        for path in sorted(folder.rglob("*")):
            if path.is_file():
                name = path.relative_to(folder).as_posix()
                archive.writestr(name, instead[name] if name in instead else path.read_bytes())
    return buffer.getvalue()

"""The AI partner's side of the open door: submit a task, fetch the finished bundle.

Runs on the partner's machine with the access file the coordinator gave; needs no coordinator folder.
"""

from __future__ import annotations

import io
import ssl
import zipfile
import zlib
from typing import TYPE_CHECKING, Annotated

import httpx
from pydantic import BaseModel, ConfigDict, Field, ValidationError

from coordinator.errors import ConfigurationError, PeerError

if TYPE_CHECKING:
    from pathlib import Path

MAX_BUNDLE_BYTES = 8 * 2**30
DAMAGED = "what the coordinator sent is not a whole bundle; nothing of it is kept: fetch it again"
# What reading a ZIP file raises that is none, is cut off, is encrypted or is packed in another way.
NOT_A_ZIP = (zipfile.BadZipFile, zlib.error, RuntimeError, EOFError)

_Text = Annotated[str, Field(min_length=1, max_length=16_384)]


class Access(BaseModel):
    """How a partner reaches the coordinator."""

    model_config = ConfigDict(strict=True, frozen=True, extra="forbid")

    url: _Text
    authority: _Text
    token: _Text


def read_access(path: Path) -> Access:
    """Return the access file at `path`.

    Raises: ConfigurationError if it is not one.
    """
    try:
        return Access.model_validate_json(path.read_bytes())
    except (OSError, ValidationError):
        raise ConfigurationError(f"{path}: not a partner's access file") from None


def submit(access: Access, document: bytes) -> str:
    """Submit a task; return its digest.

    Raises: PeerError with the coordinator's reason if it is refused.
    """
    answer = _ask(access, "POST", "/v1/tasks", document)
    return str(answer.json()["digest"])


def fetch_bundle(access: Access, run: str, folder: Path) -> None:
    """Fetch the finished bundle of `run` into `folder`, which must not exist yet.

    Raises: PeerError if there is none, or what came is no bundle; ConfigurationError if the folder exists.
    """
    if folder.exists():
        raise ConfigurationError(f"{folder} exists already; name another folder")
    content = _ask(access, "GET", f"/v1/runs/{run}/bundle", None).content
    try:
        with zipfile.ZipFile(io.BytesIO(content)) as archive:
            if sum(info.file_size for info in archive.infolist()) > MAX_BUNDLE_BYTES:
                raise PeerError("the bundle is larger than this program accepts")
            if archive.testzip() is not None:  # before anything is written
                raise PeerError(DAMAGED)
            archive.extractall(folder)
    except NOT_A_ZIP as error:
        raise PeerError(DAMAGED) from error


def _ask(access: Access, method: str, path: str, body: bytes | None) -> httpx.Response:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.minimum_version = ssl.TLSVersion.TLSv1_3
    context.load_verify_locations(cadata=access.authority)
    headers = {"authorization": f"Bearer {access.token}"}
    try:
        with httpx.Client(verify=context, timeout=60.0) as client:
            answer = client.request(method, f"{access.url}{path}", content=body, headers=headers)
    except httpx.HTTPError as error:
        raise PeerError(f"the coordinator cannot be reached: {type(error).__name__}") from error
    if answer.is_error:
        raise PeerError(f"refused ({answer.status_code}): {_detail(answer)}")
    return answer


def _detail(answer: httpx.Response) -> str:
    try:
        return str(answer.json()["detail"])
    except (ValueError, KeyError, TypeError):
        return "no reason given"

"""Speaks DICOM to the PACS of a drill: C-ECHO, C-STORE, C-FIND and C-GET over TLS, on this machine alone.

Files go as they lie, in the transfer syntax they have, and come back as they are sent: nothing is decoded here.

Source: PS3.4 annexes B (storage) and C (query and retrieve), PS3.7.
"""

from __future__ import annotations

import logging
import socket
from collections import Counter
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, NamedTuple

from pydicom import Dataset
from pydicom.filereader import read_file_meta_info
from pynetdicom import AE, _config, build_context, build_role, evt
from pynetdicom.sop_class import (  # type: ignore[attr-defined]  # made at run time
    StudyRootQueryRetrieveInformationModelFind,
    StudyRootQueryRetrieveInformationModelGet,
    Verification,
)

from site_node.errors import ArchiveError

if TYPE_CHECKING:
    import ssl
    from collections.abc import Callable, Iterator, Sequence
    from pathlib import Path

    from pynetdicom.association import Association
    from pynetdicom.presentation import PresentationContext

CALLING = "FILMROOMDRILL"
SUCCESS = 0x0000
BROKEN = -1
"""No status of DICOM: the peer broke the association off whenever it was sent this file, and lives."""
_UNFIT = (range(0xA900, 0xAA00), range(0xC000, 0xD000))
"""What a peer says of the file: it does not match its SOP class, or cannot be understood (PS3.4 table B.2-1)."""
_PENDING = (0xFF00, 0xFF01)
HOST = "127.0.0.1"
_PDU = 131072
_TIMEOUT_S = 30.0
_ATTEMPTS = 3  # an association that stalls is begun anew
_BREAKS = 2  # as often, a file is taken for what the peer breaks off at; storing twice what is the same changes nothing
_CONTEXTS = 120  # an association has 128 (PS3.8 9.3.2.2), some of which the query needs
_config.STORE_SEND_CHUNKED_DATASET = True  # a file is sent as it lies, and never whole in memory


class Form(NamedTuple):
    """What has to be agreed on before an instance is sent."""

    SOPClassUID: str
    TransferSyntaxUID: str


@dataclass(frozen=True, slots=True)
class Peer:
    """Where a PACS listens on this machine, and how it is spoken to."""

    ae_title: str
    port: int
    tls: ssl.SSLContext


def form_of(path: Path, uid: str = "") -> Form | None:
    """Return what a file says it is; None if it says nothing, or is meant to be another instance than `uid`."""
    meta = read_file_meta_info(path)
    form = Form(str(meta.get("MediaStorageSOPClassUID", "")), str(meta.get("TransferSyntaxUID", "")))
    # PS3.10 7.1: the file says of itself which instance it holds, and a PACS refuses one that says another.
    return form if all(form) and uid in ("", str(meta.get("MediaStorageSOPInstanceUID", ""))) else None


def echoes(peer: Peer) -> bool:
    """Return whether the peer answers a C-ECHO."""
    try:
        with _association(peer, [build_context(Verification)]) as association:
            return bool(association.send_c_echo().get("Status") == SUCCESS)
    except ArchiveError:
        return False


def store(peer: Peer, files: Sequence[Path], forms: Sequence[Form], sent: Callable[[], None]) -> dict[Path, int | None]:
    """Send files, all of few enough forms for one association; return the status of each, None if not to be agreed on.

    A file at which the peer breaks off each association is BROKEN, and the others are sent all the same.
    Raises: ArchiveError if the peer no longer answers.
    """
    statuses: dict[Path, int | None] = {}
    broken: Counter[Path] = Counter()
    while left := [one for one in zip(files, forms, strict=True) if one[0] not in statuses]:
        try:
            _store(peer, left, statuses, sent)
        except ArchiveError:
            if not echoes(peer):
                raise
            at = next(path for path, _ in left if path not in statuses)
            broken[at] += 1
            if broken[at] == _BREAKS:
                statuses[at] = BROKEN
    return statuses


def is_unfit(status: int) -> bool:
    """Return whether a peer that did not take a file says so of the file, and not of itself."""
    return status == BROKEN or any(status in those for those in _UNFIT)


def _store(
    peer: Peer, files: Sequence[tuple[Path, Form]], statuses: dict[Path, int | None], sent: Callable[[], None]
) -> None:
    contexts = [build_context(*form) for form in sorted({form for _, form in files})]
    if not contexts:
        return
    with _association(peer, contexts) as association:
        agreed = {(one.abstract_syntax, one.transfer_syntax[0]) for one in association.accepted_contexts}
        for path, form in files:
            if form not in agreed:
                statuses[path] = None
            else:
                statuses[path] = _status(association.send_c_store(path))
            sent()


def find_studies(peer: Peer, study: str) -> list[str]:
    """Return the StudyInstanceUIDs that the peer knows under this one (or all, for an empty one).

    Raises: ArchiveError if it does not answer.
    """
    query = Dataset()
    query.QueryRetrieveLevel = "STUDY"
    query.StudyInstanceUID = study
    found = []
    with _association(peer, [build_context(StudyRootQueryRetrieveInformationModelFind)]) as association:
        for told, answer in association.send_c_find(query, StudyRootQueryRetrieveInformationModelFind):
            if _status(told) in _PENDING and answer is not None:
                found.append(str(answer.StudyInstanceUID))
    return found


def get_study(peer: Peer, study: str, forms: Sequence[Form], folder: Path) -> list[Path]:
    """Have a study sent back into a folder; return its files. Some may be missing: the caller counts.

    Raises: ArchiveError if the peer ends the association.
    """
    for left in reversed(range(_ATTEMPTS)):
        try:
            return _get_study(peer, study, forms, folder)
        except ArchiveError:
            if not left:
                raise
    raise AssertionError("the last attempt returns or raises")


def _get_study(peer: Peer, study: str, forms: Sequence[Form], folder: Path) -> list[Path]:
    folder.mkdir(mode=0o700, parents=True, exist_ok=True)
    received: list[Path] = []

    def keep(event: evt.Event) -> int:
        path = folder / f"{len(received)}.dcm"
        path.write_bytes(event.encoded_dataset())
        received.append(path)
        return SUCCESS

    query = Dataset()
    query.QueryRetrieveLevel = "STUDY"
    query.StudyInstanceUID = study
    get = StudyRootQueryRetrieveInformationModelGet
    chosen = sorted(set(forms))[:_CONTEXTS]
    contexts = [build_context(get), *(build_context(*form) for form in chosen)]
    roles = [build_role(uid, scp_role=True) for uid in sorted({form.SOPClassUID for form in chosen})]
    with _association(peer, contexts, roles, [(evt.EVT_C_STORE, keep)]) as association:
        for told, _ in association.send_c_get(query, get):
            _status(told)
    return received


def _status(told: Dataset) -> int:
    """Return the status of an answer.

    Raises: ArchiveError if there was none.
    """
    status = told.get("Status")
    if status is None:
        raise ArchiveError("the fresh PACS no longer answers")
    return int(status)


@contextmanager
def _association(
    peer: Peer,
    contexts: list[PresentationContext],
    roles: Sequence[Any] = (),
    handlers: Sequence[Any] = (),
) -> Iterator[Association]:
    logging.getLogger("pynetdicom").setLevel(logging.CRITICAL + 1)  # it logs what it sends
    ae = AE(CALLING)
    ae.acse_timeout = ae.dimse_timeout = ae.network_timeout = ae.connection_timeout = _TIMEOUT_S
    association = ae.associate(
        HOST,
        peer.port,
        contexts,
        ae_title=peer.ae_title,
        max_pdu=_PDU,
        ext_neg=list(roles),
        evt_handlers=[(evt.EVT_CONN_OPEN, _without_delay), *handlers],
        tls_args=(peer.tls, HOST),
    )
    if not association.is_established:
        raise ArchiveError("the fresh PACS cannot be reached")
    try:
        yield association
    finally:
        if association.is_established:
            association.release()


def _without_delay(event: evt.Event) -> None:
    connection = event.assoc.dul.socket
    if connection is not None and connection.socket is not None:
        connection.socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)

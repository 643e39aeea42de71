"""Reads the consents of a FHIR server inside the hospital, by search; the question names nothing but a moment.

A search goes over several pages, and what is changed meanwhile may push a consent from a page still to come to one that
was read. So the newest is asked for first, the consents up to it are counted, and a search that did not show them all
is not a reading. What was deleted no search shows; how many there are tells that something was.

A server names a patient by the id it gave to a Patient, which is no PatientID and may be another patient's. So the
Patient comes along with its consents, and its identifier takes the place; nothing else of it is looked at or kept.

Source: FHIR R4 Search: `_lastUpdated`, `_sort`, `_count`, `_total`, `_include`, `_summary`, and paging by Bundle.link
    `next`; FHIR R4 Consent.patient, Patient.identifier.
"""

from __future__ import annotations

import json
import re
import ssl
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from email.utils import parsedate_to_datetime
from typing import TYPE_CHECKING, Any, Final

import httpx

from site_node.errors import ConfigurationError, PeerError

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence
    from pathlib import Path

OVERLAP: Final = timedelta(minutes=10)
"""How far the server's clock may be from this machine's; that much is asked for again."""
PAGE_SIZE: Final = 500
MAX_PAGE_BYTES: Final = 256 * 1024 * 1024
TIMEOUT_S: Final = 60.0
_LOCAL: Final = frozenset({"127.0.0.1", "::1", "localhost"})
_REFERENCE: Final = re.compile(r"Patient/([A-Za-z0-9.-]{1,64})(?:/_history/[^/]+)?")


@dataclass(frozen=True, slots=True)
class Page:
    """The entries of one page: resources in a Bundle, as they came; and the moment of the server's answer."""

    bundle: Mapping[str, Any]
    answered_at: datetime


def check_address(base: str) -> httpx.URL:
    """Return the server's address with a slash at its end.

    Raises: ConfigurationError if it is none, or is spoken to in the clear and lies elsewhere than on this machine.
    """
    try:
        url = httpx.URL(base.rstrip("/") + "/")
    except httpx.InvalidURL as error:
        raise ConfigurationError("the FHIR server's address is not a URL") from error
    if url.scheme != "https" and not (url.scheme == "http" and url.host in _LOCAL):
        raise ConfigurationError("the FHIR server's address begins with https://")
    return url


@contextmanager
def connect(base: str, token: str | None = None, authority: Path | None = None) -> Iterator[FhirServer]:
    """Give the FHIR server at `base` until the block ends.

    Raises: ConfigurationError if it would be spoken to in the clear, except on this machine.
    """
    url = check_address(base)
    headers = {"Accept": "application/fhir+json"} | ({"Authorization": f"Bearer {token}"} if token else {})
    context = ssl.create_default_context(cafile=str(authority) if authority else None)
    with httpx.Client(headers=headers, verify=context, timeout=TIMEOUT_S, trust_env=False) as client:
        yield FhirServer(client, url)


class FhirServer:
    """Answers searches for Consent."""

    def __init__(self, client: httpx.Client, base: httpx.URL) -> None:
        self._client = client
        self._base = base

    def count(self) -> int:
        """Return how many consents there are now.

        Raises: PeerError if the server cannot be reached, refuses, or does not say.
        """
        return _total(self._search({"_summary": "count", "_total": "accurate"}))

    def consents(
        self, since: datetime | None, at: datetime, patient_system: str = ""
    ) -> Iterator[Sequence[Mapping[str, Any]]]:
        """Yield pages of the consents changed since a moment, all if None; who reads to the end has read them all.

        Each names its patient by an identifier, of `patient_system` where that is set, or not at all.

        Raises: PeerError if the server cannot be reached, refuses, or did not show all that it has.
        """
        query = {"_total": "accurate"}
        if since is not None:
            query["_lastUpdated"] = f"ge{(since - OVERLAP).astimezone(UTC):%Y-%m-%dT%H:%M:%SZ}"
        newest = self._search(query | {"_sort": "-_lastUpdated", "_count": "1"})
        if abs(newest.answered_at - at) > OVERLAP:
            raise PeerError("the FHIR server's clock is more than ten minutes from this machine's")
        total = _total(newest)
        # By the stamps of the server alone: its Date may lag behind them.
        began = max(map(_changed_at, _resources(newest.bundle)), default=_NEVER)
        listed = {"_sort": "_lastUpdated", "_count": str(PAGE_SIZE), "_include": "Consent:patient"}
        page = self._search(query | listed)
        there_before: set[str] = set()
        read: set[httpx.URL] = set()
        while True:
            resources = _resources(page.bundle)
            found = [one for one in resources if one.get("resourceType") != "Patient"]
            there_before.update(_id(resource) for resource in found if _changed_at(resource) <= began)
            patients = {_id(one): one for one in resources if one.get("resourceType") == "Patient"}
            yield [self._naming_its_patient(one, patients, patient_system) for one in found]
            following = self._following(page.bundle)
            if following is None:
                break
            if following in read:
                raise PeerError("the FHIR server's pages go round in a circle")
            read.add(following)
            page = self._get(following)
        if len(there_before) < total:
            raise PeerError("consents were changed while they were read, and not all were shown: read them again")

    def _search(self, query: Mapping[str, str]) -> Page:
        return self._get(self._base.join("Consent").copy_merge_params(query))

    def _naming_its_patient(
        self, consent: Mapping[str, Any], patients: Mapping[str, Mapping[str, Any]], system: str
    ) -> Mapping[str, Any]:
        element = "patient" if "patient" in consent else "subject"
        named = consent.get(element)
        if not isinstance(named, dict) or _serves(named.get("identifier"), system):
            return consent
        referred = _REFERENCE.fullmatch(str(named.get("reference")).removeprefix(str(self._base)))
        found = _identifiers(patients.get(referred[1], {}) if referred else {}, system)
        if len({one["value"] for one in found}) != 1:
            return {**consent, element: {}}
        return {**consent, element: {**named, "identifier": found[0]}}

    def _following(self, bundle: Mapping[str, Any]) -> httpx.URL | None:
        links = bundle.get("link", [])
        urls = [link.get("url") for link in links if isinstance(link, dict) and link.get("relation") == "next"]
        if not urls:
            return None
        try:
            url = self._base.join(str(urls[0]))
        except httpx.InvalidURL as error:
            raise PeerError("the FHIR server's next page has no usable address") from error
        if (url.scheme, url.host, url.port) != (self._base.scheme, self._base.host, self._base.port):
            raise PeerError("the FHIR server's next page lies on another server")
        return url

    def _get(self, url: httpx.URL) -> Page:
        try:
            with self._client.stream("GET", url) as response:
                if response.status_code != httpx.codes.OK:
                    raise PeerError(f"reading consents: the FHIR server answered {response.status_code}")
                body = bytearray()
                for part in response.iter_bytes():
                    body += part
                    if len(body) > MAX_PAGE_BYTES:
                        raise PeerError(f"a page of the FHIR server is larger than {MAX_PAGE_BYTES} bytes")
                date = response.headers.get("date", "")
        except httpx.HTTPError as error:
            raise PeerError(f"reading consents: {type(error).__name__}") from error
        try:
            bundle = json.loads(body, object_pairs_hook=_once)
            answered_at = parsedate_to_datetime(date)
        except (ValueError, RecursionError) as error:
            raise PeerError("the FHIR server's answer is not JSON, or has no date") from error
        if not isinstance(bundle, dict) or bundle.get("resourceType") != "Bundle" or _TWICE in bundle:
            raise PeerError("the FHIR server's answer is not a Bundle")
        return Page(bundle, answered_at)


def _once(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    """Return a JSON object; of one that names an element twice nobody can tell what it says, and a mark says that."""
    named = dict(pairs)
    return named if len(named) == len(pairs) else {**named, _TWICE: True}


_TWICE: Final = "namedTwice"
"""An element no resource of FHIR has: what holds it is not understood, and goes to review."""


def _resources(bundle: Mapping[str, Any]) -> list[Mapping[str, Any]]:
    """Return what was found; a remark of the server (Bundle.entry.search.mode outcome) is not."""
    entries = bundle.get("entry", [])
    found = [entry.get("resource") for entry in entries if isinstance(entry, dict)]
    if not isinstance(entries, list) or not all(isinstance(one, dict) for one in found) or len(found) != len(entries):
        raise PeerError("the FHIR server's answer has an entry without a resource")
    if any(_TWICE in entry for entry in entries):
        raise PeerError("an entry of the FHIR server's answer names an element twice")
    if any(_TWICE in one and one.get("resourceType") != "Consent" for one in found if isinstance(one, dict)):
        raise PeerError("a resource of the FHIR server's answer names an element twice")
    return [one for one in found if isinstance(one, dict) and one.get("resourceType") != "OperationOutcome"]


def _total(page: Page) -> int:
    total = page.bundle.get("total")
    if not isinstance(total, int):
        raise PeerError("the FHIR server does not say how many consents it found (Bundle.total)")
    return total


def _identifiers(patient: Mapping[str, Any], system: str) -> list[Mapping[str, str]]:
    """Return the identifiers by which the hospital may know a patient today; Identifier.use `old` is none."""
    listed = patient.get("identifier")
    return [
        {key: one[key] for key in ("system", "value") if key in one}
        for one in (listed if isinstance(listed, list) else [])
        if _serves(one, system) and one.get("use") != "old"
    ]


def _serves(identifier: object, system: str) -> bool:
    if not isinstance(identifier, dict) or not isinstance(identifier.get("value"), str):
        return False
    return system in ("", identifier.get("system"))


def _id(resource: Mapping[str, Any]) -> str:
    return str(resource.get("id"))


def _changed_at(resource: Mapping[str, Any]) -> datetime:
    """Return Resource.meta.lastUpdated, which a server sets."""
    meta = resource.get("meta")
    try:
        at = datetime.fromisoformat(str(meta.get("lastUpdated") if isinstance(meta, dict) else None))
    except ValueError as error:
        raise PeerError("the FHIR server does not say when a consent was changed (meta.lastUpdated)") from error
    return at if at.tzinfo else at.replace(tzinfo=UTC)


_NEVER: Final = datetime.min.replace(tzinfo=UTC)

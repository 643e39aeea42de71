"""A browser of the console without a screen: an ASGI client that sends forms as a browser does."""

from __future__ import annotations

import asyncio
import json
import re
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import httpx

from site_node.gate import Snapshot
from site_node.store import ledger

if TYPE_CHECKING:
    from httpx import Response

    from site_node.console.guard import Application
    from tests.site_node.hospital import Hospital

HOST = "127.0.0.1:8460"
PASSWORD = "a long enough sentence"  # noqa: S105 -- opens a console of one test
MAX_BYTES = 100_000


class Client:
    """A client of an application in this process."""

    def __init__(self, application: Application) -> None:
        self._runner = asyncio.Runner()
        address = f"http://{HOST}"
        transport = httpx.ASGITransport(application, raise_app_exceptions=False)
        self._client = httpx.AsyncClient(transport=transport, base_url=address, headers={"Origin": address})
        self.headers, self.cookies = self._client.headers, self._client.cookies

    def request(self, method: str, path: str, **values: Any) -> Response:
        """Ask, and follow no redirect."""
        return self._runner.run(self._client.request(method, path, **values))

    def get(self, path: str) -> Response:
        """Ask for a page."""
        return self.request("GET", path)

    def post(self, path: str, **values: Any) -> Response:
        """Send a form."""
        return self.request("POST", path, **values)

    def close(self) -> None:
        """End the loop."""
        self._runner.run(self._client.aclose())
        self._runner.close()


@dataclass(slots=True)
class Browser:
    """Asks as a browser does: with its cookies, and saying where a form came from."""

    client: Client
    seen: list[Response] = field(default_factory=list)

    def get(self, path: str) -> Response:
        """Open a page."""
        return self._keep(self.client.get(path))

    def post(self, path: str, page: str = "/", /, files: Any = None, **fields: str) -> Response:
        """Send a form of `page`, with the token that stands there."""
        found = re.search(r'name="form_token" value="([^"]+)"', self.get(page).text)
        token = {"form_token": found[1]} if found else {}
        return self._keep(self.client.post(path, data=token | fields, files=files))

    def sign_in(self, name: str, password: str = PASSWORD) -> Response:
        """Sign in."""
        return self._keep(self.client.post("/sign-in", data={"name": name, "password": password}))

    def _keep(self, answer: Response) -> Response:
        self.seen.append(answer)
        return answer


def outcome(hospital: Hospital, patient: str) -> str:
    found = hospital.gate.explained(hospital.task, hospital.clock.now)
    assert isinstance(found, Snapshot)
    return found.cohort.verdicts[hospital.studies[patient]].outcome.name


def entries(hospital: Hospital) -> list[tuple[str, dict[str, Any]]]:
    return [(row["entry"], json.loads(row["detail"])) for row in hospital.rows(ledger)]


def rows(answer: Response, heading: str) -> list[str]:
    """Return the rows below a heading as text."""
    part = answer.text.partition(f'id="{heading}">')[2].partition("</section>")[0]
    found = re.findall(r"<tr><th scope=\"row\"[^>]*>(.*?)</tr>", part, re.DOTALL)
    return [" ".join(re.sub(r"<[^>]+>", " ", row).split()) for row in found]


def field_of(answer: Response, name: str) -> str:
    """Return what a hidden field of a page holds."""
    found = re.search(rf'name="{name}" value="([^"]+)"', answer.text)
    assert found is not None, answer.text
    return found[1]


def said(answer: Response) -> str:
    """Return what a page tells of a fault."""
    found = re.search(r'role="alert"[^>]*>(.*?)</p>', answer.text, re.DOTALL)
    return found[1] if found else ""

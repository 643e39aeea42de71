"""Somebody else's FHIR server as a process of its own: SEKMET, R4, over SQLite (docs/adr/0019)."""

from __future__ import annotations

import json
import os
import ssl
import subprocess
import time
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import httpx

from tests.coordinator.parts import free_port

if TYPE_CHECKING:
    from collections.abc import Sequence
    from subprocess import Popen

PROGRAM = Path(__file__).parents[2] / ".venv-fhir" / "bin" / "sekmet"
TOKEN = "a-token-of-the-hospital"  # noqa: S105 -- opens nothing but the server of one test
START_S = 30.0


@dataclass(slots=True)
class RealServer:
    """Listens on this machine alone, keeps what it holds in a folder, and asks for a token."""

    folder: Path
    tls: tuple[Path, Path] | None = None
    port: int = field(default_factory=free_port)
    process: Popen[bytes] | None = None

    @property
    def address(self) -> str:
        """The base of its REST interface."""
        return f"{'https' if self.tls else 'http'}://127.0.0.1:{self.port}/fhir"

    @property
    def token_file(self) -> Path:
        """A file with the token it asks for."""
        file = self.folder / "token"
        if not file.exists():
            file.touch(0o600)
            file.write_text(TOKEN)
        return file

    def start(self) -> None:
        """Return once it answers."""
        assert PROGRAM.exists(), "the FHIR server is not installed: run `make fhir-server`"
        settings = self.folder / "settings.yaml"
        certificate, key = self.tls or (None, None)
        told = {
            "base_url": self.address,
            "data_dir": str(self.folder / "data"),
            "tls_certfile": str(certificate) if certificate else None,
            "tls_keyfile": str(key) if key else None,
            "server_auth": {"types": ["bearer"], "tokens": [TOKEN]},
            "simulator": {"enabled": False},
        }
        settings.write_text(json.dumps(told))  # JSON is YAML
        with (self.folder / "log").open("ab") as log:
            command = [str(PROGRAM), "serve", "--config", str(settings), "--host", "127.0.0.1"]
            self.process = subprocess.Popen(
                [*command, "--port", str(self.port)],
                stdout=log,
                stderr=log,
                cwd=self.folder,
                env={**os.environ, "SEKMET_CONFIG": str(settings)},
            )
        end = time.monotonic() + START_S
        while not self._answers():
            assert time.monotonic() < end, (self.folder / "log").read_text()[-2000:]
            time.sleep(0.05)

    def stop(self) -> None:
        """Kill it, as a power cut would."""
        if self.process is not None:
            self.process.kill()
            self.process.wait()
            self.process = None

    def put(self, *resources: dict[str, Any]) -> None:
        """Store resources under their own ids, in one transaction."""
        self._transaction([_entry("PUT", one["resourceType"], one["id"]) | {"resource": one} for one in resources])

    def delete(self, *consent_ids: str) -> None:
        """Delete consents."""
        self._transaction([_entry("DELETE", "Consent", one) for one in consent_ids])

    def empty(self) -> None:
        """Delete all it holds, and forget what was asked of it."""
        with self._client() as client:
            for kind in ("Consent", "Patient"):
                found = client.get(f"{self.address}/{kind}", params={"_count": "1000"}).json().get("entry", [])
                if found:
                    self._transaction([_entry("DELETE", kind, one["resource"]["id"]) for one in found])
        os.truncate(self.folder / "log", 0)

    def asked(self) -> list[str]:
        """Return what was asked of it from outside, as it logged it."""
        lines = (self.folder / "log").read_text().splitlines()
        return [line.partition('"')[2].partition('"')[0] for line in lines if "GET /fhir/Consent" in line]

    def _transaction(self, entries: Sequence[dict[str, Any]]) -> None:
        with self._client() as client:
            document = {"resourceType": "Bundle", "type": "transaction", "entry": list(entries)}
            answer = client.post(self.address, json=document, headers={"Content-Type": "application/fhir+json"})
        assert answer.status_code == httpx.codes.OK, answer.text[:2000]

    def _answers(self) -> bool:
        try:
            with self._client() as client:
                return client.get(f"{self.address}/metadata").status_code == httpx.codes.OK
        except httpx.TransportError:
            return False

    def _client(self) -> httpx.Client:
        context = ssl.create_default_context(cafile=str(self.tls[0]) if self.tls else None)
        return httpx.Client(verify=context, headers={"Authorization": f"Bearer {TOKEN}"}, timeout=60.0, trust_env=False)


def certificate(folder: Path) -> tuple[Path, Path]:
    """Let the server's own program make its certificate and key."""
    subprocess.run(
        [PROGRAM, "keys", "tls-cert", "127.0.0.1", "--out", folder / "tls"],
        cwd=folder,
        check=True,
        capture_output=True,
    )
    (pem,) = [file for file in folder.glob("tls*") if "CERTIFICATE" in file.read_text()]
    (key,) = [file for file in folder.glob("tls*") if "PRIVATE KEY" in file.read_text()]
    return pem, key


def _entry(method: str, kind: str, logical_id: str) -> dict[str, Any]:
    return {"request": {"method": method, "url": f"{kind}/{logical_id}"}}

"""A fresh PACS for a drill: Orthanc, in a folder of its own, with a key that ends with it.

Debian's Orthanc listens on every address of the machine. So it is spoken to by DICOM over TLS alone (PS3.15 B.12), with
a certificate made for this drill that both sides hold and ask for: nobody else gets an association. It has no HTTP
server and no plugins.
"""

from __future__ import annotations

import json
import os
import shutil
import signal
import socket
import ssl
import subprocess
import time
from contextlib import suppress
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Self

from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat
from cryptography.x509.oid import NameOID

from site_node.drills.dimse import HOST, Peer, echoes
from site_node.errors import ArchiveError, ConfigurationError
from site_node.keys import make_file

if TYPE_CHECKING:
    from pathlib import Path

PROGRAM = "Orthanc"
START_S, STOP_S, LOOK_S = 30.0, 10.0, 0.05
_LIFE = timedelta(days=30)  # of the certificate: longer than any drill
_SBIN = "/usr/sbin"  # where Debian puts it, which is not on every user's path


@dataclass(frozen=True, slots=True)
class Credential:
    """A key and its certificate (PEM), by which the two sides of a drill know each other."""

    certificate: Path
    key: Path

    @classmethod
    def make(cls, folder: Path) -> Self:
        """Make one in a folder."""
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        made = cls(folder / "drill.pem", folder / "drill.key")
        key, name, at = ec.generate_private_key(ec.SECP256R1()), _name("filmroom drill"), datetime.now(UTC)
        certificate = (
            x509.CertificateBuilder()
            .subject_name(name)
            .issuer_name(name)
            .public_key(key.public_key())
            .serial_number(x509.random_serial_number())
            .not_valid_before(at - timedelta(hours=1))
            .not_valid_after(at + _LIFE)
            .add_extension(x509.BasicConstraints(ca=True, path_length=0), critical=True)
            .sign(key, hashes.SHA256())
        )
        make_file(made.key, key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption()))
        make_file(made.certificate, certificate.public_bytes(Encoding.PEM))
        return made

    def context(self) -> ssl.SSLContext:
        """Return what a client speaks TLS with: it trusts this certificate and no other."""
        context = ssl.create_default_context(ssl.Purpose.SERVER_AUTH, cafile=str(self.certificate))
        context.check_hostname = False  # the one certificate is what is checked
        context.load_cert_chain(self.certificate, self.key)
        return context


class Pacs:
    """An Orthanc of our own; the block ends it, and what it held stays in its folder."""

    def __init__(self, folder: Path, credential: Credential, ae_title: str, port: int | None = None) -> None:
        self._folder = folder
        self._credential = credential
        self._process: subprocess.Popen[bytes] | None = None
        self.peer = Peer(ae_title, port or free_port(), credential.context())

    def __enter__(self) -> Self:
        """Start it, and wait until it answers a C-ECHO.

        Raises: ConfigurationError if Orthanc is not installed; ArchiveError if it does not answer.
        """
        self.start()
        return self

    def __exit__(self, *_: object) -> None:
        """End it."""
        self.stop()

    @property
    def pid(self) -> int:
        """Its process."""
        if self._process is None:
            raise AssertionError("a PACS has a process while it runs")
        return self._process.pid

    def start(self) -> None:
        """Start it, as `with` does."""
        program = find_program()
        self._folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        settings = self._folder / "orthanc.json"
        settings.write_text(json.dumps(self._settings()))
        with (self._folder / "orthanc.log").open("ab") as log:
            self._process = subprocess.Popen(  # noqa: S603 -- no shell, a fixed program
                [*_ends_with_us(), program, str(settings)],
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=subprocess.STDOUT,
                cwd=self._folder,
                env={"PATH": os.environ.get("PATH", ""), "TCP_NODELAY": "1"},  # 52 ms an image without
            )
        end = time.monotonic() + START_S
        while not (_listens(self.peer) and echoes(self.peer)):
            if self._process.poll() is not None or time.monotonic() > end:
                self.stop()
                raise ArchiveError("the fresh PACS does not start: see orthanc.log of a drill that is run with --keep")
            time.sleep(LOOK_S)

    def kill(self) -> None:
        """End it as a power cut would."""
        if self._process is not None:
            self._process.kill()
            self._process.wait()

    def stop(self) -> None:
        """End it, if it runs."""
        process, self._process = self._process, None
        if process is None or process.poll() is not None:
            return
        process.send_signal(signal.SIGTERM)
        with suppress(subprocess.TimeoutExpired):
            process.wait(STOP_S)
        if process.poll() is None:
            process.kill()
            process.wait()

    def check_alive(self) -> None:
        """Raise ArchiveError if it has ended."""
        if self._process is None or self._process.poll() is not None:
            raise ArchiveError("the fresh PACS ended in the middle of the drill")

    def _settings(self) -> dict[str, object]:
        data = str(self._folder / "data")
        certificate, key = str(self._credential.certificate), str(self._credential.key)
        return {
            "Name": "filmroom-drill",
            "StorageDirectory": data,
            "IndexDirectory": data,
            "Plugins": [],
            "HttpServerEnabled": False,
            "RemoteAccessAllowed": False,
            "DicomServerEnabled": True,
            "DicomAet": self.peer.ae_title,
            "DicomPort": self.peer.port,
            "DicomCheckCalledAet": True,
            "DicomTlsEnabled": True,
            "DicomTlsCertificate": certificate,
            "DicomTlsPrivateKey": key,
            "DicomTlsTrustedCertificates": certificate,
            "DicomTlsRemoteCertificateRequired": True,
            "DicomAlwaysAllowEcho": True,
            "DicomAlwaysAllowStore": True,
            "DicomAlwaysAllowFind": True,
            "DicomAlwaysAllowGet": True,
            "UnknownSopClassAccepted": True,
            "OverwriteInstances": True,
            "LimitFindResults": 0,
            "LimitFindInstances": 0,
            "StorageCompression": False,
            "MaximumStorageCacheSize": 0,  # what it shows comes from its disk
        }


def find_program() -> str:
    """Return where Orthanc is.

    Raises: ConfigurationError that says what to install.
    """
    program = shutil.which(PROGRAM) or shutil.which(PROGRAM, path=_SBIN)
    if program is None:
        raise ConfigurationError(
            "a drill needs a PACS: apt-get install --no-install-recommends orthanc, and its service switched off"
        )
    return program


def _ends_with_us() -> tuple[str, ...]:
    """Return what has the kernel end it with the drill, however that ends: it holds images of patients."""
    program = shutil.which("setpriv")
    return (program, "--pdeathsig", "KILL") if program else ()


def free_port() -> int:
    """Return a port that nobody listens on now."""
    with socket.socket() as one:
        one.bind((HOST, 0))
        port: int = one.getsockname()[1]
        return port


def _listens(peer: Peer) -> bool:
    """Return whether somebody listens there; an association that finds nobody would leave its socket behind."""
    with suppress(OSError), socket.create_connection((HOST, peer.port), LOOK_S):
        return True
    return False


def _name(common: str) -> x509.Name:
    return x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, common)])

"""Real S3 servers on the loopback address: ours, hardened; one that is not; and moto, which only acts as one."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
import threading
import time
from contextlib import closing, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

from site_node.archive.locked import credentials
from site_node.archive.locked.credentials import Credentials
from site_node.archive.locked.lock_server import GRPC_OFFSET, LockServer
from site_node.archive.locked.s3 import Bucket
from site_node.config import LockedCopy
from site_node.errors import EndpointError

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

ROOT = Path(__file__).parents[4]
BEGAN_S = 240  # also on a machine that many others use
WEED = str(Path(sys.executable).with_name("weed"))
MOTO = ROOT / ".venv-s3" / "bin" / "python"


@dataclass(slots=True)
class Process:
    """A program that runs in the background."""

    command: Sequence[str]
    folder: Path
    port: int
    log: Path
    environment: dict[str, str] = field(default_factory=dict)
    _running: subprocess.Popen[bytes] | None = None

    def start(self) -> None:
        """Start it, and wait until its port answers."""
        with self.log.open("ab") as log:
            self._running = subprocess.Popen(
                list(self.command),
                cwd=self.folder,
                stdout=log,
                stderr=log,
                env=os.environ | {"PYTHONPATH": str(ROOT)} | self.environment,
            )
        end = time.monotonic() + BEGAN_S
        while not answers(self.port):
            assert self._running.poll() is None, self.log.read_text()[-2000:]
            assert time.monotonic() < end, self.log.read_text()[-2000:]
            time.sleep(0.1)

    def kill(self) -> None:
        """Kill it, as a power cut would."""
        self._end(signal.SIGKILL)

    def stop(self) -> None:
        """Ask it to end."""
        self._end(signal.SIGTERM)

    def _end(self, how: signal.Signals) -> None:
        if self._running is None:
            return
        self._running.send_signal(how)
        try:
            self._running.wait(15)
        except subprocess.TimeoutExpired:
            self._running.kill()
            self._running.wait()
        self._running = None


@dataclass(slots=True)
class Ours:
    """A lock server that the command of a hospital set up."""

    server: LockServer
    process: Process

    def copy(self, name: str = "basement", bucket: str = "images", domain: str = "hospital") -> LockedCopy:
        """Return the settings of a copy that lies here."""
        return LockedCopy(
            name,
            self.server.endpoint,
            bucket,
            f"file:{self.server.credentials}",
            domain,
            authority_file=str(self.server.authority),
            back_doors=self.server.back_doors,
        )

    def bucket(self, name: str, *, anonymous: bool = False, make: bool = True) -> Bucket:
        """Return a bucket of this server, made if it is missing."""
        known = None if anonymous else credentials.read(self.server.credentials)
        bucket = Bucket(self.server.endpoint, "us-east-1", name, known, self.server.authority)
        if make and not anonymous and not bucket.is_there():
            bucket.make()
        return bucket

    def start(self) -> None:
        """Start it, and wait until S3 answers."""
        self.process.start()
        end = time.monotonic() + BEGAN_S
        while True:
            with suppress(EndpointError):
                self.bucket("started", make=False).is_there()
                return
            assert time.monotonic() < end
            time.sleep(0.2)


def ours(folder: Path) -> Ours:
    """Set a lock server up by the command, and start it."""
    port = free_ports()
    command = [sys.executable, "-m", "site_node", "locked", "serve", str(folder), "--port", str(port)]
    started = Ours(
        LockServer(folder, "127.0.0.1", port), Process(command, folder.parent, port, folder.with_suffix(".log"))
    )
    started.start()
    return started


def moto(folder: Path) -> tuple[Process, Credentials]:
    """Start moto's server, a double that says yes to much."""
    assert MOTO.exists(), "run `make s3-double` first"
    port = free_ports()
    command = [str(MOTO), "-c", "from moto.server import main; main()", "-p", str(port)]
    process = Process(command, folder, port, folder / "moto.log")
    process.start()
    return process, Credentials("key", "secret")


def soft(folder: Path) -> tuple[Process, Credentials]:
    """Start SeaweedFS as it comes: with Object Lock, and with its back doors open."""
    port = free_ports()
    (folder / "data").mkdir()
    flags = {
        "dir": "data",
        "ip": "127.0.0.1",
        "ip.bind": "127.0.0.1",
        "s3": "true",
        "filer": "true",
        "s3.port": port,
        "master.port": port + 1,
        "volume.port": port + 2,
        "filer.port": port + 3,
        "master.telemetry": "false",
        "master.volumeSizeLimitMB": 64,
        "s3.port.iceberg": 0,
        "s3.port.lance": 0,
    }
    keys = {"AWS_ACCESS_KEY_ID": "key", "AWS_SECRET_ACCESS_KEY": "secret"}
    command = [WEED, "server", *(f"-{name}={value}" for name, value in flags.items())]
    process = Process(command, folder, port, folder / "soft.log", keys)
    process.start()
    return process, Credentials("key", "secret")


def answers(port: int) -> bool:
    """Return whether something listens on a port of this machine."""
    with closing(socket.socket()) as knocking:
        return knocking.connect_ex(("127.0.0.1", port)) == 0


def free_ports() -> int:
    """Return a port that is free with the three above it, and each of those plus SeaweedFS's distance to gRPC.

    All lie below the ports that Linux gives to connections (from 32768 on): one of those may be taken at any moment.
    """
    first, count = 12_000, 2_500
    for step in range(count):
        port = first + 4 * ((os.getpid() + step) % count)
        if not any(answers(port + each + above) for each in range(4) for above in (0, GRPC_OFFSET)):
            return port
    raise AssertionError("no port is free")


class Wire:
    """A line to a server that can be cut: bytes pass until so many went towards the client."""

    def __init__(self, port: int) -> None:
        self.cut_after: int | None = None
        self._server = port
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.port = int(self._listener.getsockname()[1])
        threading.Thread(target=self._serve, daemon=True).start()

    def close(self) -> None:
        """Take no more connections."""
        self._listener.close()

    def _serve(self) -> None:
        while True:
            try:
                client, _ = self._listener.accept()
            except OSError:
                return
            threading.Thread(target=self._join, args=(client,), daemon=True).start()

    def _join(self, client: socket.socket) -> None:
        with client, socket.create_connection(("127.0.0.1", self._server)) as server:
            sending = threading.Thread(target=self._pump, args=(client, server, None), daemon=True)
            sending.start()
            self._pump(server, client, self._passes)
            sending.join()

    def _passes(self, size: int) -> bool:
        if self.cut_after is not None:
            self.cut_after -= size
        return self.cut_after is None or self.cut_after >= 0

    @staticmethod
    def _pump(source: socket.socket, target: socket.socket, passes: Callable[[int], bool] | None) -> None:
        with suppress(OSError):
            while (content := source.recv(1 << 16)) and (passes is None or passes(len(content))):
                target.sendall(content)
        for end in (source, target):
            with suppress(OSError):
                end.shutdown(socket.SHUT_RDWR)

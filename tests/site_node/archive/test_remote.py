"""Snapshots in an S3 store: a real server, with what it asks for from a secret file or the environment."""

from __future__ import annotations

import os
import shutil
import socket
import subprocess
import sys
import time
from contextlib import closing, suppress
from pathlib import Path
from typing import TYPE_CHECKING

import psutil
import pytest

from tests.site_node.archive.test_snapshot import PROGRAM, below, run

if TYPE_CHECKING:
    from collections.abc import Iterator

    from tests.site_node.archive.conftest import Place

WEED = shutil.which("weed", path=f"{Path(sys.executable).parent}:{os.environ['PATH']}")
KEY, SECRET = "an-access-key", "a-secret-that-nobody-sees"
pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(shutil.which("restic") is None or WEED is None, reason="needs restic and SeaweedFS"),
]


class Server:
    """SeaweedFS, of which the S3 port is used."""

    def __init__(self, folder: Path, ports: list[int]) -> None:
        self.endpoint = f"http://127.0.0.1:{ports[0]}"
        names = ("s3.port", "filer.port", "master.port", "volume.port", "admin.port")
        grpc = [f"-{name}.grpc={port}" for name, port in zip(names[:4], ports[5:], strict=True)]
        plain = [f"-{name}={port}" for name, port in zip(names, ports, strict=False)]
        off = ["-webdav=false", "-admin.ui=false", "-s3.port.iceberg=0", "-s3.port.lance=0"]
        bind = [f"-dir={folder}", "-ip=127.0.0.1", "-ip.bind=127.0.0.1"]
        self._command = [str(WEED), "mini", *bind, *plain, *grpc, *off]
        self._folder = folder
        self._process: subprocess.Popen[bytes] | None = None

    def start(self) -> None:
        """Start it and wait until it answers."""
        self._folder.mkdir(exist_ok=True)
        env = {**os.environ, "AWS_ACCESS_KEY_ID": KEY, "AWS_SECRET_ACCESS_KEY": SECRET}
        with (self._folder.parent / "weed.log").open("ab") as log:
            self._process = subprocess.Popen(self._command, env=env, stdout=log, stderr=log, cwd=self._folder)
        host, port = self.endpoint.removeprefix("http://").split(":")
        until = time.monotonic() + 120
        while time.monotonic() < until:
            with suppress(OSError), closing(socket.create_connection((host, int(port)), 1)):
                time.sleep(2)  # it listens before its volumes are known
                return
            time.sleep(0.2)
        raise AssertionError("SeaweedFS does not start")

    def kill(self) -> None:
        """Take it away."""
        if self._process is not None:
            self._process.kill()
            self._process.wait()


@pytest.fixture
def server(tmp_path: Path) -> Iterator[Server]:
    """Yield an S3 server."""
    sockets = [socket.create_server(("127.0.0.1", 0)) for _ in range(9)]
    ports = [one.getsockname()[1] for one in sockets]
    for one in sockets:
        one.close()
    made = Server(tmp_path / "weed", ports)
    made.start()
    yield made
    made.kill()


def test_a_site_keeps_and_restores_in_a_store_that_asks_who_it_is(
    place: Place, server: Server, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in [name for name in os.environ if name.startswith("AWS_")]:
        monkeypatch.delenv(name)
    toml = place.home.root / "site.toml"
    toml.write_text(toml.read_text().replace(str(tmp_path / "repo"), f"s3:{server.endpoint}/vault/north"))
    refused = run(place, "init")
    assert refused.returncode == 1
    assert "restic init failed" in refused.stderr

    monkeypatch.setenv("AWS_ACCESS_KEY_ID", KEY)
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", SECRET)
    assert run(place, "init").returncode == 0
    monkeypatch.delenv("AWS_ACCESS_KEY_ID")
    monkeypatch.delenv("AWS_SECRET_ACCESS_KEY")
    settings = place.home.root / "archive" / "s3.env"
    settings.touch(0o600)
    settings.write_text(f"AWS_ACCESS_KEY_ID={KEY}\nAWS_SECRET_ACCESS_KEY={SECRET}\n")
    toml.write_text(toml.read_text() + f'settings_file = "{settings}"\n')
    seen: set[str] = set()
    process = psutil.Popen([PROGRAM, "--home", place.home.root, "archive", "snapshot"])
    while process.poll() is None:
        with suppress(psutil.Error):
            seen |= {" ".join(one.cmdline()) for one in process.children(recursive=True)}
        time.sleep(0.02)
    assert process.wait() == 0
    done = [run(place, "check"), run(place, "restore", tmp_path / "back", "--everything")]

    assert [one.returncode for one in done] == [0, 0], [one.stderr for one in done]
    assert below(tmp_path / "back" / "originals") == below(place.originals)
    assert any(" backup " in line for line in seen)
    assert not any(SECRET in line for line in (*seen, *(one.stdout + one.stderr for one in done)))
    kept = below(place.home.root)
    del kept["archive/s3.env"]
    assert not any(SECRET.encode() in content for content in kept.values())

    server.kill()
    gone = run(place, "snapshot")
    assert gone.returncode == 1
    assert "connection refused" in gone.stderr
    server.start()
    assert run(place, "snapshot").returncode == 0

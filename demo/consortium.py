"""A coordinator and its hospitals on this machine, driven only by the public commands.

What a person would type is what runs here; nothing is imported from the programs. Everything is written below one
folder, and no process outlives `stop`.
"""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
import time
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, Self, TypeAlias

import psutil

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

COMMANDS = Path(sys.executable).parent
STOP_S = 15.0


class CommandFailed(Exception):
    """A public command ended with an error; the message holds what it said."""

    def __init__(self, command: Sequence[str], code: int, said: str) -> None:
        super().__init__(f"{' '.join(command[:4])} …: exit code {code}\n{said}")
        self.code = code
        self.said = said


Setting: TypeAlias = str | int | float | list[str]


class Consortium:
    """Folders and processes of one federation."""

    def __init__(self, root: Path, federation: str, sites: Sequence[str]) -> None:
        self.root = root
        self.federation = federation
        self.sites = tuple(sites)
        self._running: dict[str, subprocess.Popen[bytes]] = {}

    def __enter__(self) -> Self:
        """Return the consortium; leaving the block stops every process."""
        return self

    def __exit__(self, *_: object) -> None:
        """Stop every process."""
        self.stop()

    def home(self, name: str) -> Path:
        """Return the folder of the coordinator or of a site."""
        return self.root / name

    def log(self, name: str) -> str:
        """Return what the coordinator or a site has printed so far."""
        return (self.root / f"{name}.log").read_text(errors="replace")

    def coordinator(self, *arguments: str) -> str:
        """Run `filmroom-coordinator` and return what it printed.

        Raises: CommandFailed.
        """
        return self._run("filmroom-coordinator", "coordinator", arguments)

    def site(self, name: str, *arguments: str, said: str = "") -> str:
        """Run `filmroom-site` for a site, with `said` on its standard input; return what it printed.

        Raises: CommandFailed.
        """
        return self._run("filmroom-site", name, arguments, said)

    def set_up_coordinator(self, settings: Mapping[str, Setting]) -> None:
        """Make the coordinator's folder with free ports and further settings."""
        fleet, join = free_ports(2)
        self.coordinator(
            "init", "--federation", self.federation,
            "--fleet-port", str(fleet), "--join-port", str(join),
        )  # fmt: skip
        _configure(self.home("coordinator") / "coordinator.toml", settings)

    def set_up_site(self, name: str, settings: Mapping[str, Setting]) -> None:
        """Make a site's folder, invite it and let it join."""
        self.site(name, "init", "--name", name)
        _configure(self.home(name) / "site.toml", settings)
        invitation = self.root / f"{name}.invitation.json"
        self.coordinator("members", "invite", name, "--to", str(invitation))
        self.site(name, "join", str(invitation))

    def start(self, name: str, *, until: str, timeout_s: float = 120.0) -> None:
        """Start the coordinator or a site node, and wait until it says `until`.

        Raises: CommandFailed if it ends before that, or does not say it in time.
        """
        program = "filmroom-coordinator" if name == "coordinator" else "filmroom-site"
        command = [str(COMMANDS / program), "--home", str(self.home(name)), "serve"]
        path = self.root / f"{name}.log"
        known = path.stat().st_size if path.exists() else 0
        with path.open("ab") as log:
            self._running[name] = subprocess.Popen(
                command, stdout=log, stderr=subprocess.STDOUT, stdin=subprocess.DEVNULL
            )
        end = time.monotonic() + timeout_s
        while until not in (said := path.read_bytes()[known:].decode(errors="replace")):
            ended = self._running[name].poll()
            if ended is not None or time.monotonic() > end:
                raise CommandFailed(command, ended or -1, said)
            time.sleep(0.05)

    def kill(self, name: str) -> None:
        """End a process with SIGKILL, as a power cut would."""
        process = self._running.pop(name)
        process.kill()
        process.wait()

    def pids(self) -> dict[str, list[int]]:
        """Return the process ids of each running program and of its children."""
        found = {}
        for name, process in list(self._running.items()):  # processes come and go meanwhile
            with suppress(psutil.NoSuchProcess):
                parent = psutil.Process(process.pid)
                found[name] = [
                    parent.pid,
                    *(child.pid for child in parent.children(recursive=True)),
                ]
        return found

    def stop(self) -> None:
        """Ask every process to end, wait, and kill what does not."""
        running, self._running = self._running, {}
        for name in sorted(running, key=lambda name: name == "coordinator"):
            running[name].send_signal(signal.SIGTERM)
        end = time.monotonic() + STOP_S
        for process in running.values():
            with suppress(subprocess.TimeoutExpired):
                process.wait(max(0.1, end - time.monotonic()))
            if process.poll() is None:
                process.kill()
                process.wait()

    def _run(self, program: str, name: str, arguments: Sequence[str], said: str = "") -> str:
        command = [str(COMMANDS / program), "--home", str(self.home(name)), *arguments]
        done = subprocess.run(command, input=said, capture_output=True, text=True, check=False, env=_environment())
        if done.returncode:
            raise CommandFailed(command, done.returncode, done.stdout + done.stderr)
        return done.stdout


def free_ports(count: int) -> list[int]:
    """Return ports of the loopback interface that nobody listens on now."""
    with _sockets(count) as sockets:
        return [one.getsockname()[1] for one in sockets]


class _sockets:  # noqa: N801 -- reads as a clause
    def __init__(self, count: int) -> None:
        self._sockets = [socket.socket() for _ in range(count)]

    def __enter__(self) -> list[socket.socket]:
        for one in self._sockets:
            one.bind(("127.0.0.1", 0))
        return self._sockets

    def __exit__(self, *_: object) -> None:
        for one in self._sockets:
            one.close()


def _configure(path: Path, settings: Mapping[str, Setting]) -> None:
    with path.open("a") as file:
        for key, value in settings.items():
            file.write(f"{key} = {value!r}\n" if not isinstance(value, str) else f'{key} = "{value}"\n')


def _environment() -> dict[str, str]:
    return {**os.environ, "COLUMNS": "200", "NO_COLOR": "1"}

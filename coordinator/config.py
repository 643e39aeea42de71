"""The coordinator's folder and its one TOML file, read once."""

from __future__ import annotations

import json
import math
import tomllib
from dataclasses import dataclass, fields
from typing import TYPE_CHECKING

from consent import COSIGNATURE, CheckpointInvalid, parse_verifier
from coordinator.errors import ConfigurationError

if TYPE_CHECKING:
    from pathlib import Path

CONFIG_NAME = "coordinator.toml"
# A site gives its request up after 40 s; the answer needs some of that for its way.
MAX_HOLD_S = 35.0
_TYPES = {"str": (str,), "int": (int,), "float": (int, float), "tuple[str, ...]": (list,)}


@dataclass(frozen=True, slots=True)
class CoordinatorConfig:
    """What the consortium decides; each field is described in docs/operating.md."""

    federation: str
    host: str = "127.0.0.1"
    fleet_port: int = 9443
    join_port: int = 9444
    hold_s: float = 20.0
    clock_skew_s: float = 30.0
    minimum_count: int = 16
    record_arrivals: str = ""
    release_window_s: float = 120.0
    allowed_policies: tuple[str, ...] = ()
    allowed_engines: tuple[str, ...] = ()
    witnesses: tuple[str, ...] = ()
    witness_urls: tuple[str, ...] = ()
    witness_quorum: int = 0

    def __post_init__(self) -> None:
        """Refuse values no coordinator may run with."""
        if not self.federation.replace("-", "_").isidentifier():
            raise ConfigurationError(f"federation: {self.federation!r} must be letters, digits, - and _")
        for key in ("hold_s", "clock_skew_s", "minimum_count", "release_window_s"):
            if not 0 < getattr(self, key) < math.inf:
                raise ConfigurationError(f"{key}: must be a number greater than 0")
        if self.hold_s > MAX_HOLD_S:
            raise ConfigurationError(f"hold_s: must be at most {MAX_HOLD_S:g}; a site hangs up soon after")
        self._check_witnesses()
        for key in ("fleet_port", "join_port"):
            if not 0 < getattr(self, key) < 2**16:
                raise ConfigurationError(f"{key}: must be a port from 1 to 65535")

    def _check_witnesses(self) -> None:
        try:
            names = {parse_verifier(witness, COSIGNATURE).name for witness in self.witnesses}
        except CheckpointInvalid as error:
            raise ConfigurationError("witnesses: one is not a verifier key of a witness") from error
        if len(names) < len(self.witnesses):
            raise ConfigurationError("witnesses: two have one name")
        if len(self.witness_urls) != len(names):
            raise ConfigurationError("witness_urls: one for each of the witnesses, in their order")
        if not all(url.startswith(("http://", "https://")) for url in self.witness_urls):
            raise ConfigurationError("witness_urls: each begins with https:// or http://")
        if not 0 <= self.witness_quorum <= len(names):
            raise ConfigurationError("witness_quorum: must be a number from 0 to that of the witnesses")

    @property
    def witness_addresses(self) -> dict[str, str]:
        """Where each witness listens, by its name."""
        names = (parse_verifier(witness, COSIGNATURE).name for witness in self.witnesses)
        return {name: url.rstrip("/") for name, url in zip(names, self.witness_urls, strict=True)}

    def as_toml(self) -> str:
        """Return the text of coordinator.toml; a setting that is as by default stands there as a comment."""
        lines = ["# A line that begins with # is the default; docs/operating.md says what each setting means."]
        for setting in fields(self):
            value = getattr(self, setting.name)
            line = f"{setting.name} = {json.dumps(value)}"  # JSON writes text and numbers as TOML does
            lines.append(f"# {line}" if value == setting.default else line)
        return "\n".join(lines) + "\n"


@dataclass(frozen=True, slots=True)
class CoordinatorHome:
    """The coordinator's folder; every path it writes lies below it."""

    root: Path

    @property
    def database(self) -> Path:
        """The coordinator's own SQLite file."""
        return self.root / "coordinator.db"

    @property
    def fleet_database(self) -> Path:
        """Flower's link state: nodes, messages, objects."""
        return self.root / "fleet.db"

    @property
    def keys(self) -> Path:
        """Authority and server keys, mode 0700."""
        return self.root / "keys"

    @property
    def runs(self) -> Path:
        """A folder per run: global models, updates of the open round, bundle."""
        return self.root / "runs"

    def load_config(self) -> CoordinatorConfig:
        """Read coordinator.toml.

        Raises: ConfigurationError naming the key that is unknown, missing or of the wrong type.
        """
        path = self.root / CONFIG_NAME
        try:
            document = tomllib.loads(path.read_text())
        except FileNotFoundError:
            raise ConfigurationError(
                f"{path} is missing: run `filmroom-coordinator init` or name the folder with --home"
            ) from None
        except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
            raise ConfigurationError(f"{path} is not TOML: {error}") from error
        return _parse(document)


def _parse(document: dict[str, object]) -> CoordinatorConfig:
    known = {field.name: str(field.type) for field in fields(CoordinatorConfig)}
    for key, value in document.items():
        if key not in known:
            raise ConfigurationError(f"{CONFIG_NAME}: unknown key {key!r}; known are {', '.join(known)}")
        if not isinstance(value, _TYPES[known[key]]) or isinstance(value, bool):
            raise ConfigurationError(f"{CONFIG_NAME}: {key}: expected {known[key]}")
        if isinstance(value, list) and not all(isinstance(one, str) for one in value):
            raise ConfigurationError(f"{CONFIG_NAME}: {key}: expected a list of texts")
    if "federation" not in document:
        raise ConfigurationError(f"{CONFIG_NAME}: key 'federation' is missing")
    values = {key: tuple(value) if isinstance(value, list) else value for key, value in document.items()}
    return CoordinatorConfig(**values)  # type: ignore[arg-type] # types were just checked

"""The coordinator's configuration: every wrong key is named and nothing starts with it."""

from __future__ import annotations

from dataclasses import asdict, fields
from typing import TYPE_CHECKING

import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from consent import witness_verifier
from coordinator.app import create_coordinator, open_coordinator
from coordinator.config import CONFIG_NAME, MAX_HOLD_S, CoordinatorConfig, CoordinatorHome
from coordinator.errors import ConfigurationError
from site_node.link import TIMEOUT_S

if TYPE_CHECKING:
    from pathlib import Path

WITNESS = witness_verifier("witness.example", Ed25519PrivateKey.from_private_bytes(bytes(32)).public_key()).text
WHOLE = {
    "federation": '"north-sea"',
    "host": '"coordinator.example"',
    "fleet_port": "1",
    "join_port": "65535",
    "hold_s": "5",
    "clock_skew_s": "0.5",
    "minimum_count": "4",
    "record_arrivals": '"arrivals"',
    "release_window_s": "60",
    "allowed_policies": '["one"]',
    "allowed_engines": '["two", "three"]',
    "witnesses": f'["{WITNESS}"]',
    "witness_urls": '["https://witness.example/"]',
    "witness_quorum": "1",
}


def load(folder: Path, lines: dict[str, str]) -> CoordinatorConfig:
    (folder / CONFIG_NAME).write_text("\n".join(f"{key} = {value}" for key, value in lines.items()))
    return CoordinatorHome(folder).load_config()


def test_every_key_is_read(tmp_path: Path) -> None:
    config = load(tmp_path, WHOLE)

    assert asdict(config) == {
        "federation": "north-sea",
        "host": "coordinator.example",
        "fleet_port": 1,
        "join_port": 65535,
        "hold_s": 5,
        "clock_skew_s": 0.5,
        "minimum_count": 4,
        "record_arrivals": "arrivals",
        "release_window_s": 60,
        "allowed_policies": ("one",),
        "allowed_engines": ("two", "three"),
        "witnesses": (WITNESS,),
        "witness_urls": ("https://witness.example/",),
        "witness_quorum": 1,
    }
    assert WHOLE.keys() == {field.name for field in fields(CoordinatorConfig)}


def test_the_federation_alone_is_enough(tmp_path: Path) -> None:
    assert load(tmp_path, {"federation": '"north-sea"'}) == CoordinatorConfig("north-sea")


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("federation", '""'),
        ("federation", '"north sea"'),
        ("federation", '"a/../b"'),
        ("federation", "7"),
        ("host", "7"),
        ("fleet_port", "0"),
        ("fleet_port", "-1"),
        ("join_port", "65536"),
        ("join_port", '"9444"'),
        ("join_port", "9444.0"),
        ("fleet_port", "true"),
        ("hold_s", "0"),
        ("hold_s", "nan"),
        ("hold_s", "inf"),
        ("hold_s", "35.001"),
        ("hold_s", "40"),
        ("clock_skew_s", "-1"),
        ("clock_skew_s", "nan"),
        ("clock_skew_s", "true"),
        ("minimum_count", "0"),
        ("minimum_count", "4.5"),
        ("record_arrivals", "true"),
        ("release_window_s", "0"),
        ("allowed_policies", '"one"'),
        ("allowed_engines", "[1]"),
        ("witnesses", '["no key"]'),
        ("witnesses", f'["{WITNESS}", "{WITNESS}"]'),
        ("witness_urls", "[]"),
        ("witness_urls", '["https://witness.example", "https://witness.example"]'),
        ("witness_urls", '["file:///etc/passwd"]'),
        ("witness_quorum", "-1"),
        ("witness_quorum", "2"),
        ("minimum_cuont", "4"),
    ],
)
def test_a_wrong_value_or_an_unknown_key_is_refused_by_name(tmp_path: Path, key: str, value: str) -> None:
    with pytest.raises(ConfigurationError, match=key):
        load(tmp_path, {**WHOLE, key: value})


def test_a_witness_listens_where_the_url_in_its_place_says(tmp_path: Path) -> None:
    assert load(tmp_path, WHOLE).witness_addresses == {"witness.example": "https://witness.example"}


def test_a_site_waits_longer_than_any_coordinator_holds_its_request(tmp_path: Path) -> None:
    assert load(tmp_path, {**WHOLE, "hold_s": str(MAX_HOLD_S)}).hold_s == MAX_HOLD_S < TIMEOUT_S


def test_a_missing_federation_is_named(tmp_path: Path) -> None:
    with pytest.raises(ConfigurationError, match="federation"):
        load(tmp_path, {"host": '"h"'})


@pytest.mark.parametrize("content", [b"federation =", b"federation = 'a'\nfederation = 'b'", b"\xff\xfe"])
def test_a_file_that_is_not_toml_is_refused(tmp_path: Path, content: bytes) -> None:
    (tmp_path / CONFIG_NAME).write_bytes(content)

    with pytest.raises(ConfigurationError, match="not TOML"):
        CoordinatorHome(tmp_path).load_config()


def test_a_folder_without_a_coordinator_says_how_to_make_one(tmp_path: Path) -> None:
    with pytest.raises(ConfigurationError, match="filmroom-coordinator init"):
        open_coordinator(tmp_path)


CONFIGURATIONS = [
    CoordinatorConfig("north-sea"),
    CoordinatorConfig("north-sea", "127.0.0.1", 9001, 9002),
    CoordinatorConfig("north-sea", "coordinator.example", 1, 65535, 5, 0.5, 4, 'a "folder" of \\ arrivals'),
]


@pytest.mark.parametrize("config", CONFIGURATIONS)
def test_a_new_coordinator_opens_with_the_configuration_it_was_made_with(
    tmp_path: Path, config: CoordinatorConfig
) -> None:
    create_coordinator(tmp_path / "home", config)

    assert open_coordinator(tmp_path / "home").config == config


@pytest.mark.parametrize("config", CONFIGURATIONS)
def test_the_file_of_a_new_coordinator_names_every_setting_once_and_each_can_be_made_active(
    tmp_path: Path, config: CoordinatorConfig
) -> None:
    create_coordinator(tmp_path / "home", config)

    lines = (tmp_path / "home" / CONFIG_NAME).read_text().splitlines()[1:]
    assert [line.removeprefix("# ").partition(" = ")[0] for line in lines] == list(WHOLE)
    assert load(tmp_path, dict(line.removeprefix("# ").split(" = ") for line in lines)) == config


def test_a_coordinator_is_not_made_over_another(tmp_path: Path) -> None:
    create_coordinator(tmp_path / "home", CoordinatorConfig("north-sea"))

    with pytest.raises(ConfigurationError, match="already"):
        create_coordinator(tmp_path / "home", CoordinatorConfig("south-sea"))

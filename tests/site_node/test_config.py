"""The site's one TOML file: every key checked, and a fault names its key."""

from __future__ import annotations

from dataclasses import fields
from typing import TYPE_CHECKING

import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from consent import witness_verifier
from site_node.config import CONFIG_NAME, SiteConfig, SiteHome
from site_node.errors import ConfigurationError

if TYPE_CHECKING:
    from pathlib import Path

NUMBERS = [field.name for field in fields(SiteConfig) if field.name not in {"name", "patient_system", "witness_quorum"}]
WITNESS = witness_verifier("witness.example", Ed25519PrivateKey.from_private_bytes(bytes(32)).public_key()).text


def load(root: Path, text: str) -> SiteConfig:
    (root / CONFIG_NAME).write_text(text)
    return SiteHome(root).load_config()


def test_the_name_is_enough(root: Path) -> None:
    assert load(root, 'name = "north"\n') == SiteConfig("north")


def test_every_key_is_read(root: Path) -> None:
    text = 'name="n"\nminimum_studies=3\nmax_consent_age_h=48.5\ntraining_threads=2\nabort_after_s=1\n'
    text += "clock_skew_s=2.5\n"

    assert load(root, text) == SiteConfig("n", 3, 48.5, 2, 1, 2.5)


def test_a_witness_is_known_by_its_key(root: Path) -> None:
    config = load(root, f'name = "north"\nwitnesses = ["{WITNESS}"]\nwitness_quorum = 1\n')

    assert [(one.name, one.text) for one in config.witness_verifiers] == [("witness.example", WITNESS)]


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("witnesses", '["no key"]'),
        ("witnesses", f'"{WITNESS}"'),
        ("witnesses", f'["{WITNESS}", "{WITNESS}"]'),
        ("witness_quorum", "-1"),
        ("witness_quorum", "2"),
        ("witness_quorum", "true"),
    ],
)
def test_wrong_witnesses_are_refused_by_name(root: Path, key: str, value: str) -> None:
    lines = {"name": '"north"', "witnesses": f'["{WITNESS}"]', "witness_quorum": "1", key: value}

    with pytest.raises(ConfigurationError, match=key):
        load(root, "".join(f"{name} = {text}\n" for name, text in lines.items()))


@pytest.mark.parametrize("key", NUMBERS)
@pytest.mark.parametrize("value", ["0", "-1", "true", '"2"', "nan", "inf", "[1]"])
def test_a_number_is_of_its_type_finite_and_positive(root: Path, key: str, value: str) -> None:
    with pytest.raises(ConfigurationError, match=f"^({CONFIG_NAME}: )?{key}: "):
        load(root, f'name = "north"\n{key} = {value}\n')


def test_the_patients_identifier_system_is_a_text(root: Path) -> None:
    assert load(root, 'name = "north"\npatient_system = "urn:hospital"\n').patient_system == "urn:hospital"
    with pytest.raises(ConfigurationError, match="patient_system: expected str"):
        load(root, 'name = "north"\npatient_system = 2\n')


def test_consents_older_than_a_year_are_no_choice(root: Path) -> None:
    with pytest.raises(ConfigurationError, match="max_consent_age_h: must be at most 8784"):
        load(root, 'name = "north"\nmax_consent_age_h = 8785\n')


def test_the_fhir_server_is_read_often_enough_to_be_recent(root: Path) -> None:
    told = 'name = "north"\nmax_consent_age_h = 2\n[consents]\nfhir_url = "https://fhir"\ninterval_min = {}\n'

    assert load(root, told.format(119)).consents.interval_min == 119
    for wrong, words in (("121", "longer than max_consent_age_h"), ("0", "greater than 0"), ("nan", "finite")):
        with pytest.raises(ConfigurationError, match=f"consents.interval_min: .*{words}"):
            load(root, told.format(wrong))
    with pytest.raises(ConfigurationError, match="consents: expected a table"):
        load(root, 'name = "north"\nconsents = 2\n')


@pytest.mark.parametrize("key", ["minimum_studies", "training_threads"])
def test_a_count_is_a_whole_number(root: Path, key: str) -> None:
    with pytest.raises(ConfigurationError, match=f"{key}: expected int"):
        load(root, f'name = "north"\n{key} = 1.5\n')


@pytest.mark.parametrize("name", ['""', '"two words"', '"../up"', "1"])
def test_a_name_is_one_word(root: Path, name: str) -> None:
    with pytest.raises(ConfigurationError, match="name: "):
        load(root, f"name = {name}\n")


def test_an_unknown_key_refuses_and_the_known_ones_are_told(root: Path) -> None:
    with pytest.raises(ConfigurationError, match=r"unknown key 'minimum_study'; known are .*minimum_studies"):
        load(root, 'name = "north"\nminimum_study = 3\n')


def test_a_missing_name_is_told(root: Path) -> None:
    with pytest.raises(ConfigurationError, match="key 'name' is missing"):
        load(root, "minimum_studies = 3\n")


def test_a_file_that_is_not_toml_is_told(root: Path) -> None:
    with pytest.raises(ConfigurationError, match="not TOML"):
        load(root, "name = north\n")
    (root / CONFIG_NAME).write_bytes(b'name = "\xff"\n')
    with pytest.raises(ConfigurationError, match="not TOML"):
        SiteHome(root).load_config()


def test_a_missing_file_says_what_to_do(root: Path) -> None:
    with pytest.raises(ConfigurationError, match="filmroom-site init"):
        SiteHome(root).load_config()


def test_a_site_without_membership_is_told_to_join(root: Path) -> None:
    with pytest.raises(ConfigurationError, match="filmroom-site join"):
        SiteHome(root).load_identity()

"""The papers tell the truth: lists in them are compared with the code."""

from __future__ import annotations

import json
import re
import tomllib
from dataclasses import fields
from pathlib import Path

import pytest
import rfc8785
import typer.main
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from securesystemslib.dsse import Envelope
from securesystemslib.signer import CryptoSigner  # type: ignore[attr-defined] # public name, listed without __all__

from consent import (
    ResearchPurpose,
    open_answer,
    open_receipt,
    open_statistics,
    parse_purpose,
    sign_answer,
    sign_receipt,
    sign_statistics,
)
from consent.statement import PAYLOAD_TYPE
from coordinator.api import JoinForm
from coordinator.config import CoordinatorConfig
from coordinator.receipt_keys import REFUSALS
from coordinator.statistics import CHECKS as STATISTICS_CHECKS
from coordinator.verification import CHECKS
from models import UpdateFault, parse_task
from site_node.archive.tiers.placement import MODES
from site_node.cli import app as filmroom_site
from site_node.config import ArchiveSettings, ConsentServer, DrillSettings, LockedCopies, LockedCopy, SiteConfig, Tiers
from site_node.deidentify.conformance import markdown
from site_node.deidentify.profile import Options
from site_node.membership import Invitation
from site_node.release import ABSTAIN, LEAVES
from site_node.rounds import Instruction

ROOT = Path(__file__).parents[1]


def _section(path: str, title: str) -> str:
    text = (ROOT / path).read_text()
    return text.partition(f"{title}\n")[2].partition("\n#")[0]


def test_the_readme_lists_exactly_what_leaves_the_hospital() -> None:
    bullets = re.findall(r"^- (.+)$", _section("README.md", "## What leaves the hospital"), re.MULTILINE)

    assert tuple(bullets) == LEAVES


@pytest.mark.parametrize(
    ("title", "kind"),
    [
        ("### site.toml", SiteConfig),
        ("### site.toml, [consents]", ConsentServer),
        ("### site.toml, [deidentify]", Options),
        ("### site.toml, [archive]", ArchiveSettings),
        ("### site.toml, [drills]", DrillSettings),
        ("### site.toml, [locked]", LockedCopies),
        ("### site.toml, [[locked.copies]]", LockedCopy),
        ("### site.toml, [tiers]", Tiers),
        ("### coordinator.toml", CoordinatorConfig),
    ],
)
def test_every_configuration_key_is_documented_with_its_default(
    title: str,
    kind: type[
        SiteConfig
        | ConsentServer
        | Options
        | ArchiveSettings
        | DrillSettings
        | LockedCopies
        | LockedCopy
        | Tiers
        | CoordinatorConfig
    ],
) -> None:
    rows = re.findall(r"^\| `(\w+)` \| ([^|]+) \|", _section("docs/operating.md", title), re.MULTILINE)
    expected = [(field.name, field.default) for field in fields(kind)]

    assert [key for key, _ in rows] == [name for name, _ in expected]
    for (_, told), (_, default) in zip(rows, expected, strict=True):
        meant = {"True": "true", "False": "false", "()": "[]"}.get(
            str(default), str(getattr(default, "value", default))
        )
        assert told.strip('" ') in {meant, "required", "table"}


def test_every_command_of_the_timers_is_one_with_these_options() -> None:
    lines = re.findall(r"\$FS (\w+) (\w+)([^\n]*)", _section("docs/operating.md", "## By a timer"))
    groups = typer.main.get_command(filmroom_site).commands  # type: ignore[attr-defined]

    assert len(lines) == 10
    for group, verb, rest in lines:
        known = {option for parameter in groups[group].commands[verb].params for option in parameter.opts}
        assert set(re.findall(r"(?<=\s)--[\w-]+", rest)) <= known, (group, verb)


def test_the_table_of_the_tiers_is_that_of_the_code() -> None:
    rows = re.findall(r"^\| `([\w-]+)` \|(.+)\|$", _section("docs/tiers.md", "## The modes"), re.MULTILINE)
    told = {mode: tuple(cell.strip() for cell in cells.split("|")) for mode, cells in rows if cells.count("|") == 5}

    assert told == {
        name: (
            mode.primary,
            mode.leaves.value,
            ", ".join(sorted(role.value for role in mode.demands)),
            str(mode.domains),
            ", ".join(role.value for role in mode.reads),
            "yes" if mode.stands_in else "no",
        )
        for name, mode in MODES.items()
    }


def test_the_conformance_statement_is_that_of_the_code() -> None:
    page = (ROOT / "docs" / "deidentification.md").read_text()

    assert page.partition("<!-- conformance -->\n")[2].partition("<!-- end -->")[0] == markdown()


def test_a_purpose_is_documented_with_every_fact_it_may_state() -> None:
    section = (ROOT / "docs" / "operating.md").read_text().partition("## Access of projects\n")[2].partition("\n## ")[0]
    example = section.partition("```json\n")[2].partition("```")[0]

    assert parse_purpose(example.encode()).will_publish
    named = set(json.loads(example)) | set(re.findall(r"`(\w+)`", section))
    assert {fact.name for fact in fields(ResearchPurpose)} <= named


def test_the_protocol_names_every_refusal_and_no_other() -> None:
    tables = re.findall(r"^\|[^|]+\|([^|]+)\|$", (ROOT / "docs" / "protocol.md").read_text(), re.MULTILINE)
    named = {name for cell in tables for name in re.findall(r"`([a-z]+(?:-[a-z]+)+)`", cell)}
    receipt = {f"receipt-{why}" for why in ("too-large", "malformed", "wrong-type", "bad-signature", "bad-statement")}
    faults = {str(fault) for fault in UpdateFault if "-" in fault}
    statistics = {why.replace("receipt", "statistics") for why in receipt} | STATISTICS_CHECKS.keys()

    notice = {f"notice-{why}" for why in ("malformed", "wrong-type", "bad-signature", "bad-statement")}

    answer = {"too-large", "wrong-type", "bad-statement", "bad-signature", "not-certified", "not-in-time", "wrong-kind"}

    assert named == {
        *CHECKS,
        *answer,
        *receipt,
        *notice,
        *faults,
        *statistics,
        *REFUSALS,
        "update-differs-from-receipt",
        "checkpoint-not-signed",
    }


def _example(title: str) -> str:
    page = (ROOT / "docs" / "protocol.md").read_text()
    return page.partition(f"\n## {title}")[2].partition("```json\n")[2].partition("```")[0]


def test_the_examples_of_the_protocol_are_what_the_programs_read() -> None:
    Invitation.model_validate_json(_example("Invitation"))
    JoinForm.model_validate_json(_example("Join"))
    parse_task(_example("Partner").encode())
    Instruction.model_validate(json.loads(_example("Instruction")))

    assert f'"code": {ABSTAIN}' in (ROOT / "docs" / "protocol.md").read_text()


def test_the_receipt_of_the_protocol_is_one_a_site_signs() -> None:
    key = Ed25519PrivateKey.generate()
    envelope = Envelope(rfc8785.dumps(json.loads(_example("Receipt"))), PAYLOAD_TYPE, {})
    envelope.sign(CryptoSigner(key))
    signed = rfc8785.dumps(envelope.to_dict())

    assert sign_receipt(open_receipt(signed, key.public_key()), key) == signed


def test_the_statistics_of_the_protocol_are_some_a_site_signs() -> None:
    key = Ed25519PrivateKey.generate()
    envelope = Envelope(rfc8785.dumps(json.loads(_example("Statistics"))), PAYLOAD_TYPE, {})
    envelope.sign(CryptoSigner(key))
    signed = rfc8785.dumps(envelope.to_dict())

    assert sign_statistics(open_statistics(signed, key.public_key()), key) == signed


def test_the_answer_to_a_withdrawal_of_the_protocol_is_one_a_coordinator_signs() -> None:
    key = Ed25519PrivateKey.generate()
    envelope = Envelope(rfc8785.dumps(json.loads(_example("Withdrawal"))), PAYLOAD_TYPE, {})
    envelope.sign(CryptoSigner(key))
    signed = rfc8785.dumps(envelope.to_dict())

    assert sign_answer(open_answer(signed, key.public_key()), key) == signed


def test_every_dependency_is_argued_in_a_decision() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    wanted = [*project["dependencies"], *(d for extra in project["optional-dependencies"].values() for d in extra)]
    names = {re.split(r"[\[<>=]", requirement)[0] for requirement in wanted}
    text = (ROOT / "docs" / "adr" / "0008-dependencies.md").read_text()

    assert {name for name in names if f"| {name} |" not in text} == set()


@pytest.mark.parametrize("path", sorted((ROOT / "docs" / "adr").glob("*.md")), ids=lambda path: path.stem)
def test_a_decision_says_context_options_choice_and_consequences(path: Path) -> None:
    text = path.read_text()

    assert [head for head in ("Context", "Options", "Choice", "Consequences") if f"**{head}.**" not in text] == []


@pytest.mark.parametrize(
    "page",
    [
        "README.md",
        "ARCHITECTURE.md",
        *(
            f"docs/{p}.md"
            for p in (
                "archive",
                "deidentification",
                "demo",
                "drills",
                "locked-copies",
                "protocol",
                "records",
                "threat-model",
            )
        ),
        "docs/withdrawal.md",
    ],
)
def test_what_a_page_points_at_exists(page: str) -> None:
    text = (ROOT / page).read_text()
    links = re.findall(r"\]\(([^)#:]+)\)", text)
    files = re.findall(r"`((?:site_node|coordinator|consent|models|tests|docs)/[\w/.-]+)`", text)
    base = (ROOT / page).parent

    missing = [link for link in links if not (base / link).exists()]
    missing += [file for file in files if not (ROOT / file).exists()]

    assert missing == []

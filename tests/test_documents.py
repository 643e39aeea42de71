"""The papers tell the truth: lists in them are compared with the code."""

from __future__ import annotations

import re
import tomllib
from dataclasses import fields
from pathlib import Path

import pytest

from coordinator.config import CoordinatorConfig
from coordinator.verification import CHECKS
from site_node.config import SiteConfig
from site_node.release import LEAVES

ROOT = Path(__file__).parents[1]


def _section(path: str, title: str) -> str:
    text = (ROOT / path).read_text()
    return text.partition(f"{title}\n")[2].partition("\n#")[0]


def test_the_readme_lists_exactly_what_leaves_the_hospital() -> None:
    bullets = re.findall(r"^- (.+)$", _section("README.md", "## What leaves the hospital"), re.MULTILINE)

    assert tuple(bullets) == LEAVES


@pytest.mark.parametrize(
    ("title", "kind"), [("### site.toml", SiteConfig), ("### coordinator.toml", CoordinatorConfig)]
)
def test_every_configuration_key_is_documented_with_its_default(
    title: str, kind: type[SiteConfig | CoordinatorConfig]
) -> None:
    rows = re.findall(r"^\| `(\w+)` \| ([^|]+) \|", _section("docs/operating.md", title), re.MULTILINE)
    expected = [(field.name, field.default) for field in fields(kind)]

    assert [key for key, _ in rows] == [name for name, _ in expected]
    for (_, told), (_, default) in zip(rows, expected, strict=True):
        assert told.strip('" ') in {str(default), "required"}


def test_every_refusal_is_in_the_protocol() -> None:
    text = (ROOT / "docs" / "protocol.md").read_text()

    assert [reason for reason in CHECKS if f"`{reason}`" not in text] == []


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


@pytest.mark.parametrize("page", ["README.md", "ARCHITECTURE.md", *(f"docs/{p}.md" for p in ("demo", "protocol"))])
def test_what_a_page_points_at_exists(page: str) -> None:
    text = (ROOT / page).read_text()
    links = re.findall(r"\]\(([^)#:]+)\)", text)
    files = re.findall(r"`((?:site_node|coordinator|consent|models|tests|docs)/[\w/.-]+)`", text)
    base = (ROOT / page).parent

    missing = [link for link in links if not (base / link).exists()]
    missing += [file for file in files if not (ROOT / file).exists()]

    assert missing == []

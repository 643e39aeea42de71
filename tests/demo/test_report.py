"""The report is one well-formed page that holds what it must and loads nothing."""

from __future__ import annotations

import base64
import re
from dataclasses import replace
from html.parser import HTMLParser
from typing import TYPE_CHECKING
from xml.etree import ElementTree as ET

import pytest

from demo.report import final_dice, render, write_report
from tests.demo.sample import sample_results

if TYPE_CHECKING:
    from pathlib import Path

VOID = frozenset({"meta", "img", "link", "br"})


class Page(HTMLParser):
    """Reads a page and complains about tags that are not closed in their order."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.open: list[str] = []
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.text = ""
        self.cells: list[list[str]] = []
        self.feed(text)
        self.close()
        assert self.open == []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        """Keep the tag and its attributes."""
        self.tags.append((tag, dict(attrs)))
        if tag == "tr":
            self.cells.append([])
        if tag in ("td", "th"):
            self.cells[-1].append("")
        if tag not in VOID:
            self.open.append(tag)

    def handle_endtag(self, tag: str) -> None:
        """Check that it closes what was opened last."""
        assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        """Keep what a person reads."""
        if "style" not in self.open:
            self.text += data
        if {"td", "th"} & set(self.open):
            self.cells[-1][-1] += data

    def all(self, tag: str) -> list[dict[str, str | None]]:
        """Give the attributes of every `tag`."""
        return [attributes for name, attributes in self.tags if name == tag]


@pytest.fixture(scope="module")
def text() -> str:
    return render(sample_results())


@pytest.fixture(scope="module")
def page(text: str) -> Page:
    return Page(text)


def test_the_page_is_one_file(tmp_path: Path, text: str) -> None:
    path = write_report(sample_results(), tmp_path / "out")

    assert path.read_text(encoding="utf-8") == text
    assert [each.name for each in path.parent.iterdir()] == ["report.html"]


def test_nothing_is_loaded_and_nothing_runs(page: Page, text: str) -> None:
    names = {tag for tag, _ in page.tags}
    attributes = {name for _, found in page.tags for name in found}

    assert not names & {"script", "link", "iframe", "object", "form"}
    assert not any(name.startswith("on") for name in attributes)
    assert all((image["src"] or "").startswith("data:image/") for image in page.all("img"))
    assert "url(" not in text
    assert "@import" not in text


def test_the_curves_are_a_drawing_without_references_elsewhere(page: Page) -> None:
    source = page.all("img")[0]["src"] or ""
    kind, _, content = source.partition(";base64,")
    drawing = ET.fromstring(base64.b64decode(content))  # noqa: S314 -- made by this test
    links = [value for node in drawing.iter() for key, value in node.attrib.items() if key.endswith("href")]

    assert kind == "data:image/svg+xml"
    assert all(link.startswith("#") for link in links)


def test_every_picture_is_told_in_words_and_every_table_has_heads(page: Page) -> None:
    assert len(page.all("img")) == 3
    assert all(len(image["alt"] or "") > 40 for image in page.all("img"))
    assert len(page.all("caption")) == len(page.all("table"))
    assert {head["scope"] for head in page.all("th")} == {"col", "row"}
    assert page.all("html")[0]["lang"] == "en"


def test_ids_are_unique_and_every_section_is_named_by_its_heading(page: Page) -> None:
    ids = [found["id"] for _, found in page.tags if "id" in found]

    assert len(ids) == len(set(ids)) == len(page.all("section"))
    assert [found["aria-labelledby"] for found in page.all("section")] == ids


def test_it_says_that_the_anatomy_is_real_and_the_rest_invented(page: Page) -> None:
    assert "MNI152" in page.text
    assert "No real person is shown" in page.text


def test_the_headlines_come_from_the_results(page: Page) -> None:
    for headline in ("0.900", "+0.150", "10 of 14", "2 of 4", "1 of 2", "22 of 24", "96 s"):
        assert headline in page.text
    assert {"bad"} == {found.get("class") for found in page.all("li")} - {None}


def test_each_hospital_stands_in_each_table_of_hospitals(page: Page) -> None:
    rows = page.cells

    assert ["Eastmere <Hospital> & Sons alone", "0.700", "0.700", "0.700"] in rows
    assert ["out", "the consent has expired", "2", "2"] in rows
    assert ["held", "may-carry-burned-in-text", "2", "2"] in rows
    assert ["all files", "in the inbox and not accounted for", "1", "1"] in rows
    assert ["expired", "no-consent", "1 of 2", "1 of 2", "✗ no"] in rows
    assert ["deny", "deny", "1 of 1", "1 of 1", "✓ yes"] in rows


def test_participation_is_told_by_word_and_sign(page: Page) -> None:
    assert [
        "Northgate Infirmary",
        "● trained",
        "◐ abstainedconsent withdrawn while training",
    ] in page.cells
    assert ["Eastmere <Hospital> & Sons", "○ offline", "● trained"] in page.cells


def test_a_failed_invariant_and_a_hit_are_shown_as_such(page: Page) -> None:
    found = sample_results()
    leaked = Page(render(replace(found, search=replace(found.search, pixel_hits=3))))

    assert ["A withdrawn consent stops training", "✗ no", "A patient withdrew in round 2"] in page.cells
    assert "3 runs of pixels" in leaked.text
    assert len([item for item in leaked.all("li") if item.get("class") == "bad"]) == 2


def test_names_are_shown_as_text_and_never_as_markup(text: str) -> None:
    assert "<Hospital>" not in text
    assert "Eastmere &lt;Hospital&gt; &amp; Sons" in text


def test_a_run_without_comparisons_or_pictures_is_shown_as_well() -> None:
    found = sample_results()
    bare = replace(
        found,
        curves=(),
        participation=(),
        hospitals=tuple(replace(hospital, pictures=()) for hospital in found.hospitals),
    )

    assert "n/a" in Page(render(bare)).text
    assert final_dice(bare, "federated") is None


def test_the_same_results_give_the_same_page(text: str) -> None:
    assert render(sample_results()) == text


def contrast(first: str, second: str) -> float:
    """Give the contrast ratio of two colours (WCAG 2.2)."""
    lights = sorted(map(luminance, (first, second)))
    return (lights[1] + 0.05) / (lights[0] + 0.05)


def luminance(colour: str) -> float:
    parts = [int(colour[place : place + 2], 16) / 255 for place in (1, 3, 5)]
    linear = [part / 12.92 if part <= 0.04045 else ((part + 0.055) / 1.055) ** 2.4 for part in parts]
    return 0.2126 * linear[0] + 0.7152 * linear[1] + 0.0722 * linear[2]


def test_text_has_the_contrast_of_wcag_aa(text: str) -> None:
    colours = dict(re.findall(r"--(\w+): (#[0-9a-f]{6})", text))
    cells = re.findall(r"\.(trained|abstained|offline|rejected) { background: (#[0-9a-f]{6})", text)

    assert len(cells) == 4
    for name in ("ink", "soft", "good", "bad", "deep"):
        assert contrast(colours[name], "#ffffff") >= 4.5, name
    for _, background in cells:
        assert contrast(colours["ink"], background) >= 4.5
        assert contrast(colours["soft"], background) >= 4.5
    assert contrast("#e3edf5", colours["deep"]) >= 4.5

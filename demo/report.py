"""One self-contained HTML page that shows what a demo run did.

It shows what `demo.results` holds and judges nothing; there are no scripts, and nothing is loaded.
"""

from __future__ import annotations

from html import escape
from pathlib import Path
from statistics import fmean
from typing import TYPE_CHECKING, Final

import numpy as np

from demo.figures import (
    LABEL_COLOURS,
    WRONG,
    Emphasis,
    Line,
    Panel,
    learning_curves,
    tissue_pictures,
)
from demo.markup import Cell, Row, figure, heading, number, paragraph, section, table, verdict

if TYPE_CHECKING:
    from collections.abc import Sequence

    from demo.results import Count, Curve, HospitalResult, Participation, Picture, Results

FEDERATED: Final = "federated"
POOLED: Final = "pooled"

_STYLE: Final = Path(__file__).with_name("report.css")
_MARKS: Final = {"trained": "●", "abstained": "◐", "offline": "○", "rejected": "✕"}
_ONLY_HERE: Final = (
    "Pictures of patients, and models trained on pooled images, exist on this page because the demo"
    " plays every hospital on one machine. In a federation nobody could make them."
)


def write_report(results: Results, folder: Path) -> Path:
    """Write `report.html` into `folder` and give its path."""
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / "report.html"
    path.write_text(render(results), encoding="utf-8")
    return path


def render(results: Results) -> str:
    """Give the page as HTML."""
    sections = (
        _headlines(results),
        _learning(results),
        _pictures(results),
        _participation(results),
        _consent(results),
        _intake(results),
        _checks(results),
        _times(results),
        _provenance(results),
    )
    title = escape(results.task_title)
    return "\n".join(
        (
            '<!DOCTYPE html>\n<html lang="en">\n<head>\n<meta charset="utf-8">',
            '<meta name="viewport" content="width=device-width, initial-scale=1">',
            f"<title>Filmroom demo: {title}</title>",
            f"<style>\n{_STYLE.read_text(encoding='utf-8')}</style>\n</head>\n<body>",
            f"<header>\n<h1>{title}</h1>",
            paragraph(
                f"{len(results.hospitals)} hospitals trained one model in {results.rounds} rounds."
                " Images stayed where they were; every use was checked against consent, before"
                " training and again before anything left."
            ),
            "</header>\n<main>",
            *sections,
            f"<footer>{paragraph(f'Filmroom demo, made {results.made_at}.')}</footer>",
            "</main>\n</body>\n</html>\n",
        )
    )


def final_dice(results: Results, trained_on: str) -> float | None:
    """Give a model's last mean Dice, averaged over the hospitals it was scored at."""
    last = [curve.scores[-1].dice for curve in results.curves if curve.trained_on == trained_on and curve.scores]
    return fmean(last) if last else None


def _headlines(results: Results) -> str:
    federated = final_dice(results, FEDERATED)
    alone = [score for hospital in results.hospitals if (score := final_dice(results, hospital.name)) is not None]
    found = results.search.planted_hits + results.search.pixel_hits
    trained = sum(each.state == "trained" for each in results.participation)
    held = sum(check.held for check in results.checks)
    studies = [count for hospital in results.hospitals for count in hospital.eligibility]
    used = sum(count.count for count in studies if count.outcome == "in")
    items = (
        _headline(_dice(federated), "mean Dice of the federated model over all hospitals"),
        _headline(
            f"{federated - fmean(alone):+.3f}" if federated is not None and alone else "n/a",
            "against the average hospital training alone, on the same patients",
        ),
        _headline(
            f"{used} of {sum(count.count for count in studies)}",
            "labelled studies usable under the patients' consents",
        ),
        _headline(
            str(found),
            f"identities or pixel runs found in the {_size(results.search.bytes)} that left",
            bad=found > 0,
        ),
        _headline(f"{trained} of {len(results.participation)}", "contributions trained and accepted"),
        _headline(
            f"{held} of {len(results.checks)}",
            "invariants checked and held",
            bad=held < len(results.checks),
        ),
        _headline(
            f"{_counted(results):,} of {sum(each.files for each in results.hospitals):,}",
            "files that came in are accounted for",
        ),
        _headline(f"{results.wall_s:.0f} s", f"from empty folders to this page; {results.cpu_s:.0f} s CPU"),
    )
    return f'<ul class="headlines">\n{"".join(items)}</ul>'


def _headline(value: str, meaning: str, *, bad: bool = False) -> str:
    kind = ' class="bad"' if bad else ""
    return f"<li{kind}><strong>{escape(value)}</strong><span>{escape(meaning)}</span></li>\n"


def _learning(results: Results) -> str:
    panels = [_panel(results, hospital) for hospital in results.hospitals]
    words = "; ".join(
        f"{hospital.title}: {_dice(_last(results, FEDERATED, hospital.name))}" for hospital in results.hospitals
    )
    return section(
        "learning",
        "What was learned",
        paragraph(
            "Each panel scores models on the held-out patients of one hospital. “Alone here” was"
            " trained at that hospital only, “alone elsewhere” at one of the others, “pooled” on"
            " all images in one place; all saw the same number of epochs."
        ),
        figure(
            learning_curves(panels),
            f"Learning curves, one panel a hospital. Final federated Dice: {words}.",
            "Dice is the overlap of found and true tissue: 1 is perfect, 0 is none.",
        ),
        _transfer(results),
        _by_label(results),
    )


def _panel(results: Results, hospital: HospitalResult) -> Panel:
    curves = [curve for curve in results.curves if curve.held_out_at == hospital.name]
    lines = [Line(_emphasis(curve, hospital), tuple(score.dice for score in curve.scores)) for curve in curves]
    return Panel(hospital.title, tuple(lines))


def _emphasis(curve: Curve, hospital: HospitalResult) -> Emphasis:
    named: dict[str, Emphasis] = {
        FEDERATED: "federated",
        POOLED: "pooled",
        hospital.name: "alone here",
    }
    return named.get(curve.trained_on, "alone elsewhere")


def _transfer(results: Results) -> str:
    """Give the final score of every model at every hospital."""
    places = [hospital.name for hospital in results.hospitals]
    models = [
        (FEDERATED, "all, federated"),
        (POOLED, "all, pooled"),
        *((hospital.name, f"{hospital.title} alone") for hospital in results.hospitals),
    ]
    rows: list[Row] = []
    for model, title in models:
        scores = [_last(results, model, place) for place in places]
        kind = "number best" if model == FEDERATED else "number"
        mean = final_dice(results, model)
        rows.append([title, *(Cell(_dice(score), kind) for score in (*scores, mean))])
    return table(
        "Final mean Dice: trained on (rows), held-out patients of (columns)",
        ["Trained on", *_places(results), Cell("All", "number")],
        rows,
    )


def _by_label(results: Results) -> str:
    rows: list[Row] = [
        [hospital.title, *(number(score, 3) for score in curve.scores[-1].by_label)]
        for hospital in results.hospitals
        for curve in results.curves
        if (curve.trained_on, curve.held_out_at) == (FEDERATED, hospital.name) and curve.scores
    ]
    heads = [Cell(label.capitalize(), "number") for label in results.labels]
    return table("Final Dice of the federated model by tissue", ["Hospital", *heads], rows)


def _pictures(results: Results) -> str:
    keys = [
        f'<span class="key" style="background:{colour}"></span>{escape(label)}'
        for colour, label in zip(LABEL_COLOURS, results.labels, strict=False)
    ]
    keys.append(f'<span class="key" style="background:{WRONG}"></span>where they differ')
    shown = [
        part
        for hospital in results.hospitals
        if hospital.pictures
        for part in (
            heading(hospital.title),
            '<div class="pictures">',
            *map(_picture, hospital.pictures),
            "</div>",
        )
    ]
    return section(
        "pictures",
        "What the model sees",
        paragraph(results.told, "honest"),
        paragraph(_ONLY_HERE),
        f"<p>{''.join(keys)}</p>",
        paragraph("From left to right: image, true tissues, federated model, difference."),
        *shown,
    )


def _picture(picture: Picture) -> str:
    image, truth, predicted = (np.array(rows, np.uint8) for rows in (picture.image, picture.truth, picture.predicted))
    agree = np.mean(truth == predicted)
    alt = (
        "An axial brain slice; the same with true tissues, with the tissues the federated model"
        f" found, and with the pixels where they differ: {1 - agree:.1%} of the slice."
    )
    url = tissue_pictures(image, truth, predicted)
    return figure(url, alt, f"{picture.caption} ({agree:.1%} of pixels agree)", "picture")


def _participation(results: Results) -> str:
    by_place = {(each.round, each.hospital): each for each in results.participation}
    rounds = sorted({each.round for each in results.participation})
    rows: list[Row] = [
        [
            hospital.title,
            *(_took_part(by_place.get((each, hospital.name))) for each in rounds),
        ]
        for hospital in results.hospitals
    ]
    return section(
        "participation",
        "Who took part",
        paragraph(
            "A hospital trains, abstains because too few studies are permitted or a permission"
            " fell away while it trained, or is offline. A round needs its quorum and says so when"
            " it misses it."
        ),
        table("Participation by round", ["Hospital", *(f"Round {each}" for each in rounds)], rows),
    )


def _took_part(each: Participation | None) -> Cell:
    if each is None:
        return Cell("n/a")
    return Cell(f"{_MARKS[each.state]} {each.state}", each.state, each.note)


def _consent(results: Results) -> str:
    return section(
        "consent",
        "Why each study is in or out",
        paragraph("Counts only, as each hospital sees them; none of this leaves a hospital."),
        table(
            "Labelled studies by decision",
            ["Study is", "Reason", *_places(results)],
            _side_by_side([hospital.eligibility for hospital in results.hospitals]),
        ),
        _expected(results),
    )


def _expected(results: Results) -> str:
    """Give, for each kind of planted consent, how many patients of how many came out right."""
    kinds = list(dict.fromkeys(kind for h in results.hospitals for kind in _kinds(h)))
    rows: list[Row] = []
    for kind, expected in kinds:
        found = [_kinds(hospital).get((kind, expected), (0, 0)) for hospital in results.hospitals]
        counts = [Cell(f"{right} of {patients}", "number") for right, patients in found]
        held = all(right == patients for right, patients in found)
        rows.append([kind, expected, *counts, verdict(held=held)])
    return table(
        "Planted consents: how many patients were decided as expected",
        ["Kind of consent", "Expected", *_places(results), "Holds"],
        rows,
    )


def _kinds(hospital: HospitalResult) -> dict[tuple[str, str], tuple[int, int]]:
    return {(each.kind, each.expected): (each.as_expected, each.patients) for each in hospital.consents}


def _intake(results: Results) -> str:
    totals = [sum(each.count for each in hospital.intake) for hospital in results.hospitals]
    missing = [h.files - total for h, total in zip(results.hospitals, totals, strict=True)]
    rows: list[Row] = [
        *_side_by_side([hospital.intake for hospital in results.hospitals]),
        ["all files", "sum of the above", *map(number, totals)],
        ["all files", "in the inbox and not accounted for", *map(number, missing)],
    ]
    return section(
        "intake",
        "What came in",
        paragraph(
            "Virtual patients, real public test files of many kinds, and broken files. What cannot"
            " be read is quarantined; what may show a person waits for one to look at it."
        ),
        table("Files by outcome", ["Outcome", "Reason", *_places(results)], rows),
    )


def _places(results: Results) -> list[Cell]:
    return [Cell(hospital.title, "number") for hospital in results.hospitals]


def _side_by_side(counts: Sequence[Sequence[Count]]) -> list[Row]:
    """Give a row for each outcome and reason, with the count of each hospital."""
    by_place = [{(each.outcome, each.reason): each.count for each in place} for place in counts]
    keys = dict.fromkeys(key for place in by_place for key in place)
    outcomes = list(dict.fromkeys(outcome for outcome, _ in keys))
    ordered = sorted(keys, key=lambda key: outcomes.index(key[0]))
    return [[*key, *(number(place.get(key, 0)) for place in by_place)] for key in ordered]


def _counted(results: Results) -> int:
    return sum(each.count for hospital in results.hospitals for each in hospital.intake)


def _checks(results: Results) -> str:
    search = results.search
    rows: list[Row] = [[check.invariant, verdict(held=check.held), check.how] for check in results.checks]
    return section(
        "checks",
        "What was checked",
        table("Invariants", ["Invariant", "Held", "How it was checked"], rows),
        paragraph(
            f"All {search.bodies:,} messages ({_size(search.bytes)}) that left the hospitals were"
            f" searched byte by byte for {search.planted:,} planted identities, as text, hexadecimal"
            f" and Base64, and for the pixels of {search.images:,} images. Found:"
            f" {search.planted_hits} identities and {search.pixel_hits} runs of pixels."
        ),
    )


def _times(results: Results) -> str:
    rows: list[Row] = [
        [
            f"Round {each.round}",
            number(each.wall_s, 1),
            number(each.cpu_s, 1),
            number(each.training_s, 1),
            number(each.gate_ms, 1),
            number(each.receipt_ms, 1),
        ]
        for each in results.times
    ]
    heads = ("Wall clock, s", "CPU, s", "Training, s", "Consent gate, ms", "Receipt, ms")
    return section(
        "times",
        "How long it took",
        paragraph("CPU is of all processes together. Training, gate and receipt are the slowest hospital's."),
        table("Times by round", ["Round", *(Cell(head, "number") for head in heads)], rows),
    )


def _provenance(results: Results) -> str:
    rows: list[Row] = [[each.what, Cell(each.sha256, "digest")] for each in results.provenance]
    return section(
        "provenance",
        "Where the model comes from",
        paragraph("SHA-256 digests; the same stand in the run's provenance record and receipts."),
        table("Digests", ["What", "SHA-256"], rows),
        table("Software", ["Package", "Version"], results.software),
    )


def _last(results: Results, trained_on: str, held_out_at: str) -> float | None:
    for curve in results.curves:
        if (curve.trained_on, curve.held_out_at) == (trained_on, held_out_at) and curve.scores:
            return curve.scores[-1].dice
    return None


def _dice(score: float | None) -> str:
    return "n/a" if score is None else f"{score:.3f}"


def _size(count: int) -> str:
    units = ("bytes", "KiB", "MiB", "GiB")
    size, unit = float(count), 0
    while size >= 1024 and unit < len(units) - 1:  # noqa: PLR2004 -- bytes in a kilobyte
        size, unit = size / 1024, unit + 1
    return f"{size:,.0f} {units[unit]}" if unit == 0 else f"{size:,.1f} {units[unit]}"

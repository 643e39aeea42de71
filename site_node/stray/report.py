"""The report as one page of HTML without outside parts, to read and to print: by risk, owner and place, with the trend.

Shows masked places and digests, and pictures too coarse to read; no value.
"""

from __future__ import annotations

import base64
import hashlib
from collections import Counter
from pathlib import Path
from typing import TYPE_CHECKING, Any

from jinja2 import Environment, FileSystemLoader, StrictUndefined
from markupsafe import Markup

from site_node.stray import actions, records
from site_node.stray.finding import Confidence, Risk

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence
    from datetime import datetime

    import sqlalchemy as sa

    from site_node.stray.records import File

_HERE = Path(__file__).parent
MOST = 200  # files that are drawn
_UNREAD, _DECIDED, _SCANS = 500, 200, 30
_WIDTH, _HEIGHT, _LEFT, _FOOT, _HEAD = 560, 150, 40, 22, 10
_WORDS = tuple(risk.word for risk in sorted(Risk, reverse=True))
_COUNTS = {**{word: word for word in _WORDS}, "not_scanned": "not looked at"}
"""What is drawn of a scan, and its name: few findings say little where many files were not looked at."""


def page(db: sa.Connection, site: str, at: datetime) -> str:
    """Return the report of a site, HTML."""
    environment = Environment(
        loader=FileSystemLoader(_HERE), autoescape=True, undefined=StrictUndefined, trim_blocks=True
    )
    style = (_HERE / "report.css").read_text(encoding="utf-8")
    digest = base64.b64encode(hashlib.sha256(style.encode()).digest()).decode()
    found = list(records.files(db))
    files = [file for file in found if file.risk is not None]
    scans = records.scans(db)
    place_of = {scan["source"]: scan["place"] for scan in scans}
    unread = [(file.id, file.shown, where, why) for file in found for where, why in file.faults]
    latest = {scan["source"]: scan for scan in scans}
    return environment.get_template(
        "report.html"
    ).render(
        site=site,
        at=f"{at:%Y-%m-%d %H:%M}",
        style=Markup(style),  # noqa: S704 -- our own file; its digest is in the page's policy
        style_hash=f"sha256-{digest}",
        risks={word: sum(file.risk is not None and file.risk.word == word for file in files) for word in _WORDS},
        persons=sum(file.persons > 0 for file in files),
        trends=[_trend(rows) for rows in _by_source(scans)],
        owners=_counted((file.owner, file.risk) for file in files),
        places=_counted((_folder(place_of.get(file.source, ""), file.shown), file.risk) for file in files),
        files=[_drawn(file, place_of.get(file.source, "")) for file in files[:MOST]],
        left=max(0, len(files) - MOST),
        not_scanned=sum(bool(file.faults) for file in found),
        cut_off=[(place, began_at[:16].replace("T", " ")) for place, began_at in records.cut_off(db)],
        unread=unread[:_UNREAD],
        unread_left=max(0, len(unread) - _UNREAD),
        outdated=[(scan["place"], scan["outdated"]) for scan in latest.values() if scan["outdated"]],
        left_out=[
            (scan["place"], what, count)
            for source, scan in latest.items()
            for what, count in records.left_out(db, source).items()
        ],
        decided=actions.decisions(db)[:_DECIDED],
    )


def _folder(place: str, shown: str) -> str:
    return f"{place}/{shown.rpartition('/')[0]}".rstrip("/")


def _counted(pairs: Iterable[tuple[str, Risk | None]]) -> list[tuple[str, Counter[str]]]:
    counts: dict[str, Counter[str]] = {}
    for name, risk in pairs:
        counts.setdefault(name, Counter()).update([risk.word if risk else ""])
    return sorted(counts.items(), key=lambda one: [-one[1][word] for word in _WORDS])


def _drawn(file: File, place: str) -> dict[str, Any]:
    return {
        **{name: getattr(file, name) for name in ("id", "shown", "owner", "persons", "more", "risk")},
        "place": place,
        "picture": base64.b64encode(file.picture).decode() if file.picture else "",
        "findings": [
            {
                "risk": Risk(one.risk).word,
                "confidence": Confidence(one.confidence).name.lower(),
                "times": one.times,
                **{name: getattr(one, name) for name in ("kind", "rule", "place", "digest")},
            }
            for one in file.open
        ],
    }


def _by_source(scans: Sequence[Mapping[str, Any]]) -> list[list[Mapping[str, Any]]]:
    found: dict[str, list[Mapping[str, Any]]] = {}
    for scan in scans:
        found.setdefault(scan["source"], []).append(scan)
    return [rows[-_SCANS:] for rows in found.values()]


def _trend(rows: list[Mapping[str, Any]]) -> dict[str, Any]:
    change = ""
    if len(rows) > 1:
        change = ", ".join(f"{rows[-1][word] - rows[-2][word]:+d} {name}" for word, name in _COUNTS.items())
    return {"place": rows[-1]["place"], "rows": list(reversed(rows)), "change": change, "plot": plot(rows)}


def plot(rows: Sequence[Mapping[str, Any]]) -> Markup:
    """Return files with open findings, and those not looked at, scan by scan, as SVG."""
    highest = max(1, *(row[word] for row in rows for word in _COUNTS))
    step = (_WIDTH - _LEFT - 20) / max(1, len(rows) - 1)
    floor = _HEIGHT - _FOOT
    parts = [Markup('<svg viewBox="0 0 {} {}" role="img" aria-label="Trend">').format(_WIDTH, _HEIGHT)]
    parts.append(
        Markup('<path class="axis" d="M{0} {1}V{2}H{3}" fill="none"/>').format(_LEFT, _HEAD, floor, _WIDTH - 10)
    )
    for value in sorted({0, highest}):
        y = floor - value / highest * (floor - _HEAD)
        parts.append(
            Markup('<text class="tick" x="{}" y="{:.0f}" text-anchor="end">{}</text>').format(_LEFT - 5, y + 4, value)
        )
    for word in _COUNTS:
        points = [(_LEFT + 8 + step * i, floor - row[word] / highest * (floor - _HEAD)) for i, row in enumerate(rows)]
        line = " ".join(f"{x:.1f},{y:.1f}" for x, y in points)
        parts.append(Markup('<polyline class="line {}" points="{}"/>').format(word, line))
        for x, y in points:
            parts.append(Markup('<circle class="dot {}" cx="{:.1f}" cy="{:.1f}" r="3"/>').format(word, x, y))
    for i, row in enumerate(rows):
        if i in (0, len(rows) - 1):
            place = Markup('<text class="tick" x="{:.0f}" y="{}" text-anchor="{}">{}</text>')
            parts.append(
                place.format(_LEFT + 8 + step * i, _HEIGHT - 6, "start" if i == 0 else "end", row["ended_at"][:10])
            )
    return Markup("").join((*parts, Markup("</svg>")))

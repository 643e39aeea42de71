"""A small finished run, to show."""

from __future__ import annotations

import hashlib

from demo.results import (
    Check,
    ConsentResult,
    Count,
    Curve,
    Digest,
    HospitalResult,
    Participation,
    Picture,
    Results,
    RoundTime,
    Score,
    Search,
)
from demo.stage import TOLD

HOSPITALS = (("north", "Northgate Infirmary"), ("east", "Eastmere <Hospital> & Sons"))


def sample_results() -> Results:
    """Give a run of two hospitals and two rounds in which one invariant failed."""
    return Results(
        made_at="2026-11-24 17:10 UTC",
        told=TOLD,
        task_title="Grey & white matter",
        labels=("grey matter", "white matter"),
        rounds=2,
        wall_s=96.4,
        cpu_s=171.2,
        hospitals=tuple(_hospital(name, title) for name, title in HOSPITALS),
        curves=tuple(
            Curve(model, place, (Score(0.6, (0.5, 0.7)), Score(final, (final - 0.01, final + 0.01))))
            for model, final in (("federated", 0.9), ("pooled", 0.93), ("north", 0.8), ("east", 0.7))
            for place, _ in HOSPITALS
        ),
        participation=(
            Participation(1, "north", "trained"),
            Participation(1, "east", "offline"),
            Participation(2, "north", "abstained", "consent withdrawn while training"),
            Participation(2, "east", "trained"),
        ),
        search=Search(bodies=54, bytes=8_100_000, planted=2480, planted_hits=0, images=936, pixel_hits=0),
        checks=(
            Check("Raw pixels never leave", held=True, how="Every message was searched"),
            Check("A withdrawn consent stops training", held=False, how="A patient withdrew in round 2"),
        ),
        times=tuple(RoundTime(number, 9.1, 13.4, 3.2, 4.2, 1.1) for number in (1, 2)),
        provenance=(Digest("Final model", hashlib.sha256(b"model").hexdigest()),),
        software=(("Python", "3.11"),),
    )


def _hospital(name: str, title: str) -> HospitalResult:
    square = tuple(tuple((row * 16 + column) % 256 for column in range(12)) for row in range(16))
    truth = tuple(tuple(column // 4 for column in range(12)) for _ in range(16))
    predicted = (*truth[:-1], (0,) * 12)
    return HospitalResult(
        name=name,
        title=title,
        files=12,
        intake=(Count("accepted", "de-identified", 9), Count("held", "may-carry-burned-in-text", 2)),
        consents=(ConsentResult("expired", "no-consent", 2, 1), ConsentResult("deny", "deny", 1, 1)),
        eligibility=(Count("in", "permitted", 5), Count("out", "the consent has expired", 2)),
        pictures=(Picture("Held-out slice 3", square, truth, predicted),),
    )

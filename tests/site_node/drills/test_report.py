"""A report is the site's word, and cannot hide what it counts."""

from __future__ import annotations

import json
from datetime import UTC, datetime
from typing import Any

import pytest
from pydantic import ValidationError

from consent import generate_signing_key
from site_node.drills.report import DrillReport, Files, Mode, ReportInvalid, Stage, Studies, open_report, sign_report

NOW = datetime(2026, 3, 12, 12, tzinfo=UTC)
FILES = {"archived": 3, "proved": 2, "digest_only": 1, "refused": 0, "missing": 0, "bad": 0, "size": 9}


def report(files: dict[str, int] = FILES, **changed: Any) -> DrillReport:
    values: dict[str, Any] = {
        "federation": "demo",
        "site": "north",
        "mode": Mode.SAMPLE,
        "started_at": NOW,
        "ended_at": NOW,
        "snapshot": "ab12",
        "snapshot_at": NOW,
        "manifest": "0" * 64,
        "rpo_s": 60,
        "rto_ms": 7,
        "stages": (Stage(name="restore", ms=3), Stage(name="store", ms=4)),
        "studies": Studies(total=5, drawn=2, nonce="word", may_be_lost=3),
        "files": Files(**files),
        "refused": (),
        "rebuilt": None,
        "problems": (),
        "software": "filmroom",
    }
    return DrillReport(**(values | changed))


def test_a_signed_report_is_read_back_as_it_was() -> None:
    key = generate_signing_key()

    assert open_report(sign_report(report(), key), key.public_key()) == report()


def test_a_report_of_another_key_or_with_one_other_byte_is_refused() -> None:
    key = generate_signing_key()
    signed = sign_report(report(), key)
    envelope = json.loads(signed)
    envelope["payload"] = envelope["payload"][:-8] + "AAAAAAA="

    for data, signer in ((signed, generate_signing_key()), (json.dumps(envelope).encode(), key), (b"{}", key)):
        with pytest.raises(ReportInvalid):
            open_report(data, signer.public_key())


@pytest.mark.parametrize("files", [{"missing": 1, "proved": 1}, {"bad": 1, "proved": 1}, {"proved": 1}])
def test_a_report_that_passes_over_what_it_counts_is_none(files: dict[str, int]) -> None:
    with pytest.raises(ValidationError):
        report(FILES | files)

    assert not report(FILES | files, problems=("1 files are missing",)).passed


def test_the_time_of_recovery_is_that_of_its_stages() -> None:
    with pytest.raises(ValidationError):
        report(rto_ms=6)

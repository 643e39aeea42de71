"""A drill passes over a whole backup alone: each damage is told, and nothing unproved is called safe.

Real restic and a real Orthanc. There is no coordinator here, which each drill tells too: see the scenarios.
"""

from __future__ import annotations

import json
import os
import random
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import pytest
import sqlalchemy as sa
from pydicom import dcmread

from site_node.archive import alarms
from site_node.archive.decoding import Decoder
from site_node.archive.staging import MANIFEST
from site_node.drills import dimse, record
from site_node.drills.dimse import Form, get_study
from site_node.drills.pacs import Credential, Pacs, free_port
from site_node.drills.proof import Verdict, judge
from site_node.drills.report import Mode
from site_node.errors import ArchiveError, ConfigurationError
from site_node.store import drill
from tests.site_node.archive.conftest import slice_bytes
from tests.site_node.drills.conftest import UNREACHABLE, Drilled

if TYPE_CHECKING:
    from collections.abc import Iterator

PROGRAM = Path(sys.executable).parent / "filmroom-site"
needs_pacs = pytest.mark.skipif(
    shutil.which("restic") is None or not Path("/usr/sbin/Orthanc").exists(), reason="needs restic and orthanc"
)
pytestmark = needs_pacs


def packs(drilled: Drilled) -> list[Path]:
    folder = Path(drilled.place.home.load_config().archive.repository)
    return sorted((folder / "data").rglob("*"), key=lambda path: path.stat().st_size if path.is_file() else 0)


def alarm_of(drilled: Drilled) -> alarms.Alarm | None:
    with drilled.place.store.connect() as db:
        return alarms.open_alarm(db)


def test_a_whole_backup_is_proved_through_the_pacs_and_told_in_a_signed_report(drilled: Drilled) -> None:
    done = drilled.run()
    files, rebuilt = done.report.files, done.report.rebuilt

    assert done.report.problems == (UNREACHABLE,)
    assert (files.archived, files.proved, files.digest_only, files.missing, files.bad) == (5, 4, 1, 0, 0)
    assert rebuilt is not None
    assert rebuilt.keys and rebuilt.database and rebuilt.replay and rebuilt.consents
    assert not rebuilt.federation
    assert {stage.name for stage in done.report.stages} >= {
        "locate",
        "restore",
        "rebuild",
        "start",
        "store",
        "retrieve",
    }
    assert done.report.rto_ms > 0
    assert b"MRN" not in done.path.read_bytes()
    assert list((drilled.place.home.root / "drills" / "scratch").iterdir()) == []
    assert alarm_of(drilled) is None

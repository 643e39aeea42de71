"""What a PACS cannot take keeps nothing else from it."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from pydicom.data import get_testdata_file

from site_node.drills import dimse
from site_node.drills.pacs import Credential, Pacs
from site_node.errors import ArchiveError

if TYPE_CHECKING:
    from collections.abc import Sequence

pytestmark = pytest.mark.skipif(not Path("/usr/sbin/Orthanc").exists(), reason="needs orthanc")

UNREADABLE, BREAKING, GOOD = "rtdose_rle_1frame.dcm", "SC_rgb_jpeg.dcm", "CT_small.dcm"


def _files(*names: str) -> list[Path]:
    return [Path(str(get_testdata_file(name))) for name in names]


def _forms(paths: Sequence[Path]) -> list[dimse.Form]:
    return [form for path in paths if (form := dimse.form_of(path)) is not None]


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore:.*SSLSocket:pytest.PytestUnraisableExceptionWarning")
def test_a_file_at_which_the_pacs_breaks_off_is_passed_over_and_the_rest_is_taken(tmp_path: Path) -> None:
    paths = _files(BREAKING, UNREADABLE, GOOD)

    with Pacs(tmp_path / "pacs", Credential.make(tmp_path), "DRILL") as pacs:
        statuses = dimse.store(pacs.peer, paths, _forms(paths), lambda: None)
        pacs.kill()
        with pytest.raises(ArchiveError):
            dimse.store(pacs.peer, paths, _forms(paths), lambda: None)

    broken, unreadable, good = (statuses[path] for path in paths)
    assert (broken, good) == (dimse.BROKEN, dimse.SUCCESS)
    assert unreadable is not None
    assert dimse.is_unfit(unreadable)


@pytest.mark.parametrize("status", [0xA700, 0xA7FF, 0x0110, 0x0122])
def test_a_pacs_that_is_full_or_out_of_order_says_so_of_itself(status: int) -> None:
    assert not dimse.is_unfit(status)

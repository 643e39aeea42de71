"""A site with an archive in a folder, and a folder of originals: two studies of two patients."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import UTC, datetime
from typing import TYPE_CHECKING

import numpy as np
import pytest

from site_node.app import create_site
from site_node.archive.snapshot import Archive
from site_node.config import ArchiveSettings, SiteConfig, SiteHome
from site_node.store import open_store
from tests.site_node.dicom_files import file_bytes, mr_slice

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    import sqlalchemy as sa

SIDE = 192  # a slice is larger than 64 KiB, as the attacks expect
DAYS = ("20260312", "20260401")


@dataclass(frozen=True)
class Place:
    """A site, its archive, and where the originals lie."""

    home: SiteHome
    store: sa.Engine
    originals: Path
    archive: Archive


def slice_bytes(study: int, number: int, **attributes: object) -> bytes:
    """Return a slice of a study as a file: a smooth picture with noise, so that codecs have something to do."""
    rng = np.random.default_rng((study, number))
    rows, columns = np.mgrid[:SIDE, :SIDE]
    uid = f"1.2.826.0.1.3680043.99.{study}"
    picture = (1000 + 3 * rows + columns * study + rng.normal(0, 8, (SIDE, SIDE))).astype("<u2")
    values: dict[str, object] = {
        "Rows": SIDE,
        "Columns": SIDE,
        "BitsStored": 12,
        "HighBit": 11,
        "PixelData": picture.tobytes(),
        "StudyInstanceUID": uid,
        "SOPInstanceUID": f"{uid}.{number}",
        "PatientID": f"MRN-{study}",
        "StudyDate": DAYS[study],
    }
    ds = mr_slice(number, **(values | attributes))
    ds.file_meta.MediaStorageSOPInstanceUID = ds.SOPInstanceUID
    return file_bytes(ds)


def fill(originals: Path, slices: int = 2) -> None:
    """Write the originals of two studies, and a file that is none."""
    for study in range(2):
        folder = originals / f"study-{study}"
        folder.mkdir(parents=True)
        for number in range(slices):
            (folder / f"{number}.dcm").write_bytes(slice_bytes(study, number))
    (originals / "readme.txt").write_text("no image\n")


@pytest.fixture
def place(tmp_path: Path) -> Iterator[Place]:
    """Yield a site whose archive is configured and not yet made."""
    originals = tmp_path / "originals"
    fill(originals)
    home = SiteHome(tmp_path / "north")
    create_site(home.root, "north")
    settings = f'name = "north"\n[archive]\nrepository = "{tmp_path / "repo"}"\noriginals = "{originals}"\n'
    (home.root / "site.toml").write_text(settings)
    store = open_store(home.database)
    config = SiteConfig("north", archive=ArchiveSettings(str(tmp_path / "repo"), str(originals)))
    yield Place(home, store, originals, Archive(home, config, store, lambda: datetime.now(UTC)))
    store.dispose()

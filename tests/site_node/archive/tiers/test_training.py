"""What training reads never leaves: a folder that the site keeps itself has no tiers."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from site_node.app import create_site, open_site, tier_folder
from site_node.errors import ConfigurationError

if TYPE_CHECKING:
    from pathlib import Path

COPY = """
[[locked.copies]]
name = "cloud"
endpoint = "https://cloud.example"
bucket = "images"
credentials = "file:keys"
domain = "provider"
"""


def folder_of(root: Path, folder: str) -> Path:
    """Return the folder whose files a new site would move."""
    create_site(root, "north")
    tiers = f'[tiers]\nmode = "second-copy"\nfolder = "{folder}"\n'
    (root / "site.toml").write_text(f'name = "north"\n{COPY}{tiers}')
    site = open_site(root)
    try:
        return tier_folder(site)
    finally:
        site.store.dispose()


@pytest.mark.parametrize(
    "folder", [".", "..", "deidentified", "deidentified/1.2.3", "pacs/../deidentified", "quarantine", "link"]
)
def test_a_folder_of_which_training_reads_has_no_tiers(folder: str, tmp_path: Path) -> None:
    (tmp_path / "north").mkdir()
    (tmp_path / "north" / "link").symlink_to("deidentified")

    with pytest.raises(ConfigurationError, match="must not leave"):
        folder_of(tmp_path / "north", folder)


@pytest.mark.parametrize("folder", ["../pacs", "originals", "deidentified-elsewhere"])
def test_any_other_folder_may_have_them(folder: str, tmp_path: Path) -> None:
    assert folder_of(tmp_path / "north", folder) == tmp_path / "north" / folder

"""What leaves is sealed, the same files are one object, and nothing else passes for it."""

from __future__ import annotations

import hashlib
import io
import stat
import tarfile
from typing import TYPE_CHECKING

import pyrage
import pytest

from site_node.archive.locked import sealing
from site_node.archive.locked.sealing import Member, Seal
from site_node.errors import ConfigurationError, LockedCopyInvalid

if TYPE_CHECKING:
    from pathlib import Path

FILES = {"one/IM1.dcm": b"\0" * 1000, "one/IM2.dcm": b"pixels" * 300_000, "Müller.dcm": b"", "x" * 150 + ".dcm": b"1"}


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Return a folder of files."""
    for name, content in FILES.items():
        path = tmp_path / "images" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(content)
    return tmp_path / "images"


@pytest.fixture
def seal(tmp_path: Path) -> Seal:
    """Return a site's seal, its keys just born."""
    sealing.make_keys(tmp_path / "site")
    return sealing.open_seal(tmp_path / "site")


def members() -> list[Member]:
    return [Member(name, len(content), hashlib.sha256(content).hexdigest()) for name, content in FILES.items()]


def sealed(seal: Seal, folder: Path) -> bytes:
    target = io.BytesIO()
    seal.seal(folder, members(), target)
    return target.getvalue()


def opened(seal: Seal, content: bytes) -> bytes:
    target = io.BytesIO()
    seal.open(iter([content]), target)
    return target.getvalue()


def test_what_was_sealed_opens_to_the_same_files(seal: Seal, folder: Path) -> None:
    found = {}
    tar = opened(seal, sealed(seal, folder))

    back = sealing.read_members(io.BytesIO(tar), lambda name, content: found.update({name: content.read()}))

    assert found == FILES
    assert seal.name(back) == seal.name(members())


def test_the_tar_is_one_that_any_tar_reads_and_the_same_for_the_same_files(seal: Seal, folder: Path) -> None:
    first, second = sealed(seal, folder), sealed(seal, folder)

    assert first != second  # each has a file key of its own
    assert opened(seal, first) == opened(seal, second)
    with tarfile.open(fileobj=io.BytesIO(opened(seal, first))) as archive:
        assert {info.name: info.size for info in archive} == {name: len(content) for name, content in FILES.items()}


def test_the_format_is_age_and_opens_with_the_key_file_alone(seal: Seal, folder: Path, tmp_path: Path) -> None:
    key = (tmp_path / "site" / sealing.FOLDER / "age.key").read_text().strip()

    content = sealed(seal, folder)

    assert content.startswith(b"age-encryption.org/v1\n")
    assert b"pixels" not in content
    assert pyrage.decrypt(content, [pyrage.x25519.Identity.from_str(key)]) == opened(seal, content)


@pytest.mark.parametrize("place", [5, 150, 100_000, -1])
def test_a_flipped_bit_or_a_lost_end_is_found(seal: Seal, folder: Path, place: int) -> None:
    content = bytearray(sealed(seal, folder))
    whole = bytes(content)
    content[place] ^= 1

    for damaged in (bytes(content), whole[:place], b""):
        with pytest.raises(LockedCopyInvalid):
            opened(seal, damaged)


def test_another_sites_seal_opens_nothing_and_gives_other_names(seal: Seal, folder: Path, tmp_path: Path) -> None:
    sealing.make_keys(tmp_path / "other")
    other = sealing.open_seal(tmp_path / "other")

    with pytest.raises(LockedCopyInvalid):
        opened(other, sealed(seal, folder))
    assert other.name(members()) != seal.name(members())
    assert other.token("1.2.3") != seal.token("1.2.3")


def test_a_file_that_changes_while_it_is_sealed_is_refused(seal: Seal, folder: Path) -> None:
    for changed in (b"\1" * 1000, b"\0" * 999, b"\0" * 1001):
        (folder / "one/IM1.dcm").write_bytes(changed)
        with pytest.raises(LockedCopyInvalid, match="changed"):
            sealed(seal, folder)


def test_a_full_disk_is_told_as_what_it_is(seal: Seal, folder: Path) -> None:
    with open("/dev/full", "wb", buffering=0) as full, pytest.raises(OSError, match="No space left"):  # noqa: PTH123 -- not a file on a disk
        seal.seal(folder, members(), full)


@pytest.mark.parametrize("name", ["../up", "/root", "a/../../b", "./a"])
def test_a_tar_that_reaches_out_of_its_folder_is_refused(name: str) -> None:
    tar = io.BytesIO()
    with tarfile.open(fileobj=tar, mode="w") as archive:
        archive.addfile(tarfile.TarInfo(name))
    tar.seek(0)

    with pytest.raises(LockedCopyInvalid):
        sealing.read_members(tar, lambda _name, _content: None)


def test_keys_are_born_once_and_only_their_owner_reads_them(tmp_path: Path) -> None:
    sealing.make_keys(tmp_path)
    folder = tmp_path / sealing.FOLDER
    before = {path.name: path.read_bytes() for path in folder.iterdir()}
    sealing.make_keys(tmp_path)

    assert {path.name: path.read_bytes() for path in folder.iterdir()} == before
    assert len(before) == 3
    assert {stat.S_IMODE(path.stat().st_mode) for path in folder.iterdir()} == {0o600}
    (folder / "age.key").chmod(0o640)
    with pytest.raises(ConfigurationError, match="open to others"):
        sealing.open_seal(tmp_path)

"""The drill `attack`: a copy of some images is archived, attacked, and had back. All happens in the clean folder.

The attacker overwrites images, hides them and deletes them, sets times back, and has the clock wrong by years; then
he damages the store. The alarm has to sound, no snapshot may be forgotten, and the last good one has to bring all back.
"""

from __future__ import annotations

import os
import shutil
from datetime import timedelta
from typing import TYPE_CHECKING

from site_node import alarms
from site_node.archive.anomaly import ORIGINALS
from site_node.archive.layout import write
from site_node.archive.restoring import Wanted
from site_node.archive.snapshot import Archive
from site_node.config import CONFIG_NAME, ArchiveSettings, SiteConfig, SiteHome
from site_node.drills import restoring, sampling, showing
from site_node.errors import ArchiveAlarm, ArchiveError
from site_node.store import open_store

if TYPE_CHECKING:
    from pathlib import Path

    import sqlalchemy as sa

    from site_node.drills.bench import Bench
    from site_node.drills.restoring import File

_WRONG = timedelta(days=3650)


def attack(bench: Bench) -> None:
    """Archive a copy, attack it, and have it back through a PACS."""
    chosen, studies = restoring.locate(bench)
    by_name = {study["study"]: study for study in studies}
    drawn = sampling.draw(by_name, bench.settings.sample_studies, bench.nonce)
    bench.notes.drawn = len(drawn)
    files = restoring.restore(bench, chosen, [by_name[name] for name in drawn])
    images = list(showing.forms(files))
    bench.notes.files[showing.DIGEST_ONLY] += len(files) - len(images)
    home = SiteHome(bench.scratch / "attacked")
    home.root.mkdir(mode=0o700)
    home.identity.mkdir(mode=0o700)
    settings = ArchiveSettings(str(bench.scratch / "repository"), str(bench.scratch / ORIGINALS))
    (home.root / CONFIG_NAME).write_text('name = "attacked"\n')
    store = open_store(home.database)
    try:
        _attack(bench, images, home, SiteConfig("attacked", archive=settings), store)
    finally:
        store.dispose()


def _attack(bench: Bench, images: list[File], home: SiteHome, config: SiteConfig, store: sa.Engine) -> None:
    notes, originals = bench.notes, bench.scratch / ORIGINALS
    originals.mkdir(mode=0o700)
    for file in images:
        shutil.copyfile(file.path, originals / file.path.name)
    archive = Archive(home, config, store, lambda: bench.at)
    with notes.stage("archive the copy"):
        archive.create()
        archive.take()
    for number, file in enumerate(images):
        _ATTACKS[number % len(_ATTACKS)](originals / file.path.name)
    wrong = Archive(home, config, store, lambda: bench.at + _WRONG)
    with notes.stage("notice"):
        if wrong.take().is_good:
            notes.problem("an attack was archived as if nothing had happened")
        with store.connect() as db:
            if alarms.open_alarm(db) is None:
                notes.problem("an attack sounded no alarm")
    try:
        wrong.forget()
        notes.problem("snapshots were forgotten while an alarm was open")
    except ArchiveAlarm:
        pass
    with notes.stage("recover"):
        archive.restore(bench.scratch / "back", Wanted())
    back = [file._replace(path=bench.scratch / "back" / ORIGINALS / file.path.name) for file in images]
    here = [file for file in back if file.path.is_file()]
    notes.files[showing.MISSING] += len(back) - len(here)
    showing.show(bench, here)
    _damage_store(bench, archive)


def _damage_store(bench: Bench, archive: Archive) -> None:
    """Turn one bit in the largest pack of the copy's store; a check that reads has to find it."""
    packs = (path for path in (bench.scratch / "repository" / "data").rglob("*") if path.is_file())
    pack = max(packs, key=lambda path: path.stat().st_size)
    content = bytearray(pack.read_bytes())
    content[len(content) // 2] ^= 1
    pack.chmod(0o600)
    pack.write_bytes(content)
    with bench.notes.stage("check"):
        try:
            archive.check()
            bench.notes.problem("a turned bit in the store was not found")
        except ArchiveError:
            pass


def _overwrite(path: Path) -> None:
    """Change pixels behind an intact header, and set the time back."""
    before = path.stat()
    content = path.read_bytes()
    kept = len(content) - len(content) // 8 - 1
    with path.open("wb") as file:
        file.write(content[:kept] + os.urandom(len(content) - kept))
    os.utime(path, ns=(before.st_atime_ns, before.st_mtime_ns))


def _hide(path: Path) -> None:
    """Encrypt all of it, under another name."""
    length = path.stat().st_size
    write(path, (os.urandom(length),))
    path.rename(path.with_name(f"{path.name}.locked"))


_ATTACKS = (_overwrite, _hide, os.unlink)

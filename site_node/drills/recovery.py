"""The drills `sample` and `full`: the site and its images come back, and a fresh PACS shows them."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import sqlalchemy as sa

from site_node.archive import state
from site_node.archive.lists import STATE
from site_node.drills import rebuilt, restoring, sampling, showing
from site_node.drills.bench import Journal, resume
from site_node.errors import ArchiveError, ConfigurationError
from site_node.store import instance, open_store

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

    from site_node.drills.bench import Bench

_REBUILT = "site"


def sample(bench: Bench) -> None:
    """Prove some studies, drawn at random, and the site itself."""
    chosen, studies = restoring.locate(bench)
    by_name = {study["study"]: study for study in studies}
    drawn = sampling.draw(by_name, bench.settings.sample_studies, bench.nonce)
    bench.notes.drawn = len(drawn)
    catalogue = _rebuild(bench, chosen)
    for batch in _batches([by_name[name] for name in drawn], bench.settings.batch_files):
        _prove(bench, chosen, batch, catalogue)


def full(bench: Bench) -> None:
    """Prove every study and the site itself; a drill that was stopped goes on where it was."""
    chosen, studies = restoring.locate(bench)
    bench.notes.drawn = len(studies)
    journal = Journal(bench.folder / "full.json")
    kept = journal.read()
    if kept is not None and resume(bench.notes, kept, chosen):
        bench.say(
            f"going on with the drill of {kept['at'][:16]}: {bench.notes.done} of {len(studies)} studies are done"
        )
    catalogue = _rebuild(bench, chosen)
    for batch in _batches(studies[bench.notes.done :], bench.settings.batch_files):
        _prove(bench, chosen, batch, catalogue)
        bench.notes.done += len(batch)
        journal.keep(bench)
    if lost := len(catalogue) - bench.notes.catalogued:
        bench.notes.problem(f"{lost} files of the rebuilt catalogue are not in the snapshot")
    journal.end()


def _rebuild(bench: Bench, chosen: str) -> dict[str, str]:
    """Rebuild the site from the snapshot and prove it; return the digest of each file its catalogue names."""
    notes, root = bench.notes, bench.scratch / _REBUILT
    try:
        with notes.stage("state"):
            bench.archive.repository.restore(chosen, bench.scratch, STATE)
            state.restore(bench.scratch, root, bench.archive.recovery_key(bench.recovery_key))
            notes.rebuilt, problems = rebuilt.prove(root, bench.running, bench.at)
    except (ArchiveError, ConfigurationError) as error:
        notes.problem(str(error))
        return {}
    for problem in problems:
        notes.problem(problem)
    if not notes.rebuilt.database:
        notes.bad("record-differs")
        return {}
    store = open_store(root / "site.db")
    with store.connect() as db:
        named = {row.path: row.sha256 for row in db.execute(sa.select(instance.c.path, instance.c.sha256))}
    store.dispose()
    return named


def _prove(bench: Bench, chosen: str, studies: Sequence[Mapping[str, Any]], catalogue: Mapping[str, str]) -> None:
    """Restore some studies, show them, and compare them with the catalogue that came back."""
    try:
        files = restoring.restore(bench, chosen, studies)
        for entry in (file.entry for file in files if file.entry.path in catalogue):
            if catalogue[entry.path] == entry.sha256:
                bench.notes.catalogued += 1
            else:
                bench.notes.bad("catalogue-differs")
                bench.notes.problem("a file is not the one that the rebuilt catalogue names")
        showing.show(bench, files)
    finally:
        bench.clear("restored", "files", "received", "pacs")


def _batches(studies: Sequence[dict[str, Any]], most: int) -> Iterator[list[dict[str, Any]]]:
    """Yield studies with few enough files to be on disk at once."""
    batch: list[dict[str, Any]] = []
    for study in studies:
        if batch and sum(one["files"] for one in batch) + study["files"] > most:
            yield batch
            batch = []
        batch.append(study)
    if batch:
        yield batch

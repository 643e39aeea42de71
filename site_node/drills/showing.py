"""Shows restored files through a fresh PACS: sent to it, asked for, had back, and compared with what was archived."""

from __future__ import annotations

import shutil
from collections import defaultdict
from typing import TYPE_CHECKING

from site_node.archive.anomaly import UNDECODED
from site_node.archive.decoding import Decoder
from site_node.drills import dimse
from site_node.drills.dimse import Form
from site_node.drills.pacs import Credential, Pacs
from site_node.drills.proof import Verdict, header_of, judge
from site_node.drills.restoring import File
from site_node.errors import ArchiveError

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping, Sequence
    from pathlib import Path

    from site_node.archive.layout import Entry
    from site_node.drills.bench import Bench
    from site_node.drills.dimse import Peer

AE_TITLE = "FILMROOM"
PROVED, DIGEST_ONLY, REFUSED, MISSING, BAD = "proved", "digest_only", "refused", "missing", "bad"
_COUNTED = {
    Verdict.PROVED: PROVED,
    Verdict.OTHER_HEADER: BAD,
    Verdict.OTHER_PIXELS: BAD,
}
_FORMS = 120  # an association has room for 128 (PS3.8 9.3.2.2)


def show(bench: Bench, files: Sequence[File]) -> None:
    """Show restored files through a PACS that was started for them; count what came of each."""
    notes = bench.notes
    shown = forms(files)
    notes.files[DIGEST_ONLY] += len(files) - len(shown)
    if not shown:
        return
    folder = bench.scratch / "pacs"
    shutil.rmtree(folder, ignore_errors=True)
    with notes.stage("start"):
        pacs = Pacs(folder, Credential.make(folder), AE_TITLE)
        pacs.start()
    try:
        with Decoder() as decode:
            for layer in _layers(shown):
                _show_layer(bench, pacs, layer, shown, decode)
    finally:
        pacs.stop()


def send(bench: Bench, peer: Peer, shown: Mapping[File, Form]) -> list[File]:
    """Send files; return those the PACS took. What it cannot take or read stays proved by its digest alone."""
    notes, taken = bench.notes, []
    with notes.stage("store"):
        for chunk in _chunks(shown):
            paths = {file.path: file for file in chunk}
            statuses = dimse.store(peer, list(paths), [shown[file] for file in chunk], lambda: None)
            for path, status in statuses.items():
                if status == dimse.SUCCESS:
                    taken.append(paths[path])
                elif status is None:
                    notes.files[DIGEST_ONLY] += 1
                elif dimse.is_unfit(status):
                    notes.files[REFUSED] += 1
                    notes.refused.append(paths[path].entry.sha256)
                else:
                    notes.files[MISSING] += 1
                    notes.problem(f"the PACS refused an instance with status {status:#06x}")
    return taken


def compare(bench: Bench, peer: Peer, taken: Iterable[File], shown: Mapping[File, Form], decode: Decoder) -> None:
    """Have files back from a PACS that may hold all the shown ones, study by study, and judge those it took."""
    by_study, forms_of = defaultdict[str, list[File]](list), defaultdict[str, set[Form]](set)
    for file, form in shown.items():
        forms_of[file.entry.StudyInstanceUID].add(form)
    for file in taken:
        by_study[file.entry.StudyInstanceUID].append(file)
    for study, files in by_study.items():
        folder = bench.scratch / "received"
        with bench.notes.stage("retrieve"):
            received = dimse.get_study(peer, study, sorted(forms_of[study]), folder)
        with bench.notes.stage("compare"):
            _judge_study(bench, files, received, decode)
        shutil.rmtree(folder)


def forms(files: Iterable[File]) -> dict[File, Form]:
    """Return the files that a PACS takes, with what they say they are."""
    return {file: form for file in files if (form := _form(file)) is not None}


def _show_layer(bench: Bench, pacs: Pacs, layer: Sequence[File], shown: Mapping[File, Form], decode: Decoder) -> None:
    try:
        taken = send(bench, pacs.peer, {file: shown[file] for file in layer})
        compare(bench, pacs.peer, taken, shown, decode)
    except ArchiveError:
        pacs.check_alive()
        raise


def _judge_study(bench: Bench, files: Sequence[File], received: Sequence[Path], decode: Decoder) -> None:
    notes = bench.notes
    candidates: dict[str, list[Path]] = defaultdict(list)
    for path in received:
        candidates[header_of(path).SOPInstanceUID].append(path)
    for entry in (file.entry for file in files):
        verdict = _best(entry, candidates[entry.SOPInstanceUID], decode)
        notes.files[MISSING if verdict is None else _COUNTED[verdict]] += 1
        if verdict in {Verdict.OTHER_HEADER, Verdict.OTHER_PIXELS}:
            notes.bad(str(verdict))
        bench.progress(_accounted(bench), bench.notes.files["archived"])


def _best(entry: Entry, paths: Sequence[Path], decode: Decoder) -> Verdict | None:
    """Return the verdict on an instance; several come back where one UID belongs to several patients."""
    verdicts = [judge(entry, path, decode) for path in paths]
    return min(verdicts, key=list(Verdict).index, default=None)


def _accounted(bench: Bench) -> int:
    return sum(bench.notes.files[name] for name in (PROVED, DIGEST_ONLY, REFUSED, MISSING, BAD))


def _form(file: File) -> Form | None:
    """Return what a file says it is; None if it is not to be shown, or was damaged when it was archived."""
    entry = file.entry
    # PS3.5 7.1.1: every length is even; a PACS ends the association over a file that was cut off.
    whole = entry.is_dicom and entry.size % 2 == 0 and not entry.pixels.startswith(UNDECODED)
    if not (whole and entry.StudyInstanceUID and entry.SOPInstanceUID):
        return None
    return dimse.form_of(file.path, entry.SOPInstanceUID)


def _layers(shown: Iterable[File]) -> Iterator[list[File]]:
    """Yield the files so that none hides another: a PACS keeps the last instance of a UID."""
    rest = list(shown)
    while rest:
        layer: dict[str, File] = {}
        later = []
        for file in rest:
            if file.entry.SOPInstanceUID in layer:
                later.append(file)
            else:
                layer[file.entry.SOPInstanceUID] = file
        yield list(layer.values())
        rest = later


def _chunks(shown: Mapping[File, Form]) -> Iterator[list[File]]:
    """Yield the files with few enough forms each for one association."""
    chunk: list[File] = []
    seen: set[Form] = set()
    for file in sorted(shown, key=lambda file: shown[file]):
        if shown[file] not in seen and len(seen) == _FORMS:
            yield chunk
            chunk, seen = [], set()
        chunk.append(file)
        seen.add(shown[file])
    yield chunk

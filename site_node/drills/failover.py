"""The drill `failover`: a PACS is lost, a second one takes its AE title, and the first takes it back without a loss.

Both are PACS of the drill, filled from the snapshot: it shows that the backup can take over, and how long that takes;
the hospital's own PACS, its modalities and its network are not touched.
"""

from __future__ import annotations

import io
from typing import TYPE_CHECKING, NamedTuple

from pydicom.dataset import Dataset, FileMetaDataset
from pydicom.filewriter import dcmwrite
from pydicom.uid import ExplicitVRLittleEndian, SecondaryCaptureImageStorage, generate_uid

from site_node.archive.decoding import Decoder
from site_node.archive.layout import write
from site_node.drills import dimse, restoring, sampling, showing
from site_node.drills.pacs import Credential, Pacs, free_port
from site_node.drills.proof import header_of
from site_node.errors import ArchiveError

if TYPE_CHECKING:
    from collections.abc import Collection
    from pathlib import Path

    from site_node.drills.bench import Bench
    from site_node.drills.dimse import Form, Peer

_SIDE = 16


class _Content(NamedTuple):
    """What an instance is: its header, and its decoded pixels."""

    header: str
    pixels: str


def failover(bench: Bench) -> None:
    """Lose a PACS, go on with a second one, and go back."""
    chosen, studies = restoring.locate(bench)
    by_name = {study["study"]: study for study in studies}
    drawn = sampling.draw(by_name, bench.settings.sample_studies, bench.nonce)
    bench.notes.drawn = len(drawn)
    files = restoring.restore(bench, chosen, [by_name[name] for name in drawn])
    shown = showing.forms(files)
    bench.notes.files[showing.DIGEST_ONLY] += len(files) - len(shown)
    # Of several files with one UID a PACS keeps the last: that is proved by the other drills.
    shown = {file: shown[file] for file in {file.entry.SOPInstanceUID: file for file in shown}.values()}
    bench.notes.files[showing.DIGEST_ONLY] += len(showing.forms(files)) - len(shown)
    credential, port = Credential.make(bench.scratch / "key"), free_port()
    first, second = (Pacs(bench.scratch / name, credential, showing.AE_TITLE, port) for name in ("first", "second"))
    forms = {*shown.values(), _new_form()}
    try:
        with bench.notes.stage("fill the first"):
            first.start()
            dimse.store(first.peer, [file.path for file in shown], list(shown.values()), lambda: None)
            first.kill()
        with bench.notes.stage("take over"):
            second.start()
        taken = showing.send(bench, second.peer, shown)
        wanted = {file.entry.StudyInstanceUID for file in taken}
        with bench.notes.stage("take over"):
            if not wanted <= set(dimse.find_studies(second.peer, "")):
                bench.notes.problem("the second PACS does not find every study")
        with Decoder() as decode:
            showing.compare(bench, second.peer, taken, shown, decode)
            new = _arrive(bench, second.peer)
            wanted.add(new)
            there = _contents(bench, second.peer, wanted, forms, decode)
            with bench.notes.stage("fail back"):
                late = dimse.get_study(second.peer, new, [_new_form()], bench.scratch / "late")
                second.stop()
                first.start()
                dimse.store(first.peer, late, [_new_form()] * len(late), lambda: None)
            here = _contents(bench, first.peer, wanted, forms, decode)
        if different := len({uid for uid in here.keys() | there.keys() if here.get(uid) != there.get(uid)}):
            bench.notes.problem(f"{different} instances differ after the way back")
        if not late:
            bench.notes.problem("what came in meanwhile is lost")
    except ArchiveError as error:
        bench.notes.problem(str(error))
    finally:
        first.stop()
        second.stop()


def _contents(
    bench: Bench, peer: Peer, studies: Collection[str], forms: Collection[Form], decode: Decoder
) -> dict[str, _Content]:
    """Return every instance that a PACS gives back of some studies."""
    found = {}
    for study in studies:
        for path in dimse.get_study(peer, study, sorted(forms), bench.scratch / "diff"):
            header = header_of(path)
            found[header.SOPInstanceUID] = _Content(header.digest, decode(path))
            path.unlink()
    return found


def _new_form() -> Form:
    return dimse.Form(str(SecondaryCaptureImageStorage), str(ExplicitVRLittleEndian))


def _arrive(bench: Bench, peer: Peer) -> str:
    """Send a new image of nobody, as a modality would meanwhile; return its study."""
    path = bench.scratch / "new.dcm"
    ds = _image()
    _write(path, ds)
    statuses = dimse.store(peer, [path], [_new_form()], lambda: None)
    if statuses[path] != dimse.SUCCESS:
        raise ArchiveError("the second PACS takes no new image")
    return str(ds.StudyInstanceUID)


def _image() -> Dataset:
    ds = Dataset()
    ds.SOPClassUID, ds.SOPInstanceUID = SecondaryCaptureImageStorage, generate_uid()
    ds.StudyInstanceUID, ds.SeriesInstanceUID = generate_uid(), generate_uid()
    ds.PatientName, ds.PatientID, ds.Modality, ds.ConversionType = "Drill^Recovery", "DRILL", "OT", "SYN"
    ds.Rows = ds.Columns = _SIDE
    ds.SamplesPerPixel, ds.PhotometricInterpretation, ds.PixelRepresentation = 1, "MONOCHROME2", 0
    ds.BitsAllocated, ds.BitsStored, ds.HighBit = 8, 8, 7
    ds.PixelData = bytes(range(_SIDE * _SIDE))
    return ds


def _write(path: Path, ds: Dataset) -> None:
    ds.file_meta = FileMetaDataset()
    ds.file_meta.TransferSyntaxUID = ExplicitVRLittleEndian
    content = io.BytesIO()
    dcmwrite(content, ds, enforce_file_format=True)
    write(path, (content.getvalue(),))

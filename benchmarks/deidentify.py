"""What de-identification leaves, keeps and costs, beside other tools on the same files in the same run.

Files are planted by tests/planted from seeds; a planted identity that survives is found by a byte search, and burned-in
text by its contrast and by Tesseract. Every speed is per CPU second. A peer that is not installed (`make peers`) is
left out and said so. Exit code 0 however the figures turn out; 1 if a run fails.
"""

from __future__ import annotations

import os
import sys
import tempfile
import time
from concurrent.futures import Future, ProcessPoolExecutor, ThreadPoolExecutor
from dataclasses import dataclass
from multiprocessing import get_context
from pathlib import Path
from typing import TYPE_CHECKING, Final

import numpy as np
from rich.console import Console
from rich.table import Table

from benchmarks import burned
from benchmarks.command import Account, Run, Site, peer, told
from benchmarks.figures import Figure, show, store
from demo.consortium import CommandFailed
from site_node.second_look.inspection import inspect
from tests.planted.bases import DX, MG, XA, picture
from tests.planted.broken import NAME
from tests.planted.key import load
from tests.planted.score import Figures as Scored
from tests.planted.score import score

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

    from tests.planted.key import FileKey

PEERS_PYTHON: Final = Path(__file__).parents[1] / ".venv-peers" / "bin" / "python"
HEADER_PEERS: Final = ("dicognito", "dicom_anonymizer", "deid", "dcmanon")
PIXEL_PEERS: Final = ("rapid", "presidio")
ONE_THREAD: Final = dict.fromkeys(
    ("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS", "OMP_THREAD_LIMIT"), "1"
)
SEEDS: Final = (1, 2)
SMALL: Final = 500_000  # bytes; below, a file's speed is that of its header
PICTURES, CLEAN_PICTURES = 24, 24
# Test images that show text of their own, which is blanked as it should be.
SHOW_TEXT: Final = frozenset(f"us-{kind}.dcm" for kind in ("palette", "rgb", "multi-rle", "multi-jpeg", "jpeg2000"))
CT: Final = "2"  # the SOP class of a CT section, by its suffix
# A film of 1 GB: frames of 2 MB.
FILM, SHORT_FILM, FILM_SIDE = 500, 2, 1024
HEADERS, WALK = "Filmroom, headers", "pydicom, read-walk-write"


@dataclass(frozen=True, slots=True)
class Corpus:
    """A planted corpus and its key."""

    folder: Path
    key: list[FileKey]

    @property
    def files(self) -> Path:
        """The folder of its files."""
        return self.folder / "files"

    @property
    def ordinary(self) -> list[FileKey]:
        """The files that are not flooded."""
        return [file for file in self.key if not file.flood]


def main() -> int:
    """Measure, print the tables and store the figures; return the exit code."""
    os.environ.update(ONE_THREAD)
    os.environ.pop("PYTHONDONTWRITEBYTECODE", None)  # an installed program is compiled once, not at each start
    if not PEERS_PYTHON.exists():
        _say("the peers are not installed: `make peers` installs them; Filmroom is measured alone")
    with tempfile.TemporaryDirectory(prefix="filmroom-bench-") as folder:
        try:
            figures, peers = measure(Path(folder))
        except CommandFailed as error:
            print(error, file=sys.stderr)
            return 1
    show("de-identification", figures)
    _show_peers(peers)
    print(f"stored in {store('deidentify', figures, peers=peers)}")
    return 0


def measure(root: Path) -> tuple[dict[str, Figure], dict[str, dict[str, float]]]:
    """Return all figures, and each tool's own; everything is written below `root`.

    Raises: CommandFailed.
    """
    _say(f"corpora of seeds {', '.join(map(str, SEEDS))}")
    with ThreadPoolExecutor(os.cpu_count()) as threads:
        corpora = list(threads.map(lambda seed: _corpus(root / f"corpus-{seed}", seed), SEEDS))
    rows: dict[str, dict[str, float]] = {}
    site = Site(root / "site")
    figures = _speed(root, corpora, rows)
    run, told_by_command = _through_the_command(root, site, corpora)
    figures |= told_by_command
    figures |= _survivors(root, run, corpora[0], rows)
    figures |= _pictures(root, site, rows)
    figures |= _memory(root, site)
    return figures, rows


def _speed(root: Path, corpora: list[Corpus], rows: dict[str, dict[str, float]]) -> dict[str, Figure]:
    """Return how fast headers are, beside pydicom alone before and after, and the peers."""
    small, large = root / "small", root / "large"
    small.mkdir()
    for corpus in corpora:
        for file in corpus.ordinary:
            path = corpus.files / file.name
            if path.stat().st_size < SMALL:
                (small / _unique(file.name, corpus)).hardlink_to(path)
    _write_large(large)
    warm = len(list(small.iterdir())) // 3
    accounts: dict[str, Account] = {}
    _say(f"headers of {warm * 3} files: pydicom, Filmroom, the peers, pydicom")
    walks = [peer("walk", small, root / "walk-1", warm=warm)]
    accounts[HEADERS] = peer("filmroom_headers", small, root / "headers", warm=warm, repeat=2)
    for name in _installed(HEADER_PEERS):
        accounts[name] = peer(name, small, root / f"small-{name}", python=PEERS_PYTHON, warm=warm)
    walks.append(peer("walk", small, root / "walk-2", warm=warm))
    walk = sum(account.files for account in walks) / sum(account.cpu_s for account in walks)
    for name, account in accounts.items():
        rows.setdefault(name, {})["files per CPU second"] = account.files_per_s
    rows[WALK] = {"files per CPU second": walk}
    _say("large files")
    bulk = peer("filmroom_headers", large, root / "bulk", warm=3, repeat=3)
    for name in _installed(HEADER_PEERS):
        rows[name]["MB per CPU second"] = peer(
            name, large, root / f"large-{name}", python=PEERS_PYTHON, warm=3
        ).megabytes_per_s
    rows[HEADERS]["MB per CPU second"] = bulk.megabytes_per_s
    own = accounts[HEADERS].files_per_s
    return {
        "headers": Figure(own, 150.0, "files/CPU s", "min"),
        "headers, pydicom read-walk-write": Figure(walk, None, "files/CPU s"),
        "headers, Filmroom / pydicom": Figure(own / walk, 2.0, "ratio", "min"),
        "headers, files of 0.5 MB and more": Figure(bulk.megabytes_per_s, 300.0, "MB/CPU s", "min"),
    }


def _through_the_command(root: Path, site: Site, corpora: list[Corpus]) -> tuple[Run, dict[str, Figure]]:
    """Return what the public command makes of all corpora, and of broken files, also after kill -9."""
    everything = root / "everything"
    everything.mkdir()
    for corpus in corpora:
        for path in corpus.files.iterdir():
            (everything / _unique(path.name, corpus)).hardlink_to(path)
    _say(f"filmroom-site deidentify on {len(list(everything.iterdir()))} files")
    run = site.deidentify(everything, root / "everything-out")
    refused = run.named("quarantined") | run.named("not_read")
    _say("two thirds of them once more, killed on the way and begun again")
    damaged, different = _killed(root, site, everything, run)
    _say("broken files")
    broken = site.deidentify(corpora[0].folder / "broken", root / "broken-out")
    named = sum(NAME.strip().split(b"^")[0] in path.read_bytes() for path in broken.outputs.values())
    return run, {
        "whole command, pixels and second look": Figure(len(run.outcomes) / run.cpu_s, None, "files/CPU s"),
        "files held for a person": Figure(100 * len(run.named("held")) / len(run.outcomes), None, "%"),
        "held by the second look": Figure(_stopped(run), None, "files"),
        "refusals of readable files": Figure(len(refused), 0.0, "files"),
        "after kill -9: files half written": Figure(damaged, 0.0, "files"),
        "after kill -9 and again: files missing or different": Figure(different, 0.0, "files"),
        "broken files let through with the name": Figure(named, 0.0, "files"),
        "second look, small file": Figure(_second_look_ms(everything, run), None, "CPU ms"),
    }


def _killed(root: Path, site: Site, everything: Path, run: Run) -> tuple[int, int]:
    """Return how many outputs a killed run left that are not whole, and how many files a second run did not mend."""
    folder, target = root / "killed", root / "killed-out"
    folder.mkdir()
    paths = sorted(everything.iterdir())
    for path in paths[: len(paths) * 2 // 3]:
        (folder / path.name).hardlink_to(path)
    site.deidentify_until_killed(folder, target)
    whole = {path.read_bytes() for path in run.outputs.values()}
    damaged = sum(path.read_bytes() not in whole for path in target.rglob("*.dcm"))
    again = site.deidentify(folder, target)
    different = sum(
        again.outcomes.get(path.name) != run.outcomes[path.name]
        or _content(again, path.name) != _content(run, path.name)
        for path in folder.iterdir()
    )
    return damaged, different


def _content(run: Run, name: str) -> bytes | None:
    return run.outputs[name].read_bytes() if name in run.outputs else None


def _survivors(root: Path, run: Run, corpus: Corpus, rows: dict[str, dict[str, float]]) -> dict[str, Figure]:
    """Return what survives, and what is lost, in Filmroom's outputs and the peers'."""
    _say("what survives")
    outputs = {"filmroom-site": _linked(run, corpus, root / "planted-named")}
    outputs["Filmroom"] = root / "planted-filmroom"
    peer("filmroom", corpus.files, outputs["Filmroom"])
    for name in _installed(HEADER_PEERS):
        outputs[name] = root / f"planted-{name}"
        peer(name, _ordinary(corpus, root), outputs[name], python=PEERS_PYTHON)
    with ProcessPoolExecutor(os.cpu_count(), get_context("spawn")) as pool:
        scored: dict[str, Future[Scored]] = {
            name: pool.submit(score, corpus.files, folder, corpus.key if name == "Filmroom" else corpus.ordinary)
            for name, folder in outputs.items()
        }
        found = {name: future.result() for name, future in scored.items()}
    for name, one in found.items():
        if name != "filmroom-site":
            rows.setdefault(name, {}).update(_shares(one))
    own, real = found["Filmroom"], found["filmroom-site"]
    quiet = [line for line in own.images_changed if line.split(":")[0] not in SHOW_TEXT]
    without = own.images - len(own.images_changed) + len(quiet)
    for leak in (*own.leaks, *real.leaks):
        _say(f"survives: {' | '.join(leak)}")
    for line in quiet:
        _say(f"pixels changed: {line}")
    return {
        "surviving identities, accepted by the command": Figure(
            real.survived["basic"], 0.0, f"of {real.planted['basic']}"
        ),
        "surviving identities, all files": Figure(own.survived["basic"], 0.0, f"of {own.planted['basic']}"),
        "surviving dates": Figure(own.survived["date"], 0.0, f"of {own.planted['date']}"),
        "surviving UIDs": Figure(own.survived["uid"], 0.0, f"of {own.planted['uid']}"),
        "surviving device identities": Figure(own.survived["device"], 0.0, f"of {own.planted['device']}"),
        "technical values kept": Figure(_share(own.technical_kept, own.technical), 99.5, "%", "min"),
        "harmless words kept": Figure(_share(own.harmless_kept, own.harmless), 95.0, "%", "min"),
        "safe private values kept": Figure(_share(own.private_kept, own.private), None, "%", "min"),
        "pictures without text identical": Figure(_share(without - len(quiet), without), 100.0, "%", "min"),
        "files with intervals kept": Figure(_share(own.intervals_kept, own.dated), None, "%", "min"),
        "references kept": Figure(_share(own.references_kept, own.references), 100.0, "%", "min"),
        "new dciodvfy errors": Figure(own.new_errors, 0.0, f"in {own.validated} files"),
    }


def _pictures(root: Path, site: Site, rows: dict[str, dict[str, float]]) -> dict[str, Figure]:
    """Return what is left of burned-in text, and how fast it is found."""
    _say(f"burned-in text: {PICTURES} pictures with it, {CLEAN_PICTURES} without")
    folder = root / "burned"
    pages = burned.write(folder, SEEDS[0], PICTURES, CLEAN_PICTURES)
    run = site.deidentify(folder, root / "burned-out")
    text = peer("filmroom_text", folder, root / "nothing", warm=2)
    if burned.reader() is None:
        _say("tesseract is not installed: what is left is judged by contrast alone")
    with ThreadPoolExecutor(os.cpu_count()) as threads:
        own = threads.submit(burned.left, folder, run.outputs, pages, run.named("held"), read=True)
        others = {name: threads.submit(_pixel_peer, name, root, pages) for name in _installed(PIXEL_PEERS)}
        found = own.result()
        for name, (account, one) in ((name, future.result()) for name, future in others.items()):
            rows[name] = {"pictures per CPU second": account.files_per_s, **_hidden(one)}
    rows.setdefault("Filmroom", {}).update({"pictures per CPU second": text.files_per_s, **_hidden(found)})
    for line in found.survivors:
        _say(f"text left: {line}")
    done = found.hidden + found.held
    return {
        "burned-in text, found and judged": Figure(text.files_per_s, 2.0, "pictures/CPU s", "min"),
        "burned-in identities hidden or held, by contrast": Figure(_share(done, found.identities), 99.5, "%", "min"),
        "of these held": Figure(_share(found.held, found.identities), None, "%"),
        "characters left": Figure(_share(found.characters_left, found.characters), None, "%"),
        "identities that Tesseract reads before": Figure(_share(found.read_before, found.identities), None, "%"),
        "identities that Tesseract reads after": Figure(_share(found.read_after, found.identities), 0.5, "%"),
        "harmless markers kept": Figure(_share(found.harmless_kept, found.harmless), 80.0, "%", "min"),
        "clean pictures touched": Figure(_share(found.clean_touched, found.clean), 1.0, "%"),
        "clean pictures held": Figure(_share(found.clean_held, found.clean), None, "%"),
    }


def _memory(root: Path, site: Site) -> dict[str, Figure]:
    """Return how much more memory a film of 1 GB takes than one of two frames, in frames."""
    _say("a film of 1 GB")
    short, long = (_film(root / f"film-{frames}", frames) for frames in (SHORT_FILM, FILM))
    least, most = (site.memory(folder, folder.with_name(f"{folder.name}-out")) for folder in (short, long))
    frame = FILM_SIDE * FILM_SIDE * 2
    return {
        "memory of a film of 1 GB": Figure(most / 1e6, None, "MB"),
        f"memory of a film of {SHORT_FILM} frames": Figure(least / 1e6, None, "MB"),
        f"memory for {FILM - SHORT_FILM} frames more": Figure((most - least) / frame, 25.0, "frames"),
    }


def _corpus(folder: Path, seed: int) -> Corpus:
    told(
        [sys.executable, "-m", "tests.planted", str(folder), "--seed", str(seed)],
        PYTHONPATH=str(Path(__file__).parents[1]),
    )
    return Corpus(folder, load(folder / "key.json"))


def _ordinary(corpus: Corpus, root: Path) -> Path:
    """Return a folder with the files that are not flooded."""
    folder = root / "ordinary"
    if not folder.exists():
        folder.mkdir()
        for file in corpus.ordinary:
            (folder / file.name).hardlink_to(corpus.files / file.name)
    return folder


def _linked(run: Run, corpus: Corpus, folder: Path) -> Path:
    """Return a folder with a run's outputs of a corpus under the names of their originals."""
    folder.mkdir()
    for file in corpus.key:
        if (path := run.outputs.get(_unique(file.name, corpus))) is not None:
            (folder / file.name).hardlink_to(path)
    return folder


def _unique(name: str, corpus: Corpus) -> str:
    """Return a file's name among those of all corpora; the files of a base stand together."""
    return f"{name.removesuffix('.dcm')}-{corpus.folder.name}.dcm"


def _write_large(folder: Path) -> None:
    """Write pictures of ordinary sizes: sections, radiographs, mammographs, a film."""
    folder.mkdir()
    kinds = (
        (CT, "CT", (1, 512, 512), 24),
        (DX, "DX", (1, 2048, 2048), 4),
        (MG, "MG", (1, 3328, 2560), 2),
        (XA, "XA", (24, 1024, 1024), 1),
    )
    for suffix, modality, shape, count in kinds:
        for number in range(count):
            ds = picture(suffix, modality, _noise(shape))
            _name(ds, f"{suffix}.{number}")
            ds.save_as(folder / f"{modality}-{number}.dcm", enforce_file_format=True)


def _film(folder: Path, frames: int) -> Path:
    folder.mkdir()
    ds = picture(XA, "XA", _noise((frames, FILM_SIDE, FILM_SIDE)))
    _name(ds, str(frames))
    ds.save_as(folder / "film.dcm", enforce_file_format=True)
    return folder


def _noise(shape: tuple[int, int, int]) -> np.ndarray[tuple[int, ...], np.dtype[np.uint16]]:
    """Return the same quiet frame again and again."""
    rng = np.random.default_rng(0)
    frame = (2000 + 500 * np.sin(np.arange(shape[2]) / 97) + rng.normal(0, 20, shape[1:])).astype(np.uint16)
    return np.broadcast_to(frame, shape).copy()


def _name(ds: object, number: str) -> None:
    for keyword, value in (
        ("PatientName", "Beispiel^Berta"),
        ("PatientID", f"MRN-{number}"),
        ("BodyPartExamined", "ABDOMEN"),
        ("StudyInstanceUID", f"1.2.826.0.1.3680043.10.2.{number}"),
        ("SeriesInstanceUID", f"1.2.826.0.1.3680043.10.2.{number}.1"),
        ("SOPInstanceUID", f"1.2.826.0.1.3680043.10.2.{number}.1.1"),
    ):
        setattr(ds, keyword, value)


def _installed(names: Iterable[str]) -> tuple[str, ...]:
    return tuple(names) if PEERS_PYTHON.exists() else ()


def _pixel_peer(name: str, root: Path, pages: list[burned.Page]) -> tuple[Account, burned.Left]:
    target = root / f"burned-{name}"
    account = peer(name, root / "burned", target, python=PEERS_PYTHON)
    outputs = {page.name: target / page.name for page in pages if (target / page.name).exists()}
    return account, burned.left(root / "burned", outputs, pages, frozenset(), read=True)


def _stopped(run: Run) -> int:
    return sum(reason.startswith("identity-found") for _, reason in run.outcomes.values())


def _second_look_ms(folder: Path, run: Run) -> float:
    """Return the CPU milliseconds that the second look takes for a small file."""
    pairs = [((folder / name).read_bytes(), path.read_bytes()) for name, path in run.outputs.items()]
    small = [pair for pair in pairs if len(pair[0]) < SMALL]
    began = time.process_time()
    for original, output in small:
        inspect(original, output)
    return 1000 * (time.process_time() - began) / max(len(small), 1)


def _share(part: int, of: int) -> float:
    return 100 * part / of if of else 0.0


def _shares(one: Scored) -> dict[str, float]:
    """Return a tool's figures on the planted corpus."""
    survive = {f"{kind} survive %": 100 * one.share(kind) for kind in ("basic", "date", "uid", "device")}
    return {
        "outputs": one.outputs,
        **survive,
        "technical kept %": _share(one.technical_kept, one.technical),
        "words kept %": _share(one.harmless_kept, one.harmless),
        "pictures identical %": _share(one.images_identical, one.images),
        "intervals kept %": _share(one.intervals_kept, one.dated),
        "new dciodvfy errors": one.new_errors,
    }


def _hidden(one: burned.Left) -> dict[str, float]:
    """Return a tool's figures on burned-in text."""
    return {
        "pictures out": one.outputs,
        "identities hidden %": _share(one.hidden + one.held, one.identities),
        "characters left %": _share(one.characters_left, one.characters),
        "Tesseract reads %": _share(one.read_after, one.identities),
        "markers kept %": _share(one.harmless_kept, one.harmless),
        "clean touched %": _share(one.clean_touched, one.clean),
    }


def _show_peers(rows: Mapping[str, Mapping[str, float]]) -> None:
    """Print each tool's figures, one tool a column."""
    names = list(dict.fromkeys(name for row in rows.values() for name in row))
    table = Table("figure", *rows, title="beside the peers")
    for name in names:
        table.add_row(name, *(f"{row[name]:,.1f}" if name in row else "" for row in rows.values()))
    Console(width=160).print(table)


def _say(line: str) -> None:
    print(f"· {line}", flush=True)


if __name__ == "__main__":
    sys.exit(main())

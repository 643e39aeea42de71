"""Runs a drill: on the record before it begins, with a signed report after it, whatever came of it."""

from __future__ import annotations

import fcntl
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import timedelta
from typing import TYPE_CHECKING

from site_node.archive.layout import write
from site_node.drills import attack, failover, record, recovery, sampling
from site_node.drills.bench import Bench, Notes
from site_node.drills.pacs import find_program
from site_node.drills.report import (
    MAX_PROBLEMS,
    NO_SNAPSHOT,
    DrillReport,
    Files,
    Mode,
    Stage,
    Studies,
    sign_report,
)
from site_node.errors import ConfigurationError, SiteError
from site_node.keys import read_signing_key
from site_node.rounds import SOFTWARE

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping
    from datetime import datetime
    from pathlib import Path

    from site_node.archive.snapshot import Archive
    from site_node.drills.rebuilt import Running

KINDS: Mapping[Mode, Callable[[Bench], None]] = {
    Mode.SAMPLE: recovery.sample,
    Mode.FULL: recovery.full,
    Mode.ATTACK: attack.attack,
    Mode.FAILOVER: failover.failover,
}
_TEXT = 256
_FILES = ("archived", "proved", "digest_only", "refused", "missing", "bad", "size")


@dataclass(frozen=True, slots=True)
class Done:
    """A drill that ended: its report, and where the signed one lies."""

    report: DrillReport
    path: Path


class Drills:
    """The drills of one site."""

    def __init__(self, running: Running, archive: Archive, clock: Callable[[], datetime]) -> None:
        self._running = running
        self._archive = archive
        self._clock = clock
        self._folder = running.home.root / "drills"

    def run(
        self,
        mode: Mode,
        nonce: str,
        *,
        recovery_key: Path | None = None,
        keep: bool = False,
        progress: Callable[[int, int], None] = lambda _done, _total: None,
        say: Callable[[str], None] = lambda _line: None,
    ) -> Done:
        """Run a drill and return its signed report; it passed if the report has no problems.

        Raises: ConfigurationError if no drill can be run here: no membership to sign with, no PACS, one runs.
        """
        identity = self._running.home.load_identity()
        key = read_signing_key(identity.receipt_key)
        find_program()
        settings = self._running.config.drills
        self._folder.mkdir(mode=0o700, exist_ok=True)
        with self._alone():
            at, notes = self._clock(), Notes()
            with self._running.store.begin() as db:
                number = record.begin(db, mode, at)
            bench = Bench(
                self._archive,
                self._running,
                settings,
                self._folder,
                notes,
                nonce,
                at,
                recovery_key,
                progress,
                say,
                keep,
            )
            try:
                bench.clean()
                KINDS[mode](bench)
            except SiteError as error:
                notes.problem(str(error))
            except OSError as error:
                notes.problem(f"{error.strerror}: the drill could not go on")
            finally:
                if not keep:
                    bench.clean()
            report = self._report(mode, bench, (identity.federation, identity.site))
            signed = sign_report(report, key)
            path = self._folder / f"{at:%Y%m%dT%H%M%SZ}-{mode}.json"
            write(path, (signed,))
            with self._running.store.begin() as db:
                record.end(db, number, mode, report.problems, notes.alarms, report.ended_at, signed)
        return Done(report, path)

    def _report(self, mode: Mode, bench: Bench, site: tuple[str, str]) -> DrillReport:
        notes, ended = bench.notes, self._clock()
        rpo = max(timedelta(), bench.at - notes.snapshot_at) if notes.snapshot_at else timedelta()
        rto = timedelta(milliseconds=notes.stages.total())
        for problem in _missed(bench, mode, rpo, rto):
            notes.problem(problem)
        return DrillReport(
            federation=site[0],
            site=site[1],
            mode=mode,
            started_at=bench.at,
            ended_at=ended,
            snapshot=notes.snapshot or "none",
            snapshot_at=notes.snapshot_at,
            manifest=notes.manifest or NO_SNAPSHOT,
            rpo_s=round(rpo.total_seconds()),
            rto_ms=notes.stages.total(),
            stages=tuple(Stage(name=name, ms=ms) for name, ms in notes.stages.items()),
            studies=Studies(
                total=notes.total,
                drawn=notes.drawn,
                nonce=bench.nonce,
                may_be_lost=sampling.undetected(notes.total, notes.drawn),
            ),
            files=Files(**{name: notes.files[name] for name in _FILES}),
            refused=tuple(notes.refused[:MAX_PROBLEMS]),
            rebuilt=notes.rebuilt,
            problems=tuple(problem[:_TEXT] for problem in notes.problems[:MAX_PROBLEMS]),
            software=SOFTWARE,
        )

    @contextmanager
    def _alone(self) -> Iterator[None]:
        """Let no other drill run meanwhile.

        Raises: ConfigurationError if one does.
        """
        with (self._folder / "lock").open("w") as lock:
            try:
                fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                raise ConfigurationError("another drill is running; wait until it is done") from None
            yield


def _missed(bench: Bench, mode: Mode, rpo: timedelta, rto: timedelta) -> Iterator[str]:
    """Yield what the drill did not reach."""
    files, settings = bench.notes.files, bench.settings
    if files["missing"]:
        yield f"{files['missing']} files are missing"
    if files["bad"]:
        yield f"{files['bad']} files came back as others than were archived"
    if bench.notes.alarms and not files["bad"]:
        yield "what came back is not what was archived"
    if not files["proved"]:
        yield "no image was proved"
    if files["refused"] > files["proved"]:
        yield "the PACS refuses more images than it takes"
    accounted = sum(files[name] for name in _FILES[1:-1])
    if accounted != files["archived"]:
        yield f"{files['archived'] - accounted} files are not accounted for"
    if rpo > timedelta(hours=settings.max_rpo_h):
        yield f"the last good snapshot is {rpo.total_seconds() / 3600:.1f} h old, more than {settings.max_rpo_h:g} h"
    if mode is Mode.FULL and rto > timedelta(hours=settings.max_rto_h):
        yield f"recovery took {rto.total_seconds() / 3600:.1f} h, more than {settings.max_rto_h:g} h"

"""The five modes on two real S3 servers, each in a domain of its own; killed, cut off, full, and back."""

from __future__ import annotations

import hashlib
import json
import os
import random
import shutil
import signal
import subprocess
import sys
import time
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from typing import TYPE_CHECKING

import numpy as np
import pytest

from consent import Deny, Permit
from site_node import away
from site_node.app import Recall, create_site, open_intake, open_site
from site_node.archive.locked import credentials, sealing, worm
from site_node.archive.locked.s3 import Bucket
from site_node.archive.locked.worm import Copy, Locking
from site_node.archive.tiers import failover
from site_node.archive.tiers.recall import Recalling
from site_node.archive.tiers.tiering import Tiering
from site_node.config import LockedCopies, Tiers
from site_node.errors import LockedCopyInvalid
from site_node.intake.export import export
from site_node.intake.folder import ingest
from site_node.store import open_store
from tests.site_node.archive.locked import servers
from tests.site_node.archive.locked.servers import ROOT, Wire
from tests.site_node.dicom_files import mr_slice

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

    import sqlalchemy as sa

    from site_node.archive.locked.credentials import Credentials
    from tests.site_node.archive.locked.servers import Ours

pytestmark = [pytest.mark.slow, pytest.mark.timeout(600)]

OLD, NEW = "20150101", datetime.now(UTC).strftime("%Y%m%d")
SERIES = ((1, 1, 3, OLD), (1, 2, 2, OLD), (2, 1, 2, OLD), (3, 1, 2, NEW))  # study, series, files, day
READY_S = 90
SIDE = 128


@pytest.fixture(scope="module")
def pair(tmp_path_factory: pytest.TempPathFactory) -> Iterator[dict[str, Ours]]:
    """Yield two lock servers that run; who kills one starts it again."""
    folder = tmp_path_factory.mktemp("pair")
    started = {name: servers.ours(folder / name) for name in ("one", "two")}
    yield started
    for server in started.values():
        server.process.kill()


def fill(folder: Path) -> None:
    """Write the hospital's files."""
    for study, series, count, day in SERIES:
        uid = f"1.2.3.{study}.{series}"
        for number in range(count):
            ds = mr_slice(
                number,
                StudyInstanceUID=f"1.2.3.{study}",
                SeriesInstanceUID=uid,
                SOPInstanceUID=f"{uid}.{number}",
                FrameOfReferenceUID=f"{uid}.9",
                StudyDate=day,
                PatientID=f"MRN-{study}",
            )
            ds.Rows = ds.Columns = SIDE
            noise = np.random.default_rng([study, series, number]).integers(0, 4000, (SIDE, SIDE), dtype=np.uint16)
            ds.PixelData = noise.tobytes()
            path = folder / f"st{study}" / f"se{series}" / f"{number}.dcm"
            path.parent.mkdir(parents=True, exist_ok=True)
            ds.save_as(path, enforce_file_format=True)


def contents(folder: Path) -> dict[str, bytes]:
    """Return every file of a folder, marks left out."""
    return {
        path.relative_to(folder).as_posix(): path.read_bytes()
        for path in sorted(folder.rglob("*"))
        if path.is_file() and not path.name.endswith(away.SUFFIX)
    }


@dataclass(slots=True)
class Tiered:
    """A site with a folder and two copies, as a process that just started has it each time."""

    store: sa.Engine
    root: Path
    folder: Path
    copies: list[Copy]
    tiers: Tiers
    said: list[str] = field(default_factory=list)

    def tiering(self, *copies: Copy) -> Tiering:
        """Return what moves its files; every endpoint is compliant here."""
        settings = LockedCopies(years=1, least_days=1, copies=tuple(copy.settings for copy in self.copies))
        seal = sealing.open_seal(self.root)
        locking = Locking(self.store, self.root, seal, list(copies) or self.copies, _now, self.said.append, {})
        verdicts: dict[str, Permit | Deny] = {copy.name: Permit() for copy in self.copies}
        return Tiering(
            self.store, self.root, self.folder, self.tiers, settings, locking, lambda: verdicts,
            lambda patient: f"pseudonym-of-{patient}", _no_bar, self.said.append,
        )  # fmt: skip

    def recalling(self, *copies: Copy) -> Recalling:
        """Return the way back."""
        seal = sealing.open_seal(self.root)
        chosen = list(copies) or self.copies
        return Recalling(self.store, self.root, self.tiers, self.folder, seal, chosen, _now, self.said.append)

    def recall_all(self) -> None:
        """Bring everything back."""
        for name in self.tiering().recallable():
            self.recalling().object(name)


def _now() -> datetime:
    return datetime.now(UTC)


def _no_bar(_what: str) -> nullcontext[Callable[[int, int], None]]:
    return nullcontext(lambda _done, _total: None)


@pytest.fixture
def build(
    pair: dict[str, Ours], store: sa.Engine, root: Path, tmp_path: Path, request: pytest.FixtureRequest
) -> Callable[..., Tiered]:
    """Return what makes a site in a mode, with its two copies in two domains."""
    own = hashlib.sha256(request.node.nodeid.encode()).hexdigest()[:12]

    def make(mode: str, domains: tuple[str, str] = ("hospital", "provider"), **settings: float) -> Tiered:
        sealing.make_keys(root)
        folder = tmp_path / "pacs"
        fill(folder)
        copies = [
            Copy(server.copy(name, f"{name}-{own}", domain), server.bucket(f"{name}-{own}"))
            for (name, server), domain in zip(pair.items(), domains, strict=True)
        ]
        chosen = {"keep_days": 365, "rest_days": 0} | settings
        return Tiered(store, root, folder, copies, Tiers(mode, str(folder), **chosen))  # type: ignore[arg-type] # numbers

    return make


@contextmanager
def dead(server: Ours) -> Iterator[None]:
    """Kill a server, as a power cut would, and start it again in the end."""
    server.process.kill()
    try:
        yield
    finally:
        server.start()


def until(condition: Callable[[], object]) -> None:
    """Wait for what a server that has just started cannot do yet: its volumes are known some seconds later."""
    end = time.monotonic() + READY_S
    while not condition():
        assert time.monotonic() < end
        time.sleep(1)


def unreachable(copy: Copy) -> Copy:
    return Copy(copy.settings, Bucket("http://127.0.0.1:1", "us-east-1", copy.bucket.name, None, None))


def locks(site: Tiered, name: str) -> list[tuple[datetime | None, bool]]:
    """Return date and hold of an object's lock at each copy, as the servers tell them."""
    found = []
    for copy in site.copies:
        (version,) = copy.bucket.versions(worm.PREFIX + name)
        lock = copy.bucket.lock(version.name, version.version_id)
        assert lock.mode == "COMPLIANCE"
        assert copy.bucket.ask("delete_object", Key=version.name, VersionId=version.version_id).code
        found.append((lock.until, lock.hold))
    return found


# ------------------------------------------------------------------ the five modes


@pytest.mark.parametrize(
    ("mode", "domains", "leave", "first"),
    [
        ("second-copy", ("hospital", "provider"), 0, "one"),
        ("active-archive", ("hospital", "provider"), 3, "one"),
        ("failover", ("hospital", "provider"), 0, "two"),
        ("production-in-cloud", ("hospital", "provider"), 4, "two"),
        ("complete-cloud", ("provider", "south"), 4, "one"),
    ],
)
def test_a_mode_keeps_two_locked_copies_and_gives_everything_back(
    build: Callable[..., Tiered], mode: str, domains: tuple[str, str], leave: int, first: str
) -> None:
    site = build(mode, domains)
    before = contents(site.folder)
    planned = [row.state for row in site.tiering().plan()]

    done = site.tiering().run()

    assert planned == ["here"] * 4  # nothing is copied yet, so nothing would leave
    assert (done.here, done.protected, done.left, done.problems) == (4, 4, leave, 0)
    assert len(contents(site.folder)) == {0: 9, 3: 2, 4: 0}[leave]
    with site.store.connect() as db:
        for locked in worm.objects(db):
            assert locks(site, locked.name) == [(locked.until, False)] * 2
    assert [row.state for row in site.tiering().plan()].count("away") == leave
    for path in before:
        site.recalling().recall(site.folder / path)
    assert contents(site.folder) == before
    assert not list(away.marked(site.folder))
    with site.store.connect() as db:
        served = [json.loads(row.detail)["copy"] for row in db.exec_driver_sql(
            "SELECT detail FROM ledger WHERE entry = 'site:tiers:recalled'")]  # fmt: skip
    assert served == [first] * leave
    assert site.said == []


def test_an_active_archive_by_size_lets_the_oldest_go_until_it_fits(build: Callable[..., Tiered]) -> None:
    site = build("active-archive", keep_days=0)
    size = sum(map(len, contents(site.folder).values()))
    site.tiers = replace(site.tiers, max_gb=(size - 1) / 10**9)

    site.tiering().run()
    assert len(contents(site.folder)) < 9
    assert sum(map(len, contents(site.folder).values())) <= size - 1
    assert {path.split("/")[0] for path in contents(site.folder)} >= {"st3"}  # the youngest stays

    left = site.tiering().run().left
    assert left == 0


def test_what_came_back_rests_before_it_leaves_again(build: Callable[..., Tiered]) -> None:
    site = build("active-archive")
    site.tiering().run()
    site.recall_all()
    site.tiers = replace(site.tiers, rest_days=1)

    assert site.tiering().run().left == 0
    site.tiers = replace(site.tiers, rest_days=0)
    assert site.tiering().run().left == 3


def test_the_lock_and_the_hold_follow_the_data_to_the_second_domain(build: Callable[..., Tiered]) -> None:
    site = build("active-archive")
    first, second = site.copies
    assert site.tiering(first, unreachable(second)).run().left == 0
    with site.store.connect() as db:
        known = worm.objects(db)
    for one in known:
        site.tiering(first, unreachable(second)).locking.hold(one, "ann", "case", on=True)

    assert site.tiering().run().left == 3
    for one in known:
        assert locks(site, one.name) == [(one.until, True)] * 2


# ------------------------------------------------------------------ what goes wrong


def test_nothing_leaves_while_a_domain_is_down_and_a_read_goes_on_to_the_next(
    build: Callable[..., Tiered], pair: dict[str, Ours]
) -> None:
    site = build("active-archive")
    before = contents(site.folder)
    site.tiering().run()
    site.recall_all()

    with dead(pair["one"]):
        done = site.tiering().run()
        assert done.left == 0
        assert contents(site.folder) == before
        assert any(line.startswith("one: ") for line in site.said)

    until(lambda: site.tiering().run() and len(contents(site.folder)) == 2)
    with dead(pair["one"]):
        site.recalling().recall(site.folder / "st1/se1/0.dcm")
        assert len(contents(site.folder)) == 5
        with pytest.raises(FileNotFoundError, match="away"):
            site.recalling(unreachable(site.copies[1])).recall(site.folder / "st2/se1/0.dcm")
    until(lambda: _back(site, before))


def _back(site: Tiered, before: dict[str, bytes]) -> bool:
    try:
        site.recall_all()
    except LockedCopyInvalid:
        return False
    return contents(site.folder) == before


def test_a_network_that_is_cut_in_the_middle_loses_nothing(build: Callable[..., Tiered], pair: dict[str, Ours]) -> None:
    site = build("active-archive")
    before = contents(site.folder)
    wire = Wire(pair["two"].server.port)
    two = site.copies[1]
    bucket = Bucket(
        f"https://127.0.0.1:{wire.port}", "us-east-1", two.bucket.name,
        account(pair["two"]), pair["two"].server.authority,
    )  # fmt: skip
    cut = Copy(two.settings, bucket)

    for after in (3_000, 20_000, 60_000, 120_000):  # in the handshake, in answers, in what is read back
        wire.cut_after = after
        site.tiering(site.copies[0], cut).run()
        for path, content in before.items():
            assert contents(site.folder).get(path, content) == content
            assert path in contents(site.folder) or away.read(site.folder / path)
    assert site.said
    wire.cut_after = None
    site.tiering(site.copies[0], cut).run()
    assert len(contents(site.folder)) == 2

    wire.cut_after = 40_000
    with pytest.raises(FileNotFoundError):
        site.recalling(cut).recall(site.folder / "st1/se1/0.dcm")
    assert len(contents(site.folder)) == 2
    wire.close()
    site.recall_all()
    assert contents(site.folder) == before


def account(server: Ours) -> Credentials:
    return credentials.read(server.server.credentials)


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can make a small disk")
def test_a_full_disk_keeps_what_is_away_away_and_says_so(build: Callable[..., Tiered]) -> None:
    site = build("active-archive")
    before = contents(site.folder)
    site.tiering().run()
    marks = {path.relative_to(site.folder): away.read(path) for path in away.marked(site.folder)}
    small = site.folder.with_name("small")
    small.mkdir()
    mounted = subprocess.run(["mount", "-t", "tmpfs", "-o", "size=96k", "tmpfs", small], check=False)  # noqa: S607 -- the system's own
    if mounted.returncode:
        pytest.skip("this system lets nobody mount a disk")
    try:
        shutil.copytree(site.folder, small, dirs_exist_ok=True, ignore=shutil.ignore_patterns("*.dcm"))
        full = replace_folder(site, small)
        with pytest.raises(OSError, match="No space left"):
            full.recalling().recall(small / "st1/se1/0.dcm")
        assert contents(small) == {}
        assert {path.relative_to(small): away.read(path) for path in away.marked(small)} == marks
    finally:
        subprocess.run(["umount", small], check=True)  # noqa: S607 -- the system's own
    site.recall_all()
    assert contents(site.folder) == before


def replace_folder(site: Tiered, folder: Path) -> Tiered:
    return Tiered(site.store, site.root, folder, site.copies, replace(site.tiers, folder=str(folder)), site.said)


def test_a_file_that_was_edited_is_another_file_and_the_older_stays_locked(build: Callable[..., Tiered]) -> None:
    site = build("active-archive")
    site.tiering().run()
    site.recall_all()
    path = site.folder / "st2/se1/0.dcm"
    edited = path.read_bytes().replace(b"MRN-2", b"MRN-9")
    path.write_bytes(edited)
    before = contents(site.folder)

    site.tiering().run()
    assert "st2/se1/0.dcm" not in contents(site.folder)
    site.recall_all()

    assert contents(site.folder) == before
    with site.store.connect() as db:
        assert len(worm.objects(db)) == 6  # the file's patient is another now, so both halves of the series are new


def test_a_lost_mark_is_set_again_and_a_damaged_one_is_told(build: Callable[..., Tiered]) -> None:
    site = build("active-archive")
    before = contents(site.folder)
    site.tiering().run()
    away.mark_of(site.folder / "st1/se1/0.dcm").unlink()
    away.mark_of(site.folder / "st1/se1/1.dcm").write_bytes(b"{")
    for number in (0, 1):
        away.mark_of(site.folder / f"st2/se1/{number}.dcm").unlink()

    with pytest.raises(FileNotFoundError):
        site.recalling().recall(site.folder / "st2/se1/0.dcm")
    site.recall_all()
    assert "st1/se1/0.dcm" in contents(site.folder)
    assert any("damaged" in line for line in site.said)

    failover.set_marks(site.tiering(), site.tiering().locked.copies)
    site.recall_all()
    assert contents(site.folder) == before


def test_a_forged_mark_takes_no_file_away(build: Callable[..., Tiered]) -> None:
    site = build("active-archive")
    site.tiering().run()
    before = contents(site.folder)
    (name, *_) = site.tiering().recallable()
    for path, content in before.items():
        file = site.folder / path
        away.put([(file, away.Mark(name, len(content), hashlib.sha256(content).hexdigest()))])

    site.tiering().run()

    assert before.items() <= contents(site.folder).items()


# ------------------------------------------------------------------ who opens files


def test_export_and_intake_open_what_is_away_and_what_is_known_is_not_brought_back(
    pair: dict[str, Ours], tmp_path: Path
) -> None:
    root, folder = tmp_path / "north", tmp_path / "pacs"
    create_site(root, "north")
    fill(folder)
    configure(root, folder, "active-archive", pair, "opened")
    command(root, "locked", "probe", "--make-buckets")
    site = open_site(root)
    intake = open_intake(site)
    plain = export(folder, tmp_path / "plain", site.config.deidentify, site.pseudonymiser, list, processes=1)
    assert command(root, "tiers", "run").returncode == 0
    assert len(contents(folder)) == 2

    recalled = export(
        folder, tmp_path / "recalled", site.config.deidentify, site.pseudonymiser, list,
        processes=2, recall=Recall(root),
    )  # fmt: skip

    assert recalled == plain
    assert contents(tmp_path / "recalled") == contents(tmp_path / "plain")
    assert len(contents(folder)) == 9

    first = ingest(folder, intake, _now(), processes=2)
    assert command(root, "tiers", "run").returncode == 0
    again = ingest(folder, intake, _now(), processes=2)
    assert (first.accepted + first.held, again.already_known) == (9, 9)
    assert len(contents(folder)) == 2
    site.store.dispose()


# ------------------------------------------------------------------ failover, and the way back


def test_another_domain_stands_in_for_a_folder_that_burnt_and_the_folder_serves_again(
    build: Callable[..., Tiered], pair: dict[str, Ours]
) -> None:
    site = build("failover")
    before = contents(site.folder)
    assert site.tiering().run().protected == 4
    with dead(pair["one"]):  # the building: its folder and its lock server
        shutil.rmtree(site.folder)
        began = time.monotonic()
        found = failover.fail_over(site.tiering(), "provider", "ann", "fire")
        site.recalling().recall(site.folder / "st1/se1/0.dcm")
        took = time.monotonic() - began
        assert found == failover.Difference(same=0, away=9, changed=0, lost=0, new=None)
        assert took < 30
        assert set(contents(site.folder)) == {f"st1/se1/{number}.dcm" for number in range(3)}
        site.tiers = replace(site.tiers, mode="production-in-cloud")
        assert site.tiering().run().left == 0  # nothing leaves while it stands in
        (site.folder / "st4").mkdir()
        (site.folder / "st4/new.dcm").write_bytes(before["st3/se1/0.dcm"].replace(b"1.2.3.3", b"1.2.3.4"))
        _, refusal = failover.fail_back(site.tiering(), "ann", "back")
        assert isinstance(refusal, Deny)

    until(lambda: not site.tiering().run().problems)
    difference, refusal = failover.fail_back(site.tiering(), "ann", "the lock server is back")
    assert refusal is None
    assert (difference.changed, difference.lost, difference.new) == (0, 0, 0)
    assert difference.same + difference.away == 10
    site.recall_all()
    assert before.items() <= contents(site.folder).items()
    with site.store.connect() as db:
        entries = [row.entry for row in db.exec_driver_sql("SELECT entry FROM ledger ORDER BY number")]
    assert entries.index("site:tiers:failed-over") < entries.index("site:tiers:failed-back")


def test_a_mode_without_a_stand_in_refuses_and_so_does_a_second_one(build: Callable[..., Tiered]) -> None:
    site = build("second-copy")
    site.tiering().run()
    refusal = failover.fail_over(site.tiering(), "provider", "ann", "drill")
    assert isinstance(refusal, Deny)
    assert "tiers.mode" in refusal.reason

    site.tiers = replace(site.tiers, mode="failover")
    assert not isinstance(failover.fail_over(site.tiering(), "provider", "ann", "drill"), Deny)
    assert isinstance(failover.fail_over(site.tiering(), "hospital", "ann", "drill"), Deny)


def test_files_that_the_stand_in_never_had_are_told_as_lost(build: Callable[..., Tiered]) -> None:
    site = build("failover")
    site.tiering(site.copies[0], unreachable(site.copies[1])).run()
    shutil.rmtree(site.folder)

    found = failover.fail_over(site.tiering(), "provider", "ann", "fire")

    assert found == failover.Difference(same=0, away=0, changed=0, lost=9, new=None)


# ------------------------------------------------------------------ the command, killed at any moment


def configure(root: Path, folder: Path, mode: str, pair: dict[str, Ours], own: str) -> None:
    """Write the site's configuration."""
    lines = [
        'name = "north"', "[locked]", "years = 1", "least_days = 1",
        "[tiers]", f'mode = "{mode}"', f'folder = "{folder}"', "keep_days = 365", "rest_days = 0",
    ]  # fmt: skip
    for (name, server), domain in zip(pair.items(), ("hospital", "provider"), strict=True):
        copy = server.copy(name, f"{own}-{name}", domain)
        lines += ["[[locked.copies]]", f"back_doors = {list(copy.back_doors)}"]
        lines += [
            f'{key} = "{getattr(copy, key)}"'
            for key in ("name", "endpoint", "bucket", "credentials", "domain", "authority_file")
        ]
    (root / "site.toml").write_text("\n".join(lines))


def command(root: Path, *words: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "site_node", "--home", str(root), *words],
        capture_output=True,
        text=True,
        check=False,
        env=os.environ | {"PYTHONPATH": str(ROOT)},
    )


def test_a_command_that_is_killed_at_any_moment_leaves_every_file_here_or_at_both_copies(
    pair: dict[str, Ours], tmp_path: Path
) -> None:
    root, folder = tmp_path / "north", tmp_path / "pacs"
    create_site(root, "north")
    fill(folder)
    before = contents(folder)
    configure(root, folder, "active-archive", pair, "killed")
    refused = command(root, "tiers", "run")
    assert refused.returncode == 3, refused.stderr  # never probed
    assert command(root, "locked", "probe", "--make-buckets").returncode == 0
    rng = random.Random(7)  # noqa: S311 -- moments of a test
    killed = 0

    for turn in range(24):
        words = ("run",) if turn % 3 != 2 else ("recall", "all")
        running = subprocess.Popen(
            [sys.executable, "-m", "site_node", "--home", str(root), "tiers", *words],
            env=os.environ | {"PYTHONPATH": str(ROOT)},
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
        )
        try:
            running.wait(rng.uniform(2, 7))
        except subprocess.TimeoutExpired:
            running.send_signal(signal.SIGKILL)
            running.wait()
            killed += 1
        here = contents(folder)
        for path, content in before.items():
            if path in here:
                assert here[path] == content
            else:
                mark = away.read(folder / path)
                assert mark is not None
                assert mark.sha256 == hashlib.sha256(content).hexdigest()
                for name, server in pair.items():
                    assert list(server.bucket(f"killed-{name}").versions(worm.PREFIX + mark.object))

    assert killed
    ran = command(root, "tiers", "run", "--json")
    assert ran.returncode == 0, ran.stderr
    assert len(contents(folder)) == 2
    study = command(root, "tiers", "recall", "1.2.3.1", "--json")
    assert json.loads(study.stdout) | {"bytes": 0} == {"objects": 2, "files": 5, "bytes": 0, "lost": 0}
    assert command(root, "tiers", "recall", "all").returncode == 0
    assert contents(folder) == before
    assert not list(away.marked(folder))
    with open_store(root / "site.db").connect() as db:
        text = "\n".join(str(row) for table in ("ledger", "tier_object", "locked_object")
                         for row in db.exec_driver_sql(f"SELECT * FROM {table}"))  # noqa: S608 -- names of our own  # fmt: skip
    assert "MRN-" not in text
    assert "se1" not in text

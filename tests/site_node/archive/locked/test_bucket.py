"""Buckets are searched in every version; what was not given is told, and what is taken away was whole here first."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING

import pytest
import sqlalchemy as sa

from site_node.archive import bucket as bucket_module
from site_node.archive.bucket import (
    CHANGED,
    NO_ANSWER,
    OTHER_LENGTH,
    UNFINISHED,
    Login,
    Objects,
    named,
    searched,
)
from site_node.archive.locked import credentials
from site_node.archive.locked.locks import GOVERNANCE
from site_node.archive.locked.places import Places
from site_node.config import LockedCopies, LockedCopy
from site_node.errors import ConfigurationError, EndpointRefused, EndpointUnreachable
from site_node.store import open_store, stray_decision, stray_file
from site_node.stray import actions, records
from site_node.stray.origin import NotGiven
from site_node.stray.records import Keys
from site_node.stray.scanning import TOO_LARGE, scan
from tests.site_node.archive.locked import servers
from tests.site_node.archive.locked.conftest import own_name

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from site_node.archive.locked.s3 import Bucket
    from site_node.stray.records import File
    from site_node.stray.scanning import Summary
    from tests.site_node.archive.locked.servers import Ours

KEYS = Keys(bytes(range(32)), bytes(reversed(range(32))))
NOON = datetime(2026, 3, 1, 12, tzinfo=UTC)
IDENTITY = b"last_name,first_name,dob\nQuixotevan,Dorothea,1961-04-17\n"
CLEAN = b"CT HEAD W/O CONTRAST, Parkinson disease\n"
VALUES = ("quixotevan", "dorothea", "1961-04-17")
SECRET_KEY = b"k" * 32


def _now() -> datetime:
    return NOON


def _put(bucket: Bucket, key: str, content: bytes = CLEAN, **fields: object) -> str:
    answer = bucket.ask("put_object", Key=key, Body=content, **fields)
    assert not answer.code, answer
    return str(answer.fields.get("VersionId", "null"))


@pytest.fixture
def research(lock_server: Ours, request: pytest.FixtureRequest) -> Bucket:
    """Return a bucket of this test's own, with versions and Object Lock."""
    return lock_server.bucket(own_name("research", request))


@pytest.fixture
def objects(lock_server: Ours, research: Bucket, root: Path) -> Objects:
    """Return it as a place to search."""
    return _objects(lock_server, research, root)


def _objects(server: Ours, bucket: Bucket, root: Path, prefix: str = "") -> Objects:
    (root / "work").mkdir(exist_ok=True)
    known, trusted = server.server.credentials, server.server.authority
    return Objects(bucket.endpoint, "us-east-1", bucket.name, prefix, known, trusted, root / "work")


def _scan(objects: Objects, store: sa.Engine, max_bytes: int = 1 << 30) -> Summary:
    return scan(objects, store, KEYS, _now, pictures="none", processes=0, max_bytes=max_bytes)


def _files(store: sa.Engine) -> dict[str, File]:
    with store.connect() as db:
        return {keyed(file): file for file in records.files(db)}


def keyed(file: File) -> str:
    """Return the key of an object, which only the site's key opens."""
    return KEYS.open(file.sealed)[1].rpartition("?")[0]


def test_every_version_of_a_bucket_is_searched_once_and_nothing_of_a_patient_is_kept(
    objects: Objects, research: Bucket, store: sa.Engine, root: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(bucket_module, "READ_WHOLE", 50_000)  # what is above lies in a file while it is looked at
    _put(research, "Büro/ä ö?x=1&b+c%20.txt")
    _put(research, "old.csv", IDENTITY)
    _put(research, "old.csv", CLEAN)
    _put(research, "hidden.csv", IDENTITY)
    research.ask("delete_object", Key="hidden.csv")
    _put(research, "Quixotevan_Dorothea/a.txt")
    _put(research, "said.txt", Metadata={"patient-name": "=?UTF-8?Q?Qu=C3=ADxotevan?="})
    _put(research, "tagged.txt", Tagging="patient-name=Quixotevan")
    _put(research, "large.txt", b"\n" * 60_000 + b"Patient: Quixotevan, Dorothea\n")
    _put(research, "too-large.txt", b"\n" * 100_000)
    _put(research, "sealed", IDENTITY, SSECustomerAlgorithm="AES256", SSECustomerKey=SECRET_KEY)
    only_a_marker = _put(research, "Dorothea Quixotevan.csv", IDENTITY)
    research.ask("delete_object", Key="Dorothea Quixotevan.csv")
    research.delete("Dorothea Quixotevan.csv", only_a_marker)
    research.ask("create_multipart_upload", Key="begun.csv")

    summary = _scan(objects, store, max_bytes=90_000)
    again = _scan(objects, store, max_bytes=90_000)
    flagged = {key for key, file in _files(store).items() if file.open}
    refused = [reason for reason in summary.faults if reason.startswith(bucket_module.REFUSED)]

    assert summary.files == summary.read == 12
    assert flagged == {
        "old.csv", "hidden.csv", "Quixotevan_Dorothea/a.txt", "said.txt", "tagged.txt", "large.txt",
        "Dorothea Quixotevan.csv",
    }  # fmt: skip
    assert summary.faults == {UNFINISHED: 1, TOO_LARGE: 1, refused[0]: 1}
    assert (again.read, again.unchanged) == (2, 10)  # what could not be had, and nothing else
    assert _files(store)["hidden.csv"].owner == "administrator"
    assert not list((root / "work").iterdir())
    store.dispose()
    kept = b"".join(path.read_bytes() for path in root.rglob("*") if path.is_file()).lower()
    assert [value for value in VALUES if value.encode() in kept] == []
    assert b"versionid=" in kept


@pytest.mark.slow
def test_only_keys_below_the_prefix_are_searched(lock_server: Ours, research: Bucket, root: Path) -> None:
    for key in ("export/a.txt", "export/b.txt", "other.txt"):
        _put(research, key)

    assert [item.key for item in _objects(lock_server, research, root, "export/").items()] == [
        "export/a.txt",
        "export/b.txt",
    ]


@pytest.mark.slow
def test_a_bucket_of_more_than_one_page_is_listed_whole(objects: Objects, research: Bucket) -> None:
    for number in range(501):
        for content in (b"old", b"new"):
            _put(research, f"{number:03}", content)
    for number in range(3):
        research.ask("create_multipart_upload", Key=f"begun-{number}")

    items = list(objects.items())

    assert len({item.address for item in items}) == len(items) == 1002 + 3
    assert sum(item.trouble == UNFINISHED for item in items) == 3


@pytest.mark.slow
def test_what_is_not_as_it_was_listed_is_no_content(objects: Objects, research: Bucket) -> None:
    _put(research, "a.txt")
    (item,) = objects.items()

    for other, reason in (
        (item._replace(size=item.size - 1), OTHER_LENGTH),
        (item._replace(size=item.size + 1), OTHER_LENGTH),
        (item._replace(stamp=f'"other" {NOON}'), CHANGED),
        (item._replace(key="b.txt"), bucket_module.REFUSED),
    ):
        with pytest.raises(NotGiven, match=reason), objects.content(other):
            pytest.fail("it was given")


@pytest.mark.slow
def test_a_bucket_that_cannot_be_listed_is_no_clean_bucket(objects: Objects, store: sa.Engine) -> None:
    nobody = replace(objects, credentials=None)
    missing = replace(objects, bucket="no-such-bucket")
    silent = replace(objects, endpoint=f"https://127.0.0.1:{servers.free_ports()}")

    for one, error in ((nobody, EndpointRefused), (missing, EndpointRefused), (silent, EndpointUnreachable)):
        with pytest.raises(error):
            _scan(one, store)
    with store.connect() as db:
        assert records.scans(db) == []


@pytest.mark.slow
def test_one_version_goes_to_quarantine_and_the_others_stay(
    objects: Objects, research: Bucket, store: sa.Engine, root: Path
) -> None:
    old = _put(research, "list.csv", IDENTITY)
    _put(research, "list.csv", CLEAN)
    _scan(objects, store)
    file = _files(store)["list.csv"]

    held = actions.quarantine(store, root, KEYS, file, "mm", "not here", NOON, objects)

    assert held.read_bytes() == IDENTITY
    assert held.stat().st_mode & 0o777 == 0o600
    assert research.content("list.csv", old) is None
    assert [item.size for item in objects.items()] == [len(CLEAN)]
    assert _files(store) == {}
    with pytest.raises(ConfigurationError, match="was an object of a bucket"):
        actions.restore(store, root, KEYS, file.id, "mm", "needed", NOON)
    assert held.exists()


@pytest.mark.slow
def test_what_is_locked_or_held_stays_and_leaves_no_second_copy(
    objects: Objects, research: Bucket, store: sa.Engine, root: Path
) -> None:
    until = datetime.now(UTC).replace(microsecond=0) + timedelta(days=1)
    _put(research, "locked.csv", IDENTITY, ObjectLockMode=GOVERNANCE, ObjectLockRetainUntilDate=until)
    _put(research, "held.csv", IDENTITY, ObjectLockLegalHoldStatus="ON")
    _scan(objects, store)
    files, at = _files(store), datetime.now(UTC)

    for key, why in (("locked.csv", f"locked until {until:%Y-%m-%d %H:%M} UTC"), ("held.csv", "under legal hold")):
        with pytest.raises(ConfigurationError, match=why):
            actions.quarantine(store, root, KEYS, files[key], "mm", "not here", at, objects)

    class Unaware(Objects):
        def kept_by(self, address: str, at: datetime) -> str:
            del address, at
            return ""

    with pytest.raises(EndpointRefused):
        actions.quarantine(store, root, KEYS, files["locked.csv"], "mm", "not here", at, _as(Unaware, objects))
    assert list((root / actions.FOLDER).iterdir()) == []
    assert set(_files(store)) == {"locked.csv", "held.csv"}
    assert _states(store) == [actions.UNDONE]


def _as(kind: type[Objects], objects: Objects) -> Objects:
    return kind(*(getattr(objects, name) for name in Objects.__slots__))


def _states(store: sa.Engine) -> list[str]:
    with store.connect() as db:
        return list(db.execute(sa.select(stray_decision.c.state)).scalars())


@pytest.mark.slow
def test_what_changed_since_it_was_searched_is_not_taken(
    objects: Objects, lock_server: Ours, store: sa.Engine, root: Path
) -> None:
    # Without versions a key can be written over at any moment.
    plain = lock_server.bucket(f"{objects.bucket}-plain", make=False)
    assert not plain.ask("create_bucket").code
    _put(plain, "list.csv", IDENTITY)
    place = _objects(lock_server, plain, root)
    _scan(place, store)
    file = _files(store)["list.csv"]

    class Overtaken(Objects):
        def fetch(self, address: str, target: Path) -> str:
            etag = Objects.fetch(self, address, target)
            _put(plain, "list.csv", CLEAN)
            return etag

    with pytest.raises(EndpointRefused, match="PreconditionFailed"):
        actions.quarantine(store, root, KEYS, file, "mm", "not here", NOON, _as(Overtaken, place))
    with pytest.raises(ConfigurationError, match="changed since"):
        actions.quarantine(store, root, KEYS, file, "mm", "not here", NOON, place)
    assert plain.content("list.csv", "null") == CLEAN
    assert list((root / actions.FOLDER).iterdir()) == []


@pytest.mark.slow
def test_a_quarantine_that_was_cut_off_before_the_object_was_deleted_is_told_and_made_again(
    objects: Objects, research: Bucket, store: sa.Engine, root: Path
) -> None:
    version = _put(research, "list.csv", IDENTITY)
    _scan(objects, store)
    file = _files(store)["list.csv"]

    class Dies(Objects):
        def delete(self, address: str, etag: str) -> None:
            del address, etag
            raise EndpointUnreachable("killed")

    with pytest.raises(EndpointUnreachable):
        actions.quarantine(store, root, KEYS, file, "mm", "not here", NOON, _as(Dies, objects))
    (line,) = actions.settle(store, root, KEYS)

    assert line.endswith("it is here; whether it is gone there, the next scan tells")
    assert research.content("list.csv", version) == IDENTITY
    assert _scan(objects, store).risks["high"] == 1  # it is there still, and no clean bucket
    actions.quarantine(store, root, KEYS, _files(store)["list.csv"], "mm", "not here", NOON, objects)
    assert research.content("list.csv", version) is None
    assert (root / actions.FOLDER / file.id).read_bytes() == IDENTITY


@pytest.mark.slow
def test_a_copy_of_an_object_is_given_to_deidentification(
    objects: Objects, research: Bucket, store: sa.Engine, root: Path
) -> None:
    version = _put(research, "list.csv", IDENTITY)
    _scan(objects, store)
    given: list[bytes] = []

    def export(folder: Path) -> str:
        given.extend(path.read_bytes() for path in folder.iterdir())
        return "held"

    actions.deidentify(store, root, KEYS, _files(store)["list.csv"], "mm", "needed", NOON, export, objects)

    assert given == [IDENTITY]
    assert research.content("list.csv", version) == IDENTITY
    with pytest.raises(ConfigurationError, match="lies in no folder"):
        actions.deidentify(store, root, KEYS, _files(store)["list.csv"], "mm", "needed", NOON, export)


@dataclass(frozen=True)
class Node:
    """A site that is driven by its commands, and a bucket at a server of this test's own."""

    home: Path
    server: Ours
    bucket: Bucket

    def command(self, *words: str) -> list[str]:
        """Return a command line of `filmroom-site stray`."""
        return [sys.executable, "-m", "site_node", "--home", str(self.home), "stray", *words]

    def run(self, *words: str) -> subprocess.CompletedProcess[str]:
        """Run a command of `filmroom-site stray`."""
        environment = os.environ | {"COLUMNS": "200", "NO_COLOR": "1"}
        return subprocess.run(self.command(*words), check=False, capture_output=True, text=True, env=environment)

    @property
    def login(self) -> list[str]:
        """Who reads the bucket, by files."""
        return ["--credentials", str(self.server.server.credentials), "--authority", str(self.server.server.authority)]

    def scan(self, *words: str) -> list[str]:
        """Return the words that search the bucket."""
        return ["scan", "--bucket", f"s3://{self.bucket.name}", "--endpoint", self.bucket.endpoint, *self.login, *words]

    def count(self) -> int:
        """Return how many objects are on record."""
        store = open_store(self.home / "site.db")
        with store.connect() as db:
            count = db.scalar(sa.select(sa.func.count()).select_from(stray_file))
        store.dispose()
        return int(count or 0)


@pytest.fixture
def node(tmp_path: Path) -> Iterator[Node]:
    """Yield a new site beside a lock server of its own."""
    server = servers.ours(tmp_path / "server")
    home = tmp_path / "site"
    subprocess.run([sys.executable, "-m", "site_node", "--home", home, "init", "--name", "north"], check=True)
    yield Node(home, server, server.bucket("research"))
    server.process.kill()


@pytest.mark.slow
@pytest.mark.timeout(900)
def test_a_server_that_dies_during_a_scan_leaves_nothing_clean_and_the_next_scan_goes_on(node: Node) -> None:
    for number in range(400):
        _put(node.bucket, f"{number:03}.csv", IDENTITY if number % 2 else CLEAN)
    words = node.scan("--json", "--processes", "1")

    with subprocess.Popen(node.command(*words), stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as process:
        while node.count() < 128:
            assert process.poll() is None
            time.sleep(0.05)
        node.server.process.kill()
        said, _ = process.communicate(timeout=600)
    (cut,) = json.loads(said)
    listed = node.run("list", "--not-scanned", "--json")

    assert process.returncode == 9
    assert cut["files"] == 400
    assert cut["faults"] == {NO_ANSWER: cut["not_scanned"]}
    assert 0 < cut["not_scanned"] <= 272
    assert len(json.loads(listed.stdout)) == cut["not_scanned"]
    assert node.run(*words).returncode == 5  # it cannot even be listed

    node.server.start()
    while node.bucket.content("399.csv", next(node.bucket.versions("399.csv")).version_id) is None:
        time.sleep(0.5)  # for some seconds after its start it refuses reads
    again, third = node.run(*words), node.run(*words)

    (rest,) = json.loads(again.stdout)
    assert (again.returncode, rest["read"], rest["not_scanned"]) == (7, cut["not_scanned"], 0)
    assert rest["risks"]["high"] == 200
    assert json.loads(third.stdout)[0]["read"] == 0


@pytest.mark.slow
@pytest.mark.timeout(900)
def test_a_scan_of_a_bucket_that_is_killed_goes_on_and_large_objects_are_read_in_processes(node: Node) -> None:
    for number in range(300):
        _put(node.bucket, f"{number:03}.csv", IDENTITY)
    _put(node.bucket, "large.bin", b"\0" * (40 << 20) + b"\nPatient: Quixotevan, Dorothea\n")
    words = node.scan("--json", "--processes", "2")
    with subprocess.Popen(node.command(*words), stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL) as process:
        while node.count() < 128:
            assert process.poll() is None
            time.sleep(0.05)
        process.kill()
    done = node.count()

    again = node.run(*words)

    (summary,) = json.loads(again.stdout)
    assert (summary["read"], summary["unchanged"]) == (301 - done, done)
    assert (again.returncode, summary["risks"]["high"]) == (7, 301)


@pytest.mark.slow
def test_a_person_decides_about_objects_by_commands_and_no_secret_is_kept(node: Node) -> None:
    own = node.server.copy("vault", node.bucket.name)
    (node.home / "site.toml").write_text(f"""
name = "north"
[[locked.copies]]
name = "vault"
endpoint = "{own.endpoint}"
bucket = "{own.bucket}"
credentials = "{own.credentials}"
authority_file = "{own.authority_file}"
domain = "hospital"
""")
    for name in ("accepted.csv", "Quixotevan_Dorothea.csv"):
        _put(node.bucket, name, IDENTITY)
    why = ("--by", "mm", "--reason", "a test")

    first = node.run("scan", "--bucket", "vault")
    rows = json.loads(node.run("list", "--json").stdout)
    ids = {row["file"].partition("?")[0]: row["id"] for row in rows}
    done = [
        node.run("accept", ids["accepted.csv"], *why),
        node.run("quarantine", ids["▒▒▒.csv"], *why),
        node.run("show", ids["accepted.csv"]),
        node.run("report", str(node.home / "stray.html")),
    ]
    second = node.run("scan", "--bucket", "vault")
    refused = node.run("restore", ids["▒▒▒.csv"], *why)

    assert (first.returncode, second.returncode, refused.returncode) == (7, 0, 4)
    assert [one.returncode for one in done] == [0, 0, 0, 0], [one.stderr for one in done]
    assert [item.name for item in node.bucket.versions()] == ["accepted.csv"]
    assert "was an object of a bucket" in refused.stderr.replace("\n", " ")
    known = credentials.read(node.server.server.credentials)
    said = "".join(one.stdout + one.stderr for one in (first, second, refused, *done))
    kept = b"".join(
        path.read_bytes() for path in node.home.rglob("*") if path.is_file() and path.parent.name != "stray"
    )
    for secret in (known.secret_key, known.access_key, *VALUES):
        assert secret.lower() not in said.lower()
        assert secret.lower().encode() not in kept.lower()


def test_buckets_are_named_by_address_or_as_copies_and_never_with_a_secret(root: Path, store: sa.Engine) -> None:
    own = LockedCopy("vault", "https://vault.example.org", "images", "file:identity/vault.ini", "hospital")
    places = Places(root, LockedCopies(copies=(own,)), store)
    other = Login(root / "other.ini")

    by_copy = named(places, "vault", None, Login())
    by_address = named(places, "s3://images/ex port/", "https://vault.example.org/", other)
    at_amazon = named(places, "s3://images", None, Login(region="eu-central-1"))

    assert by_copy.credentials == root / "identity/vault.ini"
    assert (by_address.bucket, by_address.prefix, by_address.credentials) == ("images", "ex port/", root / "other.ini")
    assert (at_amazon.endpoint, at_amazon.credentials) == ("https://s3.eu-central-1.amazonaws.com", None)
    assert searched(places, by_address.name, Login()) == by_copy
    assert searched(places, by_address.name, other) == replace(by_address, prefix="")
    assert searched(places, str(root), Login()) is None
    for name, endpoint in (
        ("s3:///images", None),
        ("https://images", None),
        ("other", None),
        ("s3://images", "http://vault.example.org"),
        ("s3://images", "https://key:secret@vault.example.org"),
    ):
        with pytest.raises(ConfigurationError) as refused:
            named(places, name, endpoint, Login())
        assert "secret" not in str(refused.value)

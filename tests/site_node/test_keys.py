"""Keys by reference: files kept as secrets, tokens asked for one HMAC, and nothing else."""

from __future__ import annotations

import os
import subprocess
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from hypothesis import given
from hypothesis import strategies as st

from site_node import cryptoki, keys
from site_node.config import KEY_SCHEMES
from site_node.errors import ConfigurationError

if TYPE_CHECKING:
    from collections.abc import Iterator

KEY = bytes(range(32))
MODULE = Path("/usr/lib/softhsm/libsofthsm2.so")
PIN = "8361-7720"
TOKEN = "filmroom"  # noqa: S105 -- the name of a token
URI = f"pkcs11:token={TOKEN};object=pseudonyms?module-path={MODULE}&pin-source=file:identity/pin"


def test_a_key_in_a_file_of_its_owner_is_read(root: Path) -> None:
    keys.make_file(root / "identity" / "a.key", KEY)

    assert keys.load("file:identity/a.key", root, "any") == KEY
    assert keys.load(f"file:{root}/identity/a.key", Path("/elsewhere"), "any") == KEY
    assert (root / "identity" / "a.key").stat().st_mode & 0o777 == 0o600


@pytest.mark.parametrize("mode", [0o640, 0o604, 0o660, 0o666, 0o601])
def test_a_key_that_others_could_read_is_refused(root: Path, mode: int) -> None:
    keys.make_file(root / "a.key", KEY)
    (root / "a.key").chmod(mode)

    with pytest.raises(ConfigurationError, match=f"open to others \\(mode {mode:04o}\\)"):
        keys.load("file:a.key", root, "any")


def test_what_is_no_key_file_is_refused(root: Path) -> None:
    keys.make_file(root / "short.key", KEY[:31])
    keys.make_file(root / "real.key", KEY)
    (root / "link.key").symlink_to(root / "real.key")
    os.mkfifo(root / "pipe.key", 0o600)

    with pytest.raises(ConfigurationError, match="32 bytes"):
        keys.load("file:short.key", root, "any")
    with pytest.raises(ConfigurationError, match="missing"):
        keys.load("file:none.key", root, "any")
    with pytest.raises(ConfigurationError, match="not a regular file"):
        keys.load("file:pipe.key", root, "any")
    with pytest.raises(OSError, match="link"):
        keys.load("file:link.key", root, "any")


def test_a_key_of_another_user_is_refused(root: Path) -> None:
    if os.geteuid() != 0:
        pytest.skip("only root can give a file away")
    keys.make_file(root / "a.key", KEY)
    os.chown(root / "a.key", 12345, 12345)

    with pytest.raises(ConfigurationError, match="another user"):
        keys.load("file:a.key", root, "any")


@pytest.mark.parametrize(
    "reference", ["", "file:", "secret", "aws-kms:alias/x", "https://vault/x", "env:KEY", "0123abcd" * 8]
)
def test_a_scheme_that_is_not_served_is_refused_and_what_was_written_is_not_repeated(
    root: Path, reference: str
) -> None:
    with pytest.raises(ConfigurationError, match="file:, pkcs11: alone") as caught:
        keys.load(reference, root, "any")

    assert not reference or reference.rstrip(":") == "file" or reference not in str(caught.value)


def test_the_configuration_takes_the_schemes_that_are_served() -> None:
    assert tuple(f"{scheme}:" for scheme in keys.SCHEMES) == KEY_SCHEMES


def test_a_destroyed_file_is_overwritten_before_it_is_gone(root: Path) -> None:
    keys.make_file(root / "a.key", KEY)
    (root / "seen").hardlink_to(root / "a.key")

    keys.destroy("file:a.key", root)
    keys.destroy("file:a.key", root)

    assert not (root / "a.key").exists()
    assert (root / "seen").read_bytes() == bytes(32)


def test_a_key_is_never_written_over_another(root: Path) -> None:
    keys.make_file(root / "a.key", KEY)

    with pytest.raises(ConfigurationError, match="there already"):
        keys.make_file(root / "a.key", bytes(32))

    assert keys.load("file:a.key", root, "any") == KEY


def test_a_pkcs11_uri_is_read_as_its_standard_says() -> None:
    # The characters of RFC 7512 section 3's examples: escapes in token, object and id.
    found = cryptoki.parse(
        "token=The%20Software%20PKCS%2311;object=my%3Bkey;id=%69%95%FF;serial=33;slot-id=7;type=secret-key"
        "?pin-source=file:/etc/token_pin&module-path=/usr/lib/p11%26.so"
    )

    assert found == cryptoki.Address(
        "/usr/lib/p11&.so", "/etc/token_pin", "The Software PKCS#11", "my;key", b"i\x95\xff", b"33", 7
    )


@pytest.mark.parametrize(
    ("uri", "fault"),
    [
        ("object=a?module-path=/m&pin-source=file:p", "token is missing"),
        ("token=t?module-path=/m&pin-source=file:p", "object or id"),
        ("token=t;object=a?module-path=/m", "pin-source is missing"),
        ("token=t;object=a?pin-source=file:p", "module-path is missing"),
        ("token=t;object=a?module-path=/m&pin-value=1234", "not served"),
        ("token=t;object=a?module-path=/m&pin-source=|cat", "must be a file: reference"),
        ("token=t;token=u;object=a?module-path=/m&pin-source=file:p", "token is given twice"),
        ("token=t;object=a;type=private?module-path=/m&pin-source=file:p", "secret-key"),
        ("token=t;object=a;slot-id=x?module-path=/m&pin-source=file:p", "must be a number"),
        ("token=%FF;object=a?module-path=/m&pin-source=file:p", "token is not UTF-8"),
    ],
)
def test_a_pkcs11_uri_that_says_too_little_or_too_much_is_refused(uri: str, fault: str) -> None:
    with pytest.raises(ConfigurationError, match=fault):
        cryptoki.parse(uri)


@given(st.text())
def test_whatever_stands_in_a_uri_is_read_or_refused(text: str) -> None:
    try:
        cryptoki.parse(text)
    except ConfigurationError as error:
        assert "1234" not in str(error)  # noqa: PT017 -- either is right


@pytest.fixture
def token(root: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """Yield the folder of a site beside a software token with the key `pseudonyms`."""
    if not MODULE.exists():
        pytest.skip("needs Debian's softhsm2")
    pkcs11 = pytest.importorskip("pkcs11")
    (root / "tokens").mkdir()
    (root / "softhsm2.conf").write_text(f"directories.tokendir = {root / 'tokens'}\nlog.level = ERROR\n")
    monkeypatch.setenv("SOFTHSM2_CONF", str(root / "softhsm2.conf"))
    label = ["--free", "--label", TOKEN, "--so-pin", "5512", "--pin", PIN]
    subprocess.run(["softhsm2-util", "--init-token", *label], check=True, capture_output=True)  # noqa: S607 -- Debian's
    keys.make_file(root / "identity" / "pin", f"{PIN}\n".encode())
    library = pkcs11.lib(str(MODULE))
    library.reinitialize()
    with library.get_token(token_label=TOKEN).open(rw=True, user_pin=PIN) as session:
        session.generate_key(
            pkcs11.KeyType.GENERIC_SECRET,
            256,
            label="pseudonyms",
            id=b"\x07",
            store=True,
            template={pkcs11.Attribute.SIGN: True, pkcs11.Attribute.EXTRACTABLE: False},
        )
    yield root
    library.finalize()


def test_a_key_on_a_token_gives_the_same_key_for_the_same_use_alone(token: Path) -> None:
    first = keys.load(URI, token, "project/a")

    assert len(first) == keys.KEY_BYTES
    assert keys.load(URI, token, "project/a") == first
    assert keys.load(URI.replace("object=pseudonyms", "id=%07"), token, "project/a") == first
    assert keys.load(URI, token, "project/b") != first


@pytest.mark.parametrize(
    ("old", "new", "fault"),
    [
        ("token=filmroom", "token=another", "0 tokens answer"),
        ("object=pseudonyms", "object=another", "no such key"),
        (str(MODULE), "/usr/lib/none.so", "pkcs11"),
    ],
)
def test_a_token_that_is_not_what_was_named_is_refused(token: Path, old: str, new: str, fault: str) -> None:
    with pytest.raises(ConfigurationError, match=fault):
        keys.load(URI.replace(old, new), token, "any")


def test_a_wrong_pin_is_refused_and_not_repeated(token: Path) -> None:
    (token / "identity" / "pin").write_text("0000-1111")

    with pytest.raises(ConfigurationError, match="PinIncorrect") as caught:
        keys.load(URI, token, "any")

    assert "0000" not in str(caught.value)


def test_a_pin_that_others_could_read_is_refused(token: Path) -> None:
    (token / "identity" / "pin").chmod(0o644)

    with pytest.raises(ConfigurationError, match="open to others"):
        keys.load(URI, token, "any")


def test_a_key_that_was_destroyed_on_its_token_is_gone(token: Path) -> None:
    keys.destroy(URI, token)
    keys.destroy(URI, token)

    with pytest.raises(ConfigurationError, match="no such key"):
        keys.load(URI, token, "any")

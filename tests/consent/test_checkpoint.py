"""A note opens only as its log signed it, and a cosignature counts for the witness and the moment it names."""

from __future__ import annotations

import base64
import hashlib
from dataclasses import replace
from datetime import UTC, datetime
from typing import Final

import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from hypothesis import given
from hypothesis import strategies as st

from consent import (
    Checkpoint,
    CheckpointInvalid,
    cosign,
    cosigners,
    open_checkpoint,
    read_verifier_key,
    sign_checkpoint,
    verifier_key,
)

KEY: Final = Ed25519PrivateKey.from_private_bytes(bytes(range(32)))
OTHER: Final = Ed25519PrivateKey.from_private_bytes(bytes(32))
STATE: Final = Checkpoint("example.org/log", 4096, bytes(range(32)))
NOTE: Final = sign_checkpoint(STATE, KEY)
SEEN: Final = datetime(2026, 6, 1, 12, tzinfo=UTC)
WITNESS: Final = verifier_key("witness.example", OTHER.public_key())


def test_a_note_is_the_state_and_a_signature_as_the_standard_writes_them() -> None:
    text = f"example.org/log\n4096\n{base64.b64encode(STATE.root).decode()}\n"
    public = KEY.public_key().public_bytes_raw()
    digest = hashlib.sha256(b"example.org/log\n\x01" + public).digest()[:4]
    blob = base64.b64encode(digest + KEY.sign(text.encode())).decode()

    assert f"{text}\n— example.org/log {blob}\n" == NOTE
    assert open_checkpoint(NOTE, STATE.origin, KEY.public_key()) == STATE


def test_a_cosignature_is_over_the_moment_and_the_state() -> None:
    line = cosign(NOTE, "witness.example", OTHER, SEEN)

    assert cosigners(NOTE + line, [WITNESS]) == {WITNESS: SEEN}
    blob = base64.b64decode(line.split(" ")[2])
    seconds = int(SEEN.timestamp())
    assert blob[4:12] == seconds.to_bytes(8)
    OTHER.public_key().verify(blob[12:], f"cosignature/v1\ntime {seconds}\n{STATE.text}".encode())


@given(st.data())
def test_a_note_with_any_one_byte_changed_does_not_open(data: st.DataObject) -> None:
    changed = bytearray(NOTE.encode())
    place = data.draw(st.integers(0, len(changed) - 2))  # the last line's end is nobody's
    changed[place] ^= data.draw(st.integers(1, 127))

    with pytest.raises(CheckpointInvalid):
        open_checkpoint(changed.decode(errors="replace"), STATE.origin, KEY.public_key())


@pytest.mark.parametrize(
    "note",
    [
        "",
        "a note",
        STATE.text,
        NOTE.replace("4096", "04096"),
        NOTE.replace("4096", "+4096"),
        NOTE.replace("4096", "-1"),
        NOTE.replace("\n4096", "\n4096\nfurther"),
        NOTE.replace("—", "-"),
        sign_checkpoint(STATE, OTHER),
        sign_checkpoint(replace(STATE, origin="example.org/another"), KEY),
    ],
)
def test_what_is_no_note_of_this_log_by_this_key_is_refused(note: str) -> None:
    with pytest.raises(CheckpointInvalid):
        open_checkpoint(note, STATE.origin, KEY.public_key())


def test_signatures_of_others_on_a_note_are_passed_over() -> None:
    line = cosign(NOTE, "witness.example", OTHER, SEEN)

    assert open_checkpoint(NOTE + line + "— someone bm90aGluZw==\n", STATE.origin, KEY.public_key()) == STATE


def test_a_cosignature_counts_for_its_own_state_witness_and_moment_alone() -> None:
    line = cosign(NOTE, "witness.example", OTHER, SEEN)
    later = sign_checkpoint(replace(STATE, size=4160), KEY)

    assert cosigners(NOTE, [WITNESS]) == {}
    assert cosigners(later + line, [WITNESS]) == {}
    assert cosigners(NOTE + line, [verifier_key("witness.example", KEY.public_key())]) == {}
    assert cosigners(NOTE + line, [verifier_key("another.example", OTHER.public_key())]) == {}
    forged = base64.b64decode(line.split(" ")[2])
    dated = forged[:4] + (int.from_bytes(forged[4:12]) + 60).to_bytes(8) + forged[12:]
    assert cosigners(f"{NOTE}— witness.example {base64.b64encode(dated).decode()}\n", [WITNESS]) == {}


def test_the_sites_own_signature_is_no_cosignature() -> None:
    own = verifier_key(STATE.origin, KEY.public_key())

    assert cosigners(NOTE, [own]) == {}


def test_a_verifier_key_reads_back_and_a_changed_one_does_not() -> None:
    name, key = read_verifier_key(WITNESS)

    assert (name, key.public_bytes_raw()) == ("witness.example", OTHER.public_key().public_bytes_raw())
    name, digest, raw = WITNESS.split("+", 2)
    for wrong in ("", "witness", f"other+{digest}+{raw}", f"{name}+00000000+{raw}", f"{name}+{digest}+AQ=="):
        with pytest.raises(ValueError):  # noqa: PT011 -- whatever is wrong with it
            read_verifier_key(wrong)


@pytest.mark.parametrize(
    ("origin", "size", "root"), [("a b", 1, bytes(32)), ("a", -1, bytes(32)), ("a", 1, b""), ("", 1, bytes(32))]
)
def test_a_state_that_no_note_can_say_cannot_be_made(origin: str, size: int, root: bytes) -> None:
    with pytest.raises(ValueError, match="log"):
        Checkpoint(origin, size, root)

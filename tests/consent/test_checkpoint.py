"""Checkpoints against published notes, their own round trip, and whoever tampers."""

from __future__ import annotations

import base64
from dataclasses import replace
from datetime import UTC, datetime

import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from hypothesis import given
from hypothesis import strategies as st

from consent import (
    COSIGNATURE,
    NOTE,
    Checkpoint,
    CheckpointInvalid,
    WitnessRequest,
    add_cosignatures,
    cosign,
    cosigners,
    log_origin,
    log_verifier,
    open_checkpoint,
    origin_of,
    parse_verifier,
    read_request,
    sign_checkpoint,
    witness_verifier,
    write_request,
)
from consent.checkpoint import MAX_NOTE_BYTES, _signature_line, _split
from consent.merkle import EMPTY_ROOT

LOG_KEY = Ed25519PrivateKey.from_private_bytes(b"l" * 32)
WITNESS_KEY = Ed25519PrivateKey.from_private_bytes(b"w" * 32)
ORIGIN = log_origin("north-sea", "bergen", LOG_KEY.public_key())
LOG = log_verifier(ORIGIN, LOG_KEY.public_key())
WITNESS = witness_verifier("witness.example/w1", WITNESS_KEY.public_key())
STATE = Checkpoint(ORIGIN, 7, b"\x07" * 32)
SIGNED = sign_checkpoint(STATE, ORIGIN, LOG_KEY)
AT = datetime(2026, 11, 27, 9, 0, tzinfo=UTC)

# golang.org/x/mod sumdb/note (BSD-3-Clause, the Go Authors): its published key pair and note.
GO_SEED = base64.b64decode("AYEKFALVFGyNhPJEMzD1QIDr+Y7hfZx09iUvxdXHKDFz")[1:]
GO_VKEY = "PeterNeumann+c74f20a3+ARpc2QcUPDhMQegwxbzhKqiBfsVkmqq/LDE4izWy10TW"
GO_TEXT = "If you think cryptography is the answer to your problem,\nthen you don't know what your problem is.\n"
GO_LINE = (
    "— PeterNeumann x08go/ZJkuBS9UG/SffcvIAQxVBtiFupLLr8pAcElZInNIuGUgYN1FFYC2pZSNXgKvqfqdngotpRZb6KE6RyyBwJnAM=\n"
)


def _reason(note: str) -> str:
    with pytest.raises(CheckpointInvalid) as refused:
        open_checkpoint(note, LOG)
    return refused.value.reason


# ------------------------------------------------------------------ published


def test_a_published_key_reads_and_writes_as_it_was_published() -> None:
    key = Ed25519PrivateKey.from_private_bytes(GO_SEED)

    assert parse_verifier(GO_VKEY, NOTE).key == key.public_key()
    assert log_verifier("PeterNeumann", key.public_key()).text == GO_VKEY


def test_a_published_note_is_signed_byte_for_byte() -> None:
    key = Ed25519PrivateKey.from_private_bytes(GO_SEED)

    assert _signature_line(parse_verifier(GO_VKEY, NOTE), key.sign(GO_TEXT.encode())) == GO_LINE
    assert _split(f"{GO_TEXT}\n{GO_LINE}") == (GO_TEXT, [GO_LINE.rstrip("\n")])


@pytest.mark.parametrize(
    "text",
    [
        GO_VKEY.replace("c74f20a3", "c74f20a4"),
        GO_VKEY.replace("c74f20a3", "C74F20A3"),
        GO_VKEY.replace("PeterNeumann", "Peter Neumann"),
        GO_VKEY.replace("+AR", "+BR"),
        GO_VKEY[:-1],
        GO_VKEY + "=",
        "+" + GO_VKEY,
        "",
    ],
)
def test_a_key_that_is_not_whole_is_refused(text: str) -> None:
    with pytest.raises(CheckpointInvalid, match="bad-vkey"):
        parse_verifier(text, NOTE)


def test_a_log_key_is_no_witness_key() -> None:
    with pytest.raises(CheckpointInvalid, match="bad-vkey"):
        parse_verifier(LOG.text, COSIGNATURE)


# ------------------------------------------------------------------ the log's signature


@given(st.integers(1, 2**63 - 1), st.binary(min_size=32, max_size=32))
def test_what_a_log_signs_opens_as_it_was(size: int, root: bytes) -> None:
    state = Checkpoint(ORIGIN, size, root)

    assert open_checkpoint(sign_checkpoint(state, ORIGIN, LOG_KEY), LOG) == state


def test_an_empty_log_has_a_checkpoint() -> None:
    state = Checkpoint(ORIGIN, 0, EMPTY_ROOT)

    assert open_checkpoint(sign_checkpoint(state, ORIGIN, LOG_KEY), LOG) == state


@pytest.mark.parametrize(("size", "root"), [(-1, b"r" * 32), (1, b"r" * 31), (0, b"r" * 32), (2**63, b"r" * 32)])
def test_what_no_log_can_be_has_no_checkpoint(size: int, root: bytes) -> None:
    with pytest.raises(ValueError, match=r"log|checkpoint"):
        Checkpoint(ORIGIN, size, root)


@pytest.mark.parametrize(
    ("old", "new"),
    [("\n7\n", "\n8\n"), ("north-sea", "south-sea"), ("BwcHBwcH", "CAcHBwcH")],
)
def test_a_changed_line_breaks_the_signature(old: str, new: str) -> None:
    body, _, signatures = SIGNED.partition("\n\n")
    assert old in body + "\n"

    changed = (body + "\n").replace(old, new) + "\n" + signatures

    assert _reason(changed) == "bad-signature"


def test_another_keys_signature_is_none() -> None:
    other = Ed25519PrivateKey.from_private_bytes(b"o" * 32)

    assert _reason(sign_checkpoint(STATE, ORIGIN, other)) == "unsigned"


def test_a_line_of_a_stranger_is_ignored_beside_the_logs_own() -> None:
    other = Ed25519PrivateKey.from_private_bytes(b"o" * 32)
    both = add_cosignatures(sign_checkpoint(STATE, ORIGIN, other), SIGNED.partition("\n\n")[2])

    assert open_checkpoint(both, LOG) == STATE


def test_a_bad_line_of_the_log_refuses_the_note_although_a_good_one_stands_beside_it() -> None:
    another = sign_checkpoint(replace(STATE, size=8), ORIGIN, LOG_KEY).partition("\n\n")[2]

    assert _reason(add_cosignatures(SIGNED, another)) == "bad-signature"


@pytest.mark.parametrize(
    ("old", "new"),
    [
        ("\n", "\r\n"),
        ("\u2014", "-"),
        ("\n\n", "\n"),
        ("=\n", "=\n\n"),
        ("filmroom", "film\x01room"),
    ],
)
def test_a_note_has_one_form(old: str, new: str) -> None:
    assert _reason(SIGNED.replace(old, new)) == "malformed"


@pytest.mark.parametrize("cut", [SIGNED.rstrip("\n"), SIGNED.partition("\n\n")[0] + "\n\n", "\n\n", ""])
def test_a_note_is_whole(cut: str) -> None:
    assert _reason(cut) == "malformed"


@pytest.mark.parametrize(
    ("old", "new"),
    [
        ("\n7\n", "\n07\n"),
        ("\n7\n", "\n+7\n"),
        ("\n7\n", "\n\u0667\n"),
        ("\n7\n", f"\n{2**63}\n"),
        ("\n7\n", "\n0\n"),
        ("cHBwc=\n", "cHBwd=\n"),
        ("cHBwc=\n", "cHBwc=\nan extension\n"),
        ("cHBwc=\n", "cHBwc=\n\n"),
        ("filmroom.org", "film room"),
    ],
)
def test_another_spelling_is_refused_although_the_log_signed_it(old: str, new: str) -> None:
    body = SIGNED.partition("\n\n")[0] + "\n"
    assert old in body
    spelt = body.replace(old, new)

    assert _reason(f"{spelt}\n{_signature_line(LOG, LOG_KEY.sign(spelt.encode()))}") == "malformed"


def test_a_note_that_is_too_large_is_not_read() -> None:
    assert _reason(SIGNED + SIGNED.partition("\n\n")[2] * 33) == "too-large"
    assert _reason(SIGNED + "x" * MAX_NOTE_BYTES) == "too-large"


@given(st.text(max_size=400))
def test_no_text_of_a_stranger_is_a_checkpoint(text: str) -> None:
    with pytest.raises(CheckpointInvalid):
        open_checkpoint(text, LOG)


def test_another_receipt_key_is_another_log() -> None:
    other = Ed25519PrivateKey.from_private_bytes(b"o" * 32)

    assert log_origin("north-sea", "bergen", other.public_key()) != ORIGIN
    assert ORIGIN.startswith("filmroom.org/log/north-sea/bergen/")
    assert len(ORIGIN.rpartition("/")[2]) == 16


# ------------------------------------------------------------------ cosignatures


def test_a_cosigned_checkpoint_tells_who_saw_it_and_when() -> None:
    note = add_cosignatures(SIGNED, cosign(SIGNED, WITNESS.name, WITNESS_KEY, AT))

    assert cosigners(note, [WITNESS]) == {WITNESS.name: AT}
    assert open_checkpoint(note, LOG) == STATE
    assert origin_of(note) == ORIGIN


def test_the_cosigned_message_is_that_of_the_specification() -> None:
    line = cosign(SIGNED, WITNESS.name, WITNESS_KEY, AT)
    content = base64.b64decode(line.split()[2])
    body = SIGNED.partition("\n\n")[0] + "\n"

    assert int.from_bytes(content[4:12]) == int(AT.timestamp())
    WITNESS_KEY.public_key().verify(content[12:], f"cosignature/v1\ntime {int(AT.timestamp())}\n{body}".encode())


def test_a_cosignature_of_another_checkpoint_does_not_count() -> None:
    other = sign_checkpoint(replace(STATE, size=8), ORIGIN, LOG_KEY)

    assert cosigners(add_cosignatures(SIGNED, cosign(other, WITNESS.name, WITNESS_KEY, AT)), [WITNESS]) == {}


def test_a_cosignature_with_another_time_does_not_count() -> None:
    line = cosign(SIGNED, WITNESS.name, WITNESS_KEY, AT)
    content = bytearray(base64.b64decode(line.split()[2]))
    content[11] ^= 1
    moved = f"\u2014 {WITNESS.name} {base64.b64encode(content).decode()}\n"

    assert cosigners(add_cosignatures(SIGNED, moved), [WITNESS]) == {}


def test_the_log_cannot_cosign_itself_in_a_witnesss_name() -> None:
    forged = cosign(SIGNED, WITNESS.name, LOG_KEY, AT)

    assert cosigners(add_cosignatures(SIGNED, forged), [WITNESS]) == {}


def test_a_line_is_added_once() -> None:
    line = cosign(SIGNED, WITNESS.name, WITNESS_KEY, AT)
    note = add_cosignatures(SIGNED, line)

    assert add_cosignatures(note, line + line) == note


@pytest.mark.parametrize("lines", ["not a line\n", "\n", "— a b", "— a b\n"])
def test_what_is_no_signature_line_is_not_added(lines: str) -> None:
    with pytest.raises(CheckpointInvalid, match="malformed"):
        add_cosignatures(SIGNED, lines)


# ------------------------------------------------------------------ the request


@given(st.integers(0, 2**63 - 1), st.lists(st.binary(min_size=32, max_size=32), max_size=63))
def test_a_request_reads_as_it_was_written(old: int, proof: list[bytes]) -> None:
    request = WitnessRequest(old, tuple(proof), SIGNED)

    assert read_request(write_request(request)) == request


@pytest.mark.parametrize(
    "body",
    [
        b"",
        b"\xff\n\n",
        b"old 1\n" + SIGNED.encode(),
        b"old 01\n\n" + SIGNED.encode(),
        b"old -1\n\n" + SIGNED.encode(),
        b"new 1\n\n" + SIGNED.encode(),
        b"old 1\nAAAA\n\n" + SIGNED.encode(),
        b"old 1\n" + (base64.b64encode(b"h" * 32) + b"\n") * 64 + b"\n" + SIGNED.encode(),
    ],
)
def test_a_request_that_is_none_is_refused(body: bytes) -> None:
    with pytest.raises(CheckpointInvalid, match="malformed"):
        read_request(body)

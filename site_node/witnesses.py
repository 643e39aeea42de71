"""Has the witnesses this hospital chose cosign the state of its consent log.

The hospital's one line ends at the coordinator, which passes the question on; the answers are checked here against the
keys in site.toml. Source: C2SP tlog-witness.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from consent import CheckpointInvalid, WitnessRequest, add_cosignatures, cosigners, write_request
from site_node.errors import PeerError

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from consent import Verifier

COSIGNED: Final = 200
ELSEWHERE: Final = 409
"""The witness knows the log at another size, which it tells."""


class Witnesses:
    """The witnesses of this hospital, and where each knows the log to be.

    `ask(name, request)` returns the witness's status and text, and raises PeerError where there is no answer.
    """

    def __init__(
        self, verifiers: Sequence[Verifier], quorum: int, ask: Callable[[str, bytes], tuple[int, str]]
    ) -> None:
        self._verifiers = tuple(verifiers)
        self._quorum = quorum
        self._ask = ask
        self._sizes: dict[str, int] = {}

    def cosigned(self, note: str, size: int, prove: Callable[[int, int], Sequence[bytes]]) -> str | None:
        """Return `note`, of the log at `size`, with the cosignatures that could be had; None if they are too few.

        `prove(old, new)` returns the proof that the log grew.
        """
        lines = [self._line(verifier, note, size, prove) for verifier in self._verifiers]
        signed = [line for line in lines if line]
        return add_cosignatures(note, "".join(signed)) if len(signed) >= self._quorum else None

    def _line(self, witness: Verifier, note: str, size: int, prove: Callable[[int, int], Sequence[bytes]]) -> str:
        """Return the witness's line; nothing if it does not sign."""
        for _ in range(2):
            old = self._sizes.get(witness.name, 0)
            request = write_request(WitnessRequest(old, tuple(prove(old, size)), note))
            try:
                status, text = self._ask(witness.name, request)
            except PeerError:
                return ""
            if status == COSIGNED:
                self._sizes[witness.name] = size
                return text if _is_by(witness, note, text) else ""
            told = text.strip()
            if status != ELSEWHERE or not (told.isascii() and told.isdigit()) or int(told) > size:
                return ""
            self._sizes[witness.name] = int(told)
        return ""


def _is_by(witness: Verifier, note: str, line: str) -> bool:
    """Whether `line` is one line, of this witness, over `note`."""
    try:
        return line.count("\n") == 1 and bool(cosigners(note + line, (witness,)))
    except CheckpointInvalid:
        return False

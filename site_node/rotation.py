"""A new receipt key for this site, within its membership.

The new key lies in `receipt.key.next` until the coordinator has it; cut off at any moment, it is finished by
doing it again.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from consent import generate_signing_key, key_id, succeed
from site_node import release
from site_node.errors import PeerRefused
from site_node.keys import move_into_place, read_signing_key, write_signing_key

if TYPE_CHECKING:
    from site_node.config import SiteHome


def rotate(home: SiteHome) -> str:
    """Have the coordinator take a new receipt key, and sign with it from then on; return its id.

    No node may run in the folder meanwhile.
    Raises: PeerRefused if the coordinator will not have it, and the key stays as it is; PeerError if it did not answer:
        ask again, before the node serves.
    """
    identity = home.load_identity()
    if not home.next_receipt_key.exists():
        write_signing_key(home.next_receipt_key, generate_signing_key())
    old, new = read_signing_key(identity.receipt_key), read_signing_key(home.next_receipt_key)
    refusal = release.announce_key(identity, succeed(identity.federation, identity.site, old, new))
    if refusal:
        home.next_receipt_key.unlink()
        raise PeerRefused(f"changing the receipt key: the coordinator refused: {refusal}")
    move_into_place(home.next_receipt_key, identity.receipt_key)
    return key_id(new.public_key())

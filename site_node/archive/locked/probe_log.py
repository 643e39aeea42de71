"""Results of the conformance probe on record, each signed, and what the latest says of a copy."""

from __future__ import annotations

from typing import TYPE_CHECKING

import sqlalchemy as sa

from consent import Deny, Permit
from site_node import ledger
from site_node.archive.locked import probe
from site_node.store import lock_probe

if TYPE_CHECKING:
    from datetime import datetime

    from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey, Ed25519PublicKey

    from site_node.config import LockedCopy


def keep(store: sa.Engine, result: probe.ProbeResult, key: Ed25519PrivateKey) -> None:
    """Sign a result and put it on record."""
    envelope = probe.sign_result(result, key)
    with store.begin() as db:
        db.execute(sa.insert(lock_probe).values(endpoint=result.endpoint, bucket=result.bucket, envelope=envelope))
        ledger.write(
            db,
            result.at,
            "site:locked:probed",
            endpoint=result.endpoint,
            bucket=result.bucket,
            failed=", ".join(check.check for check in result.failed),
        )


def verdict(db: sa.Connection, copy: LockedCopy, key: Ed25519PublicKey, at: datetime) -> Permit | Deny:
    """Return whether a copy may be called compliant at a moment; no answer is no."""
    columns = lock_probe.c
    envelope = db.execute(
        sa.select(columns.envelope)
        .where(columns.endpoint == copy.endpoint, columns.bucket == copy.bucket)
        .order_by(columns.number.desc())
        .limit(1)
    ).scalar()
    if envelope is None:
        return Deny("never probed")
    try:
        result = probe.open_result(envelope, key)
    except probe.ProbeInvalid as error:
        return Deny(f"the result of the probe is not this site's: {error.reason}")
    return probe.is_compliant(result, copy.endpoint, copy.bucket, at)

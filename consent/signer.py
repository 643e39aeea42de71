"""The certificate by which a federation's authority vouches for the key that its coordinator signs statements with.

A site knows the authority since its invitation and nothing else of the coordinator, so the certificate
travels with what was signed. Only this key is Ed25519 and has this name: a member's certificate, or the
coordinator's for TLS, vouches for no statement.

Source: RFC 5280 sections 4.1.2.4 to 4.1.2.6 (issuer, validity, subject); RFC 8410 (Ed25519).
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from cryptography import x509
from cryptography.exceptions import InvalidSignature, UnsupportedAlgorithm
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey

from consent.errors import SignerInvalid

if TYPE_CHECKING:
    from datetime import datetime


def signer_name(federation: str) -> str:
    """Return the common name in the certificate; no site can be called so."""
    return f"{federation} statements"


def signer_key(certificate: bytes, authority: bytes, federation: str, at: datetime) -> Ed25519PublicKey:
    """Return the key in `certificate`, if `authority` vouches for it at `at`; both are PEM.

    Raises: SignerInvalid whose `reason` is `malformed`, `not-certified`, `not-in-time` or `wrong-kind`.
    """
    try:
        shown, issuer = (x509.load_pem_x509_certificate(pem) for pem in (certificate, authority))
        key = shown.public_key()
    except (ValueError, UnsupportedAlgorithm) as error:
        raise SignerInvalid("malformed") from error
    try:
        shown.verify_directly_issued_by(issuer)
    except (ValueError, TypeError, InvalidSignature) as error:
        raise SignerInvalid("not-certified") from error
    if not shown.not_valid_before_utc <= at <= shown.not_valid_after_utc:
        raise SignerInvalid("not-in-time")
    names = [name.value for name in shown.subject.get_attributes_for_oid(x509.NameOID.COMMON_NAME)]
    if names != [signer_name(federation)] or not isinstance(key, Ed25519PublicKey):
        raise SignerInvalid("wrong-kind")
    return key

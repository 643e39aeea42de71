"""A grant as a GA4GH visa: what it claims, or why a visa cannot say it.

Pure; signing is the program's. A consumer sees the visa alone, so whatever limits the grant has to be in it: a grant
under a condition that a visa cannot express has no visa. A condition can be expressed if it is the https address of
terms that the holder accepted, which another visa of the holder then has to show.

Source: GA4GH Passport 1.2, Visa Format and ControlledAccessGrants; GA4GH AAI OIDC Profile 1.2, Visa Document Token.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final
from urllib.parse import quote, urlsplit

from consent.access import Deny, Permit, permits_project

if TYPE_CHECKING:
    from collections.abc import Sequence
    from datetime import datetime

    from consent.access import Grant

VISA_TYPE: Final = "vnd.ga4gh.visa+jwt"
"""The `typ` of a visa's header."""


@dataclass(frozen=True, slots=True)
class VisaParties:
    """Who a visa speaks of: its issuer, the holder as the issuer knows them, the committee, and the dataset's address.

    All but `subject` are https addresses without query and fragment, which consumers compare as they stand.
    """

    issuer: str
    subject: str
    source: str
    dataset: str

    def __post_init__(self) -> None:
        """Refuse an address that is none and a subject that says nothing."""
        for name in ("issuer", "source", "dataset"):
            if not _is_address(getattr(self, name)):
                raise ValueError(f"{name}: not an https address without query and fragment")
        if not self.subject.strip():
            raise ValueError("subject: empty")


def visa_claims(
    grant: Grant, conditions: Sequence[str], parties: VisaParties, jti: str, at: datetime
) -> dict[str, Any] | Deny:
    """Return the claims of a ControlledAccessGrants visa for a grant that holds at `at`, or why there is none.

    It ends when the grant ends. Moments are seconds since 1970 (RFC 7519 NumericDate), rounded down.
    """
    holds = permits_project([grant], grant.dataset, grant.project, at)
    if not isinstance(holds, Permit):
        return holds
    untold = [condition for condition in conditions if not _is_address(condition)]
    if untold:
        return Deny(f"grant: a visa cannot say its condition {untold[0]!r}; only an https address of accepted terms")
    return {
        "iss": parties.issuer,
        "sub": parties.subject,
        "jti": jti,
        "iat": int(at.timestamp()),
        "exp": int(grant.expires_at.timestamp()),
        "ga4gh_visa_v1": {
            "type": "ControlledAccessGrants",
            "asserted": int(grant.granted_at.timestamp()),
            "value": parties.dataset,
            "source": parties.source,
            "by": "dac",
            **({"conditions": [[_accepted(terms) for terms in conditions]]} if conditions else {}),
        },
    }


def dataset_address(issuer: str, name: str) -> str:
    """Return an address for a dataset that has none of its own, below the issuer's."""
    return f"{issuer.rstrip('/')}/datasets/{quote(name, safe='')}"


def _accepted(terms: str) -> dict[str, str]:
    """Return the clause that another visa of the holder shows that `terms` were accepted; all of one list must hold."""
    return {"type": "AcceptedTermsAndPolicies", "value": f"const:{terms}"}


def _is_address(text: str) -> bool:
    try:
        parts = urlsplit(text)
    except ValueError:
        return False
    whole = text.isascii() and text.isprintable() and " " not in text
    return whole and parts.scheme == "https" and bool(parts.hostname) and not (parts.query or parts.fragment)

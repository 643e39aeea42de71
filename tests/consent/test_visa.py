"""A visa says exactly what the grant says, in the claims of GA4GH Passport 1.2; a grant it cannot say has none."""

from __future__ import annotations

from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import Any, Final

import pytest

from consent import Deny, Grant, VisaParties, dataset_address, visa_claims

NOON: Final = datetime(2026, 6, 1, 12, tzinfo=UTC)
GRANT: Final = Grant("brain-mr", "tissue-2026", NOON - timedelta(days=1), NOON + timedelta(days=30))
PARTIES: Final = VisaParties(
    "https://north.example", "rika@consortium.example", "https://north.example/dac", "https://north.example/d/brain-mr"
)
TERMS: Final = ("https://north.example/terms/1", "https://north.example/terms/2")


def test_the_claims_are_those_of_the_grant() -> None:
    assert visa_claims(GRANT, (), PARTIES, "id-1", NOON) == {
        "iss": "https://north.example",
        "sub": "rika@consortium.example",
        "jti": "id-1",
        "iat": 1780315200,  # 2026-06-01T12:00:00Z
        "exp": 1782907200,  # 2026-07-01T12:00:00Z
        "ga4gh_visa_v1": {
            "type": "ControlledAccessGrants",
            "asserted": 1780228800,  # 2026-05-31T12:00:00Z
            "value": "https://north.example/d/brain-mr",
            "source": "https://north.example/dac",
            "by": "dac",
        },
    }


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        ({"revoked_at": NOON}, "grant: revoked"),
        ({"expires_at": NOON}, "grant: expired"),
        ({"granted_at": NOON + timedelta(seconds=1)}, "grant: not yet in force"),
    ],
)
def test_a_grant_that_does_not_hold_has_no_visa(change: dict[str, Any], reason: str) -> None:
    assert visa_claims(replace(GRANT, **change), (), PARTIES, "id-1", NOON) == Deny(reason)


def test_a_visa_ends_not_after_its_grant() -> None:
    claims = visa_claims(replace(GRANT, expires_at=NOON + timedelta(microseconds=1)), (), PARTIES, "id-1", NOON)

    assert not isinstance(claims, Deny)
    assert claims["exp"] <= NOON.timestamp()


def test_terms_that_were_accepted_become_conditions_that_must_all_hold() -> None:
    claims = visa_claims(GRANT, TERMS, PARTIES, "id-1", NOON)

    assert not isinstance(claims, Deny)
    # Passport 1.2, "conditions": the outer list is OR, the inner AND; beside `type` a clause names one claim at least.
    assert claims["ga4gh_visa_v1"]["conditions"] == [
        [{"type": "AcceptedTermsAndPolicies", "value": f"const:{terms}"} for terms in TERMS]
    ]


@pytest.mark.parametrize("condition", ["no export", "http://north.example/t", "https:///t", "https://n.example/a b"])
def test_a_condition_that_a_visa_cannot_say_is_not_left_out(condition: str) -> None:
    answer = visa_claims(GRANT, (*TERMS, condition), PARTIES, "id-1", NOON)

    assert isinstance(answer, Deny)
    assert repr(condition) in answer.reason


@pytest.mark.parametrize("name", ["issuer", "source", "dataset"])
@pytest.mark.parametrize(
    "address",
    ["", "north", "http://n.example", "https://", "https://n.example?x", "https://n#x", "https://[", "https://ö"],
)
def test_an_address_is_https_and_plain(name: str, address: str) -> None:
    with pytest.raises(ValueError, match=name):
        replace(PARTIES, **{name: address})


def test_a_visa_has_a_holder() -> None:
    with pytest.raises(ValueError, match="subject"):
        replace(PARTIES, subject=" ")


def test_a_datasets_address_has_its_name_as_one_part() -> None:
    assert dataset_address("https://n.example/", "a b/ö") == "https://n.example/datasets/a%20b%2F%C3%B6"

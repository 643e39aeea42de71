"""A visa is verified by its public key alone, and a grant that was taken back has none."""

from __future__ import annotations

import base64
import json
import subprocess
import sys
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Any, Final

import pytest
import sqlalchemy as sa
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey
from joserfc import jwt
from joserfc.errors import BadSignatureError
from joserfc.jwk import KeySet

from consent import Deny, VisaParties
from site_node import access_requests, permissions, visas
from site_node.app import create_site
from site_node.config import SiteHome
from site_node.errors import ConfigurationError
from site_node.store import dataset, open_store
from site_node.visas import Algorithm
from tests.site_node.hospital import NOON, TERMS, Hospital, form_of
from tests.site_node.test_cli import refused, run

if TYPE_CHECKING:
    from pathlib import Path

PARTIES: Final = VisaParties(
    "https://north.example", "rika", "https://north.example/dac", "https://north.example/d/brain-mr"
)
JKU: Final = "https://north.example/.well-known/jwks.json"
ISSUER: Final = ("--issuer", "https://north.example", "--subject", "rika", "--by", "carla")


def issue(hospital: Hospital, number: int | None = None, **more: Any) -> visas.Visa | Deny:
    folder = hospital.home.identity
    folder.mkdir(exist_ok=True)
    return visas.issue(hospital.store, folder, number or hospital.request, PARTIES, JKU, "carla", NOON, **more)


def issued(hospital: Hospital, **more: Any) -> visas.Visa:
    visa = issue(hospital, **more)
    assert isinstance(visa, visas.Visa)
    return visa


@pytest.mark.parametrize("algorithm", Algorithm)
def test_joserfc_verifies_a_visa_with_the_published_keys(hospital: Hospital, algorithm: Algorithm) -> None:
    visa = issued(hospital, algorithm=algorithm)
    published = _published(hospital)

    token = jwt.decode(visa.token, KeySet.import_key_set(published), algorithms=[algorithm.value])

    assert token.claims == visa.claims
    (key,) = published["keys"]
    assert token.header == {"typ": "vnd.ga4gh.visa+jwt", "alg": algorithm.value, "kid": key["kid"], "jku": JKU}
    assert "d" not in key
    assert token.claims["exp"] == int((NOON + timedelta(days=30)).timestamp())


def test_an_ed25519_visa_is_verified_without_the_library_that_made_it(hospital: Hospital) -> None:
    visa = issued(hospital)
    (key,) = visas.jwks(hospital.home.identity)["keys"]
    signed, _, signature = visa.token.rpartition(".")

    Ed25519PublicKey.from_public_bytes(_bytes(key["x"])).verify(_bytes(signature), signed.encode())

    assert json.loads(_bytes(signed.partition(".")[2])) == visa.claims


def _published(hospital: Hospital) -> Any:
    return json.loads(json.dumps(visas.jwks(hospital.home.identity)))


def _bytes(text: str) -> bytes:
    return base64.urlsafe_b64decode(text + "=" * (-len(text) % 4))


def test_a_changed_visa_is_not_verified(hospital: Hospital) -> None:
    visa = issued(hospital)
    head, body, signature = visa.token.split(".")
    longer = json.dumps(visa.claims | {"exp": visa.claims["exp"] + 1}).encode()
    changed = ".".join((head, base64.urlsafe_b64encode(longer).decode().rstrip("="), signature))

    with pytest.raises(BadSignatureError):
        jwt.decode(changed, KeySet.import_key_set(_published(hospital)), algorithms=["Ed25519"])
    assert body not in changed


def test_the_key_is_born_once_and_kept_as_a_secret(hospital: Hospital) -> None:
    first, second = issued(hospital), issued(hospital)
    path = hospital.home.identity / "visa-ed25519.key"

    assert first.token.partition(".")[0] == second.token.partition(".")[0]
    assert first.claims["jti"] != second.claims["jti"]
    assert path.stat().st_mode & 0o777 == 0o600
    path.chmod(0o644)
    with pytest.raises(ConfigurationError, match="open to others"):
        issue(hospital)


def test_it_ends_by_the_datasets_time_limit_and_by_an_earlier_end(hospital: Hospital) -> None:
    by_grant = issued(hospital).claims["exp"]
    early = NOON + timedelta(days=2)
    limited = json.dumps(TERMS | {"modifiers": [{"code": "TS", "values": ["1"]}]})

    assert issued(hospital, until=early).claims["exp"] == int(early.timestamp())
    assert issued(hospital, until=NOON + timedelta(days=90)).claims["exp"] == by_grant
    with hospital.store.begin() as db:
        db.execute(sa.update(dataset).values(terms=limited))
    month = datetime(2026, 6, 30, 12, tzinfo=UTC)  # one month after the grant of 31 May
    assert issued(hospital).claims["exp"] == int(month.timestamp())


def revoked_grant(hospital: Hospital) -> int:
    hospital.revoke_grant()
    return hospital.request


def unconfirmed(hospital: Hospital) -> int:
    made = access_requests.draft(hospital.store, form_of("brain-mr"), "applicant", NOON)
    assert not isinstance(made, Deny)
    return made.number


def revoked_dataset(hospital: Hospital) -> int:
    permissions.revoke_dataset(hospital.store, "brain-mr", "manager", NOON)
    return hospital.request


def other_terms(hospital: Hospital) -> int:
    terms = json.dumps(TERMS | {"modifiers": [{"code": "DUO:0000015"}]})  # no methods research
    with hospital.store.begin() as db:
        db.execute(sa.update(dataset).values(terms=terms))
    return hospital.request


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        (revoked_grant, "grant: revoked"),
        (unconfirmed, "grant: never approved here"),
        (revoked_dataset, "dataset: revoked"),
        (other_terms, "data use: "),
    ],
)
def test_what_may_not_be_used_has_no_visa_and_the_refusal_is_on_record(
    hospital: Hospital, change: Any, reason: str
) -> None:
    answer = issue(hospital, change(hospital))

    assert isinstance(answer, Deny)
    assert answer.reason.startswith(reason)
    assert _last_entry(hospital)["entry"] == "site:visa:refused"


def test_a_visa_is_on_record_with_whom_it_was_given_to(hospital: Hospital) -> None:
    visa = issued(hospital)

    entry = _last_entry(hospital)
    assert (entry["entry"], entry["jti"], entry["subject"]) == ("site:visa:issued", visa.claims["jti"], "rika")


def _last_entry(hospital: Hospital) -> dict[str, Any]:
    from site_node.store import ledger  # noqa: PLC0415 -- the table, beside a module of that name

    row = hospital.rows(ledger)[-1]
    return {"entry": row["entry"], **json.loads(row["detail"])}


# ------------------------------------------------------------------ the command


@pytest.fixture
def home(root: Path) -> Path:
    """Return the folder of a site with one granted request."""
    create_site(root, "north")
    store = open_store(SiteHome(root).database)
    now = datetime.now(UTC)
    permissions.register_dataset(store, "brain-mr", TERMS, "MR", "steward", now)
    permissions.approve_dataset(store, "brain-mr", "manager", now)
    form = form_of("brain-mr")
    made = access_requests.draft(store, form, "anna", now)
    assert not isinstance(made, Deny)
    access_requests.submit(store, made.number, "anna", now)
    access_requests.approve(store, made.number, "ben", now, now + timedelta(days=30), words="w")
    access_requests.confirm(store, made.number, "carla", now)
    store.dispose()
    return root


def test_the_command_writes_a_visa_that_the_written_keys_verify(home: Path) -> None:
    to, keys = home.parent / "visa.jwt", home.parent / "jwks.json"

    done = run(home, "requests", "visa", "1", "--to", to, "--jwks", keys, *ISSUER)

    assert done.returncode == 0, done.stderr
    assert to.stat().st_mode & 0o777 == 0o600
    token = jwt.decode(to.read_text(), KeySet.import_key_set(json.loads(keys.read_text())), algorithms=["Ed25519"])
    assert token.claims["ga4gh_visa_v1"]["value"] == "https://north.example/datasets/brain-mr"
    assert token.claims["ga4gh_visa_v1"]["source"] == "https://north.example"
    refused(run(home, "requests", "visa", "1", "--to", to, *ISSUER), 4, "is there already")
    run(home, "requests", "revoke", "1", "--reason", "over", "--by", "dora")
    refused(run(home, "requests", "visa", "1", "--to", home.parent / "2.jwt", *ISSUER), 3, "refused: grant: revoked")
    refused(run(home, "requests", "visa", "7", "--to", home.parent / "2.jwt", *ISSUER), 4, "there is no such request")
    assert not (home.parent / "2.jwt").exists()


def test_without_the_extra_a_clear_line_says_what_is_missing(home: Path) -> None:
    code = "import sys; sys.modules['joserfc'] = None; from site_node.cli import main; main()"
    arguments: list[str | Path] = ["--home", home, "requests", "visa", "1", "--to", home.parent / "visa.jwt", *ISSUER]

    done = subprocess.run([sys.executable, "-c", code, *arguments], capture_output=True, text=True, check=False)

    refused(done, 4, "install filmroom with the extra `visas`")
    assert not (home.parent / "visa.jwt").exists()
    assert not (home / "identity" / "visa-ed25519.key").exists()

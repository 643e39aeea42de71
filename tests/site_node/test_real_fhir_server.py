"""Consents arrive from a FHIR server that is not ours, over the public command; what it does is what servers do."""

from __future__ import annotations

import json
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

import pytest

from site_node import fhir_server
from site_node.app import fetch_consents, open_site
from site_node.config import ConsentServer
from site_node.errors import ConfigurationError, PeerError
from site_node.fhir_server import PAGE_SIZE
from site_node.gate import Snapshot
from site_node.service import following_consents
from site_node.store import consent_record
from tests.scenarios.setting import wait_until
from tests.site_node.hospital import Hospital, consent_of
from tests.site_node.real_fhir_server import TOKEN, RealServer, certificate
from tests.site_node.test_cli import refused, run

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path
    from subprocess import CompletedProcess

    from site_node.fetching import Fetched

SYSTEM = "urn:oid:1.2.276.0.76.4.1"


@pytest.fixture(scope="module")
def running(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RealServer]:
    """Yield a server that runs."""
    made = RealServer(tmp_path_factory.mktemp("fhir"))
    try:
        made.start()
        yield made
    finally:
        made.stop()


@pytest.fixture
def server(running: RealServer) -> RealServer:
    """Return the server, holding nothing."""
    running.empty()
    return running


@pytest.fixture
def hospital(open_hospital: Hospital) -> Hospital:
    """Return a hospital of today: the server's clock is no other."""
    return open_hospital


def fetch(hospital: Hospital, server: RealServer, *options: str) -> CompletedProcess[str]:
    return run(hospital.home.root, "consents", "fetch", server.address, "--token", server.token_file, *options)


def fetched(hospital: Hospital, server: RealServer, *, whole: bool = False) -> Fetched:
    """Do as the command does, without a process of its own."""
    told = ConsentServer(server.address, token_file=str(server.token_file))
    return fetch_consents(open_site(hospital.home.root), told, whole=whole)


def outcomes(hospital: Hospital) -> dict[str, str]:
    """Return what is decided on each patient's study."""
    found = hospital.gate.explained(hospital.task, datetime.now(UTC))
    assert isinstance(found, Snapshot), found
    names = {study: patient for patient, study in hospital.studies.items()}
    return {names[study]: verdict.outcome.name for study, verdict in sorted(found.cohort.verdicts.items())}


def everyone(hospital: Hospital, **elements: Any) -> list[dict[str, Any]]:
    return [consent_of(patient, **elements) for patient in hospital.studies]


def is_known_since(hospital: Hospital) -> str | None:
    sources = json.loads(run(hospital.home.root, "consents", "sources", "--json").stdout)
    return next((source["as_of"] for source in sources if source["source"] == "fhir"), None)


def test_all_consents_are_read_over_several_pages_and_then_what_changed(hospital: Hospital, server: RealServer) -> None:
    many = [consent_of(f"M{number}") for number in range(PAGE_SIZE + 3)]
    server.put(*everyone(hospital), *many)

    done = fetch(hospital, server)
    assert done.returncode == 0, done.stderr
    assert f"{len(many) + 4} consents loaded" in done.stdout
    assert "_offset=500" in server.asked()[2]

    server.put(consent_of("M7", status="inactive"), consent_of("M9999"))
    assert fetched(hospital, server).records == 2
    assert "_lastUpdated=ge" in server.asked()[4]
    assert fetched(hospital, server, whole=True).records == 0
    with hospital.store.connect() as db:
        held = {row.consent_id for row in db.execute(consent_record.select()) if row.superseded_at is None}
    assert held == {f"consent-{patient}" for patient in (*hospital.studies, *(f"M{n}" for n in range(503)), "M9999")}


def test_what_is_revoked_at_the_server_is_no_longer_permitted_after_the_next_reading(
    hospital: Hospital, server: RealServer
) -> None:
    server.put(*everyone(hospital))
    fetched(hospital, server)
    assert set(outcomes(hospital).values()) == {"PERMIT"}

    server.put(consent_of("N1", status="inactive"), consent_of("N2", kind="deny"))
    fetched(hospital, server)

    assert outcomes(hospital) == {"N0": "PERMIT", "N1": "NO_CONSENT", "N2": "DENY", "N3": "PERMIT"}


def test_what_is_revoked_while_the_site_trains_voids_that_work(hospital: Hospital, server: RealServer) -> None:
    server.put(*everyone(hospital))
    fetched(hospital, server)

    def n3_revokes() -> None:
        server.put(consent_of("N3", status="inactive"))
        fetched(hospital, server)

    assert hospital.ask("m1") == "release"
    hospital.trainer.during = n3_revokes
    assert hospital.ask("m2", nonce="nonce-2", round=2) == "abstain"


def test_a_deleted_consent_is_noticed_by_the_next_reading_and_waits_for_a_person(
    hospital: Hospital, server: RealServer
) -> None:
    server.put(*everyone(hospital), consent_of("N2", kind="deny", id="refusal-N2"))
    fetched(hospital, server)

    server.delete("consent-N1", "refusal-N2")
    done = fetch(hospital, server)

    assert "1 consents held before need review: fhir no longer has them" in done.stderr
    assert outcomes(hospital) == {"N0": "PERMIT", "N1": "REVIEW", "N2": "DENY", "N3": "PERMIT"}
    assert fetched(hospital, server).missed == 0

    server.put(consent_of("N1"))
    assert fetched(hospital, server).records == 1
    assert outcomes(hospital)["N1"] == "PERMIT"


@pytest.mark.parametrize("whole", [False, True])
def test_a_deletion_does_not_hide_behind_a_consent_that_is_new(
    hospital: Hospital, server: RealServer, *, whole: bool
) -> None:
    server.put(*everyone(hospital))
    fetched(hospital, server)

    server.delete("consent-N0")
    server.put(consent_of("N7"))
    fetched(hospital, server, whole=whole)

    assert outcomes(hospital)["N0"] == "REVIEW"


def test_a_person_may_let_a_deleted_consent_count_again(hospital: Hospital, server: RealServer) -> None:
    server.put(*everyone(hospital))
    fetched(hospital, server)
    server.delete("consent-N1")
    fetched(hospital, server)

    done = run(hospital.home.root, "consents", "confirm", "consent-N1", "--by", "manager")

    assert done.returncode == 0, done.stderr
    fetched(hospital, server, whole=True)
    assert outcomes(hospital)["N1"] == "PERMIT"


@pytest.mark.parametrize("change", ["revoke", "delete"])
def test_a_consent_that_a_change_pushes_past_the_reader_makes_the_reading_void(server: RealServer, change: str) -> None:
    server.put(*(consent_of(f"M{number}") for number in range(PAGE_SIZE + 1)))
    with fhir_server.connect(server.address, TOKEN) as connected:
        pages = connected.consents(None, datetime.now(UTC))
        first = next(pages)
        if change == "revoke":
            server.put({**first[0], "status": "inactive"}, {**first[1], "status": "inactive"})
        else:
            server.delete(str(first[0]["id"]))

        with pytest.raises(PeerError, match="not all were shown"):
            list(pages)


def test_a_server_that_goes_away_in_the_middle_was_not_read(hospital: Hospital, server: RealServer) -> None:
    server.put(*everyone(hospital), *(consent_of(f"M{number}") for number in range(PAGE_SIZE)))
    with fhir_server.connect(server.address, TOKEN) as connected:
        pages = connected.consents(None, datetime.now(UTC))
        assert len(next(pages)) == PAGE_SIZE
        server.stop()
        with pytest.raises(PeerError, match="reading consents"):
            next(pages)

    refused(fetch(hospital, server), 5, "reading consents: ConnectError")
    assert is_known_since(hospital) is None

    server.start()
    fetched(hospital, server)
    assert is_known_since(hospital) is not None


def test_the_token_is_asked_for_by_the_server_and_a_wrong_one_is_no_reading(
    hospital: Hospital, server: RealServer
) -> None:
    wrong = server.folder / "wrong"
    wrong.touch(0o600)
    wrong.write_text("not-the-token")

    refused(run(hospital.home.root, "consents", "fetch", server.address), 5, "answered 401")
    refused(run(hospital.home.root, "consents", "fetch", server.address, "--token", wrong), 5, "answered 401")
    assert is_known_since(hospital) is None


def test_a_server_with_tls_is_read_when_its_authority_is_trusted(hospital: Hospital, tmp_path: Path) -> None:
    folder = tmp_path / "tls"
    folder.mkdir()
    server = RealServer(folder, certificate(folder))
    server.start()
    try:
        server.put(*everyone(hospital))

        refused(fetch(hospital, server), 5, "reading consents: ConnectError")
        done = fetch(hospital, server, "--authority", str(server.tls and server.tls[0]))
        assert "4 consents loaded" in done.stdout, done.stderr
    finally:
        server.stop()


def patient(logical_id: str, *identifiers: tuple[str, str], **elements: str) -> dict[str, Any]:
    listed = [{"system": system, "value": value} | elements for system, value in identifiers]
    return {
        "resourceType": "Patient",
        "id": logical_id,
        "identifier": listed,
        "name": [{"family": "Zwetschgenbaum"}],
        "birthDate": "1961-07-04",
    }


def test_a_reference_is_followed_to_the_identifier_and_never_taken_for_one(
    hospital: Hospital, server: RealServer
) -> None:
    with (hospital.home.root / "site.toml").open("a") as file:
        file.write(f'patient_system = "{SYSTEM}"\n')
    server.put(
        patient("17", (SYSTEM, "N0"), ("urn:insurer", "N9")),
        # The server's own id of this patient is the PatientID of another.
        patient("N1", (SYSTEM, "N2")),
        patient("19", ("urn:insurer", "N3")),
        consent_of("a", patient={"reference": "Patient/17"}, kind="deny"),
        consent_of("b", patient={"reference": f"{server.address}/Patient/N1"}, kind="deny"),
        consent_of("c", patient={"reference": "Patient/19"}, kind="deny"),
    )

    done = fetch(hospital, server)

    assert done.returncode == 1
    assert "2 consents loaded" in done.stdout
    assert "not loaded: Consent/consent-c: patient: not named by an identifier" in done.stderr
    assert outcomes(hospital) == {"N0": "DENY", "N1": "PERMIT", "N2": "DENY", "N3": "PERMIT"}
    kept = b"".join(file.read_bytes() for file in hospital.home.root.glob("site.db*"))
    assert b"Zwetschgenbaum" not in kept
    assert b"1961-07-04" not in kept


def test_without_a_system_a_reference_is_followed_only_where_one_identifier_is_meant(
    hospital: Hospital, server: RealServer
) -> None:
    server.put(
        patient("N1", ("urn:a", "N0")),
        patient("18", ("urn:a", "N2"), ("urn:b", "N3")),
        patient("N3", ("urn:a", "N3"), use="old"),
        consent_of("a", patient={"reference": "Patient/N1"}, kind="deny"),
        consent_of("b", patient={"reference": "Patient/18"}, kind="deny"),
        consent_of("c", patient={"reference": "Patient/N3"}, kind="deny"),
    )

    done = fetch(hospital, server)

    assert "1 consents loaded" in done.stdout
    assert done.stderr.count("not loaded") == 2
    assert outcomes(hospital) == {"N0": "DENY", "N1": "PERMIT", "N2": "PERMIT", "N3": "PERMIT"}


def test_nothing_of_a_patient_stands_in_what_the_server_is_asked(hospital: Hospital, server: RealServer) -> None:
    server.put(*everyone(hospital))
    fetched(hospital, server)
    fetched(hospital, server)

    asked = "".join(server.asked())

    assert len(server.asked()) == 2 + 3
    assert not [name for name in hospital.studies if name in asked]


def configure(hospital: Hospital, **settings: object) -> None:
    with (hospital.home.root / "site.toml").open("a") as file:
        file.write("[consents]\n" + "".join(f"{key} = {json.dumps(value)}\n" for key, value in settings.items()))


def test_a_node_that_serves_reads_the_server_now_and_then_and_goes_on_when_it_was_away(
    hospital: Hospital, server: RealServer
) -> None:
    server.put(*everyone(hospital))
    configure(hospital, fhir_url=server.address, token_file=str(server.token_file), interval_min=0.005)
    said: list[str] = []

    with following_consents(open_site(hospital.home.root), said.append):
        wait_until(lambda: "fhir: 4 consents loaded, 0 not, 0 to review" in said, "it was read")
        server.put(consent_of("N1", kind="deny"))
        wait_until(lambda: outcomes(hospital)["N1"] == "DENY", "the refusal arrived")
        server.stop()
        wait_until(lambda: any("not read: reading consents: ConnectError; trying" in line for line in said), "away")
        server.start()
        server.put(consent_of("N2", status="inactive"))
        wait_until(lambda: outcomes(hospital)["N2"] == "NO_CONSENT", "the revocation arrived")

    assert not [line for line in said if "N1" in line or "N2" in line]


def test_the_command_reads_the_server_that_is_configured(hospital: Hospital, server: RealServer) -> None:
    refused(run(hospital.home.root, "consents", "fetch"), 4, "no FHIR server")
    server.put(*everyone(hospital))
    configure(hospital, fhir_url=server.address, token_file=str(server.token_file), source="clinic")

    done = run(hospital.home.root, "consents", "fetch")

    assert "4 consents loaded; clinic is known as of" in done.stdout


def test_a_node_does_not_start_with_an_address_in_the_clear(hospital: Hospital) -> None:
    configure(hospital, fhir_url="http://fhir.hospital.example/r4")

    with (
        pytest.raises(ConfigurationError, match="https"),
        following_consents(open_site(hospital.home.root), lambda _: None),
    ):
        pass

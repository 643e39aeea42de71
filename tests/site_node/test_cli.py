"""The command line: one line for an error, its own exit code, and no patient's value in it."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
import sqlalchemy as sa
from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat
from cryptography.x509.oid import NameOID

from consent import Outcome, Request, Study, decide
from site_node import permissions
from site_node.app import create_site, open_site
from site_node.config import SiteHome
from site_node.consents import ConsentReader, current_epoch
from site_node.store import consent_record, open_store, withdrawal_notice
from tests.site_node.hospital import TASK_DOCUMENT, TERMS, add_study, bundle, consent_of, grant

if TYPE_CHECKING:
    from subprocess import CompletedProcess

PROGRAM = Path(sys.executable).parent / "filmroom-site"
ROLES = "http://terminology.hl7.org/CodeSystem/v3-ParticipationType"
PATIENT_ID = "MRN-7730441"


def run(root: Path, *arguments: str | Path, said: str = "") -> CompletedProcess[str]:
    return subprocess.run(
        [PROGRAM, "--home", root, *arguments],
        input=said,
        capture_output=True,
        text=True,
        check=False,
        env={**os.environ, "COLUMNS": "200", "NO_COLOR": "1"},
    )


@pytest.fixture
def home(root: Path) -> Path:
    """Return the folder of a site that was just made."""
    create_site(root, "north")
    return root


@pytest.fixture
def member(home: Path) -> Path:
    """Return the folder of a site that has joined a federation whose coordinator is down."""
    return make_member(home)


def make_member(home: Path) -> Path:
    """Let the site in the folder join a federation whose coordinator is down."""
    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "north")])
    now = datetime.now(UTC)
    made = x509.CertificateBuilder(name, name, key.public_key(), 1, now, now + timedelta(days=1))
    pem = made.sign(key, hashes.SHA256()).public_bytes(Encoding.PEM)
    private = key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())
    membership = {"federation": "demo", "site": "north", "fleet_address": "127.0.0.1:9", "node_id": 1}
    for file, content in {
        "authority.pem": pem,
        "tls.pem": pem,
        "tls.key": private,
        "membership.json": json.dumps(membership).encode(),
    }.items():
        (home / "identity" / file).write_bytes(content)
    return home


def refused(done: CompletedProcess[str], code: int, *words: str) -> None:
    said = done.stdout + done.stderr
    assert done.returncode == code, said
    assert "Traceback" not in said
    assert not [word for word in words if word not in said], said


def test_a_new_site_keeps_its_secrets_to_itself(home: Path) -> None:
    fresh = home.parent / "fresh"
    done = run(fresh, "init", "--name", "north")
    assert done.returncode == 0, done.stderr

    modes = {
        path.name: oct(path.stat().st_mode & 0o777)
        for path in (fresh / "identity", fresh / "identity" / "pseudonym.key", fresh / "site.db")
    }

    assert modes == {"identity": "0o700", "pseudonym.key": "0o600", "site.db": "0o600"}
    refused(run(home, "init", "--name", "north"), 4, "already holds a site")


def test_a_command_that_does_not_exist_is_a_matter_of_usage(root: Path) -> None:
    refused(run(root, "export-pixels"), 2, "No such command")


def test_a_wrong_key_in_the_configuration_is_named(home: Path) -> None:
    with (home / "site.toml").open("a") as file:
        file.write("minimum_study = 3\n")

    refused(run(home, "intake"), 4, "unknown key 'minimum_study'")


def test_a_site_that_is_no_member_is_told_to_join(home: Path) -> None:
    refused(run(home, "check"), 4, "filmroom-site join INVITATION")
    refused(run(home, "serve"), 4, "filmroom-site join INVITATION")


def test_a_coordinator_that_is_down_is_told(member: Path) -> None:
    refused(run(member, "check"), 5, "asking for tasks: ConnectError")


def test_a_folder_without_a_site_says_what_to_do(root: Path) -> None:
    refused(run(root, "ledger"), 4, "filmroom-site init")


def test_what_the_gate_refuses_is_refused_by_policy(member: Path) -> None:
    store = open_store(SiteHome(member).database)
    digest = permissions.keep_task(store, TASK_DOCUMENT, datetime.now(UTC))
    store.dispose()

    refused(run(member, "cohort", digest), 3, "nothing may be used: task: never approved here")


def test_the_cohort_says_what_each_consent_contributed_even_if_nothing_may_be_used(member: Path) -> None:
    SiteHome(member).pseudonym_key.write_bytes(bytes(range(32)))  # as the invented catalogue has it
    store = open_store(SiteHome(member).database)
    at = datetime.now(UTC)
    digest = permissions.keep_task(store, TASK_DOCUMENT, at)
    permissions.register_dataset(store, "brain-mr", TERMS, "MR", "a", at)
    permissions.approve_dataset(store, "brain-mr", "b", at)
    grant(store, "brain-mr", at, at + timedelta(days=1))
    permissions.approve_task(store, digest, "brain-mr", "b", at)
    for patient in ("N1", "N2"):
        add_study(store, patient)
    store.dispose()
    refusal = {"type": "deny", "purpose": [consent_of("N2")["provision"]["purpose"][0] | {"code": "MLTRAINING"}]}
    provision = consent_of("N2")["provision"] | {"provision": [refusal]}
    consents = _file(member.parent, "consents.json", bundle(consent_of("N1"), consent_of("N2", provision=provision)))
    run(member, "consents", "load", consents)

    shown = run(member, "cohort", digest, "--trace")

    refused(shown, 3, "nothing may be used: cohort: fewer than 20 studies are permitted")
    assert "rule 1 of Consent/consent-N1 permitted: purpose HRESCH" in shown.stdout
    assert "rule 2 of Consent/consent-N2 denied: purpose MLTRAINING" in shown.stdout
    rows = json.loads(run(member, "cohort", digest, "--json").stdout)
    assert [row["outcome"] for row in rows] == ["permit", "deny"]
    assert all(len(row["trace"]) == 2 for row in rows)


def test_a_withdrawal_is_read_from_standard_input_and_not_repeated(home: Path) -> None:
    consents = home.parent / "consents.json"
    consents.write_bytes(bundle(consent_of(PATIENT_ID)))
    run(home, "consents", "load", consents)

    done = run(home, "consents", "withdraw", said=f"{PATIENT_ID}\n")

    assert done.returncode == 0, done.stderr
    assert "recorded as withdrawal 2" in done.stdout
    assert "holds no consent" not in done.stderr
    assert PATIENT_ID not in done.stdout + done.stderr + run(home, "ledger").stdout


def test_a_withdrawal_of_an_unknown_patient_is_recorded_where_that_is_meant_alone(home: Path) -> None:
    page = home.parent / "page.html"
    done = run(home, "consents", "withdraw", "--confirmation", page, said=f"{PATIENT_ID}\n")
    refused(done, 4, "neither an image nor a consent is known here")
    assert (page.exists(), json.loads(run(home, "withdrawals", "list", "--json").stdout)) == (False, [])

    done = run(home, "consents", "withdraw", "--unknown-here", said=f"{PATIENT_ID}\n")
    assert done.returncode == 0, done.stderr
    assert "no work within it is running" in done.stdout
    assert "nothing was there to be done" in run(home, "withdrawals", "show", "1").stdout


def test_a_withdrawal_from_a_project_nobody_named_here_is_refused(home: Path) -> None:
    done = run(home, "consents", "withdraw", "--unknown-here", "--project", "Pneu", said=f"{PATIENT_ID}\n")

    refused(done, 4, "a project that is not known here; known are: none")
    assert json.loads(run(home, "withdrawals", "list", "--json").stdout) == []


@pytest.mark.parametrize("said", ["", "\n", "   \n"])
def test_a_withdrawal_needs_a_patient(home: Path, said: str) -> None:
    done = run(home, "consents", "withdraw", said=said)

    assert done.returncode != 0
    assert "Traceback" not in done.stderr
    store = open_store(SiteHome(home).database)
    with store.connect() as db:
        assert db.execute(consent_record.select()).all() == []
    store.dispose()


def test_consents_that_are_not_loaded_are_told_and_the_code_says_so(home: Path) -> None:
    consents = home.parent / "consents.json"
    broken = consent_of("x") | {"id": "[/bold] [red]", "patient": {"display": PATIENT_ID}}
    consents.write_bytes(bundle(consent_of("N1"), broken))

    done = run(home, "consents", "load", consents)

    refused(done, 1, "1 consents loaded", "not loaded: ")
    assert PATIENT_ID not in done.stdout + done.stderr


def _file(folder: Path, name: str, content: bytes | str) -> Path:
    path = folder / name
    path.write_bytes(content if isinstance(content, bytes) else content.encode())
    return path


def test_one_broken_resource_among_ten_thousand_is_named_and_the_others_are_loaded(home: Path) -> None:
    lines = [json.dumps(consent_of(f"N{number}")) for number in range(10_000)]
    lines[5_000] = lines[5_000].replace('"status"', '"status')
    consents = _file(home.parent, "consents.ndjson", "\n".join(lines))

    done = run(home, "consents", "load", consents)

    refused(done, 1, "9999 consents loaded, 0 unchanged", "not loaded: Consent/consent-N5000: not JSON")
    assert done.stderr.count("not loaded") == 1


def test_no_bad_file_of_consents_ends_in_a_crash_or_in_a_permission(home: Path) -> None:
    """Each file holds one patient's consent, good in itself, and one fault."""
    good = {name: json.dumps(consent_of(name)) for name in "ABCDEFGHIJK"}
    folder = home.parent
    cyclic = {"resourceType": "Group", "id": "g", "member": [{"entity": {"reference": "#g"}}]}
    actor = {
        "role": {"coding": [{"system": ROLES, "code": "IRCP"}]},
        "reference": {"reference": "#g"},
    }
    provision = {**consent_of("F")["provision"], "actor": [actor]}
    files = {
        "deep in one element": _file(folder, "a", good["A"].replace('"active"', "[" * 200_000 + "]" * 200_000)),
        "deep in a passed-over element": _file(
            folder, "b", good["B"].replace('"status"', '"extension": ' + "[" * 100 + "]" * 100 + ', "status"')
        ),
        "latin-1": _file(folder, "c", good["C"].replace("HRESCH", "HR\u00c9SCH").encode("latin-1")),
        "cut off": _file(folder, "d", good["D"][:-40]),
        "before 1900": _file(folder, "e", good["E"].replace("2026-01-01", "1826-01-01")),
        "cyclic": _file(folder, "f", json.dumps(consent_of("F", contained=[cyclic], provision=provision))),
        "twice": _file(folder, "g", bundle(consent_of("G"), consent_of("G", status="inactive"))),
        "NaN": _file(folder, "h", good["H"].replace('"active"', "NaN")),
        "a lone surrogate": _file(folder, "i", good["I"].replace('"active"', '"active", "language": "\\ud83d"')),
        "UTF-32 cut off": _file(folder, "j", good["J"].encode("utf-32")[:-3]),
        "a text for a list": _file(folder, "k", good["K"].replace('"active"', '"active", "contained": "x"')),
        "empty": _file(folder, "empty", b""),
        "too large": _file(folder, "large", b"[" + b" " * (64 << 20) + b"]"),
    }

    done = run(home, "consents", "load", *files.values())

    refused(done, 1, "not loaded: ")
    assert done.stderr.count("not loaded: ") >= 9
    store = open_store(SiteHome(home).database)
    with store.connect() as db:
        held = ConsentReader().read(db, current_epoch(db))
    store.dispose()
    study, request = Study("p", "1.2", None), Request(("CLINTRCH",), ("urn:filmroom:federation|demo",))
    outcomes = {
        decide([reading.record() for reading in some.readings], study, request, datetime.now(UTC)).outcome
        for some in held.values()
    }
    assert outcomes == {Outcome.REVIEW, Outcome.NO_CONSENT}


def test_a_file_of_consents_that_is_not_there_is_named(home: Path) -> None:
    refused(run(home, "consents", "load", home.parent / "absent"), 6, "absent: No such file")
    refused(run(home, "consents", "load", home.parent), 6, "Is a directory")


def test_a_consent_in_doubt_counts_again_by_a_command(home: Path) -> None:
    consents = _file(home.parent, "good.json", bundle(consent_of("N1")))
    run(home, "consents", "load", consents)
    broken = _file(home.parent, "broken.json", bundle(consent_of("N1") | {"patient": 1}))
    refused(run(home, "consents", "load", broken), 1, "1 consents held before need review")

    done = run(home, "consents", "confirm", "consent-N1", "--by", "manager")

    assert "Consent/consent-N1 counts again" in done.stdout
    refused(run(home, "consents", "confirm", "consent-N1", "--by", "manager"), 4, "no consent consent-N1 waits")


def test_a_task_may_call_its_project_anything(member: Path) -> None:
    store = open_store(SiteHome(member).database)
    now = datetime.now(UTC)
    digest = permissions.keep_task(store, TASK_DOCUMENT.replace(b'"brain-tissue-demo"', b'"[/x] [red]"'), now)
    permissions.register_dataset(store, "mr", TERMS, "MR", "steward", now)
    store.dispose()

    assert run(member, "requests", "draft", "mr", "--task", digest, "--by", "m", "--submit").returncode == 0
    done = run(member, "requests", "show", "1")

    assert done.returncode == 0, done.stderr
    assert "[/x] [red] asks for mr" in done.stdout
    assert "[/x] [red]" in run(member, "tasks", "show", digest).stdout


def test_what_was_given_is_taken_back_by_a_command_once(home: Path) -> None:
    terms = home.parent / "terms.json"
    terms.write_text(json.dumps(TERMS))
    for command in (
        ("datasets", "register", "mr", "--terms", terms, "--by", "steward"),
        ("datasets", "approve", "mr", "--by", "manager"),
        ("datasets", "revoke", "mr", "--by", "director"),
    ):
        assert run(home, *command).returncode == 0

    refused(run(home, "datasets", "revoke", "mr", "--by", "director"), 4, "dataset mr is not approved here")


def test_a_file_that_is_no_database_is_an_error_in_one_line(home: Path) -> None:
    (home / "site.db").write_bytes(b"this is no database, whatever its name says" * 100)

    refused(run(home, "intake"), 6, "site.db")


@pytest.mark.parametrize("content", [b"{", b"[]", b'{"site": "north"}', b"\xff"])
def test_a_damaged_membership_is_told(member: Path, content: bytes) -> None:
    (member / "identity" / "membership.json").write_bytes(content)

    refused(run(member, "check"), 4, "membership.json")


def test_terms_that_are_not_json_are_told(home: Path) -> None:
    terms = home.parent / "terms.json"
    terms.write_text("free for all")

    refused(run(home, "datasets", "register", "mr", "--terms", terms, "--by", "steward"), 4, "not JSON")


def test_terms_that_name_an_element_twice_are_refused(home: Path) -> None:
    terms = home.parent / "terms.json"
    terms.write_text('{"permission": "HMB", "permission": "NRES", "modifiers": []}')

    refused(
        run(home, "datasets", "register", "mr", "--terms", terms, "--by", "steward"), 4, "an element is named twice"
    )


def test_a_file_of_which_nothing_is_taken_is_told_from_one_that_cannot_be_read(home: Path) -> None:
    nobodys = consent_of("A1") | {"patient": {}}
    for text, said in ((json.dumps(nobodys), "nothing in the file was taken"), ("{", "could not be read")):
        (home.parent / "c.json").write_text(text)

        done = run(home, "consents", "load", home.parent / "c.json")

        assert said in done.stderr
        assert "source file does not count as read" in done.stderr


def test_a_preview_of_a_withdrawal_records_nothing(home: Path) -> None:
    done = run(home, "consents", "withdraw", "--preview", "--unknown-here", said=f"{PATIENT_ID}\n")

    assert done.returncode == 0, done.stderr
    assert "studies within it: 0" in done.stdout
    assert PATIENT_ID not in done.stdout + done.stderr
    assert json.loads(run(home, "withdrawals", "list", "--json").stdout) == []
    assert run(home, "ledger").stdout.count("site:consent:withdrawn") == 0


def test_what_the_coordinator_refused_to_hear_is_listed_with_what_to_do_and_told_again(home: Path) -> None:
    notice = {"receipt": "e" * 64, "run": "run-1", "round": 1, "kind": "train", "found_at": "2026-06-01T12:00:00+00:00"}
    refusal = {"refusal": "410 gone", "refused_at": "2026-06-02T12:00:00+00:00"}
    with open_site(home).store.begin() as db:
        db.execute(sa.insert(withdrawal_notice).values(**notice, **refusal))

    listed = run(home, "withdrawals", "list")
    again = [run(home, "withdrawals", "tell-again", "--by", "manager") for _ in range(2)]

    assert "refused since 2026-06-02 12:00 UTC: 1 updates of run-1: 410 gone" in listed.stderr
    assert "filmroom-site withdrawals tell-again" in listed.stderr
    assert [done.stdout.strip() for done in again] == ["1 updates are told again", "nothing was refused"]
    assert run(home, "withdrawals", "list").stderr == ""


def test_a_withdrawal_is_listed_shown_and_confirmed_on_a_page_for_its_owner_alone(home: Path) -> None:
    page, again = home.parent / "page.html", home.parent / "again.html"
    run(
        home,
        "consents",
        "withdraw",
        "--unknown-here",
        "--modality",
        "MR",
        "--confirmation",
        page,
        said=f"{PATIENT_ID}\n",
    )

    (listed,) = json.loads(run(home, "withdrawals", "list", "--json").stdout)
    shown = run(home, "withdrawals", "show", str(listed["number"]), "--confirmation", again)

    assert (listed["came_by"], listed["status"]) == ("command", "completed")
    assert listed["scope"] in shown.stdout
    assert page.read_text() == again.read_text()
    assert oct(page.stat().st_mode & 0o777) == "0o600"
    assert PATIENT_ID not in page.read_text() + shown.stdout
    assert listed["patient"] not in page.read_text()
    refused(run(home, "withdrawals", "show", "9"), 4, "no withdrawal has the number 9")
    refused(run(home, "withdrawals", "show", str(listed["number"]), "--confirmation", page), 6)

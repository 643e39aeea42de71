"""The invariants of the architecture, checked from outside after a run.

Every check reads what the programs left behind or printed, and says what it looked at. A check that cannot be made
fails.
"""

from __future__ import annotations

import json
import re
from dataclasses import dataclass
from itertools import chain
from typing import TYPE_CHECKING, Any

from cryptography.hazmat.primitives.serialization import load_pem_public_key
from pydicom import dcmread

from consent import ReceiptInvalid, open_receipt
from demo.results import Check, Search
from demo.searches import pixel_hits, planted_hits
from demo.stage import KILLED_IN, WITHDRAWS_IN
from site_node.deidentify.pseudonym import Pseudonymiser

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping, Sequence
    from pathlib import Path

    import numpy as np
    from numpy.typing import NDArray

    from demo.stage import Stage, Ward

_DAY = re.compile(r"\d{8}")


@dataclass(frozen=True, slots=True)
class Evidence:
    """What a run left: the coordinator's record, each site's rounds, the bundle, and the folders."""

    stage: Stage
    root: Path
    run: Mapping[str, Any]
    rounds: Mapping[str, Sequence[Mapping[str, Any]]]  # by site, as `filmroom-site rounds --json`
    intake: Mapping[str, Sequence[Mapping[str, Any]]]
    cohorts: Mapping[str, Mapping[str, str]]  # outcome by de-identified study, before the withdrawal
    withdrawn: tuple[str, str]  # site and PatientID
    killed: str
    audit: str  # what `filmroom-coordinator audit` said; empty if it failed
    bundle: Path
    inference: str  # what MONAI's own tools made of the bundle; empty if they failed
    refused_task: str
    left_running: int


def check_all(evidence: Evidence, search: Search) -> tuple[Check, ...]:
    """Return every invariant with whether it held."""
    return (
        _pixels(search),
        _identities(search),
        _inside(evidence),
        _permission(evidence),
        _withdrawal(evidence),
        _told("Only verified updates are aggregated", evidence.audit, "the coordinator's audit found faults"),
        _partner(evidence),
        _quorum(evidence),
        _came_back(evidence),
        _installed(evidence),
        _deidentified(evidence),
        _nothing_lost(evidence),
        _told(
            "The bundle loads and infers with MONAI's own tools", evidence.inference, "monai.bundle could not run it"
        ),
        _no_process(evidence),
    )


def search_arrivals(evidence: Evidence) -> Search:
    """Search everything that arrived at the coordinator for planted identities and for pixels."""
    arrivals = sorted((evidence.root / "coordinator" / "arrivals").iterdir())
    bodies = [path.read_bytes() for path in arrivals]
    planted = _planted(evidence)
    images = list(_images(evidence))
    return Search(
        bodies=len(bodies),
        bytes=sum(map(len, bodies)),
        planted=len(planted),
        planted_hits=len(planted_hits(bodies, planted)),
        images=len(images),
        pixel_hits=len(pixel_hits(bodies, images)),
    )


def deidentified_study(evidence: Evidence, ward: Ward, patient_id: str) -> str:
    """Return the de-identified StudyInstanceUID of a patient, as only the hospital can."""
    key = (evidence.root / ward.name / "identity" / "pseudonym.key").read_bytes()
    return Pseudonymiser(key).uid(ward.studies[patient_id])


def _pixels(search: Search) -> Check:
    return Check(
        "Raw pixels never leave",
        search.pixel_hits == 0 and search.bodies > 0 and search.images > 0,
        f"{search.images:,} images sought in all {search.bodies:,} requests the coordinator received "
        f"({search.bytes / 1e6:.1f} MB): {search.pixel_hits} runs of pixels found",
    )


def _identities(search: Search) -> Check:
    return Check(
        "No patient value leaves",
        search.planted_hits == 0 and search.planted > 0,
        f"{search.planted:,} planted identities sought in the same requests, in text, hexadecimal and Base64: "
        f"{search.planted_hits} found",
    )


def _inside(evidence: Evidence) -> Check:
    """Search what is shown to operators and partners: logs, the coordinator's folder, the bundle."""
    logs = sorted(evidence.root.glob("*.log"))
    kept = [path for path in _files(evidence.root / "coordinator") if "arrivals" not in path.parts]
    bodies = [path.read_bytes() for path in (*logs, *kept, *_files(evidence.bundle))]
    hits = planted_hits(bodies, _planted(evidence))
    return Check(
        "No patient value in logs, receipts or the bundle",
        not hits and bool(logs),
        f"{len(bodies)} files searched: {len(hits)} found",
    )


def _permission(evidence: Evidence) -> Check:
    """Compare the studies of every release with what each patient's consents must come to."""
    wrong, used = 0, 0
    for ward in evidence.stage.wards:
        permitted = {
            deidentified_study(evidence, ward, patient_id)
            for patient_id, (_, outcome) in ward.expected.items()
            if outcome == "permit"
        }
        for row in _released(evidence, ward.name):
            used += len(row["studies"])
            wrong += len(set(row["studies"]) - permitted)
    return Check(
        "Nothing is trained on without permission",
        wrong == 0 and used > 0,
        f"{used} uses of a study in released rounds compared with the planted consents: {wrong} not permitted",
    )


def _withdrawal(evidence: Evidence) -> Check:
    site, patient_id = evidence.withdrawn
    ward = next(ward for ward in evidence.stage.wards if ward.name == site)
    study = deidentified_study(evidence, ward, patient_id)
    before = [row["round"] for row in _released(evidence, site) if study in row["studies"]]
    trained = [row for row in evidence.rounds[site] if row["kind"] == "train"]
    stopped = [row["round"] for row in trained if row["outcome"] == "abstained"]
    later = [row["round"] for row in _released(evidence, site) if row["round"] > WITHDRAWS_IN]
    return Check(
        "A withdrawal stops the running round, and no later round has the patient",
        before == list(range(1, WITHDRAWS_IN)) and WITHDRAWS_IN in stopped and bool(later),
        f"{site}: the patient's study was in rounds {before}; "
        f"round {WITHDRAWS_IN} was discarded ({WITHDRAWS_IN in stopped}); "
        f"released later without it: rounds {sorted(set(later))}",
    )


def _told(invariant: str, told: str, otherwise: str) -> Check:
    """Return a check that another program made, which told nothing where it failed."""
    return Check(invariant, bool(told), told or otherwise)


def _partner(evidence: Evidence) -> Check:
    """Verify the bundle's receipts and chain of models as its receiver would."""
    document = json.loads((evidence.bundle / "docs" / "provenance.json").read_text())
    keys = {
        site: [load_pem_public_key(pem.encode()) for pem in pems] for site, pems in document["receipt_keys"].items()
    }
    verified, faults = 0, 0
    last = document["rounds"][0]["model_after"]
    for row in document["rounds"][1:]:
        faults += row["model_before"] != last
        last = row["model_after"]
        for made in row["contributions"]:
            if made["outcome"] == "counted":
                good = any(_opens(made, key, row) for key in keys[made["site"]])
                verified += good
                faults += not good
    return Check(
        "The partner can verify the provenance",
        faults == 0 and verified > 0,
        f"{verified} receipts of the bundle verified with the members' public keys; {faults} faults",
    )


def _opens(made: Mapping[str, Any], key: Any, row: Mapping[str, Any]) -> bool:  # noqa: ANN401 -- any public key
    try:
        receipt = open_receipt(made["receipt"].encode(), key)
    except ReceiptInvalid:
        return False
    return (receipt.update, receipt.base_model, receipt.round) == (
        made["update"],
        row["model_before"],
        row["round"],
    )


def _quorum(evidence: Evidence) -> Check:
    quorum = evidence.stage.task["strategy"]["quorum"]
    rounds = evidence.stage.task["rounds"]
    counted = [_counted(evidence, number) for number in range(1, rounds + 1)]
    return Check(
        "Every round that made a model had its quorum",
        evidence.run["state"] == "finished" and all(len(sites) >= quorum for sites in counted),
        f"quorum {quorum}; counted per round: {[len(sites) for sites in counted]}",
    )


def _came_back(evidence: Evidence) -> Check:
    rounds = range(KILLED_IN, evidence.stage.task["rounds"] + 1)
    counted = [number for number in rounds if evidence.killed in _counted(evidence, number)]
    return Check(
        "A killed site takes part again",
        bool(counted) and KILLED_IN not in counted,
        f"{evidence.killed}: killed with SIGKILL in round {KILLED_IN}; from there on counted in {counted}",
    )


def _installed(evidence: Evidence) -> Check:
    return Check(
        "A hospital runs only what it installed",
        "network.name" in evidence.refused_task,
        f"a task naming an unknown network was refused: {evidence.refused_task or 'it was not'}",
    )


def _deidentified(evidence: Evidence) -> Check:
    """Search every file that training may read for what was planted at that hospital."""
    files, hits = 0, 0
    for ward in evidence.stage.wards:
        paths = _files(evidence.root / ward.name / "deidentified")
        own = {deidentified_study(evidence, ward, patient_id) for patient_id in ward.studies}
        files += len(paths)
        # A moved date of somebody else may be anybody's birthday: bare dates are sought in the patients' own files.
        days = [text for text in ward.planted if _DAY.fullmatch(text)]
        texts = [text for text in ward.planted if not _DAY.fullmatch(text)]
        hits += len(planted_hits((path.read_bytes() for path in paths), texts))
        hits += len(planted_hits((path.read_bytes() for path in paths if path.parent.parent.name in own), days))
    return Check(
        "What was de-identified is what is trained on",
        hits == 0 and files > 0,
        f"{files:,} files of the de-identified stores searched for planted identities: {hits} found",
    )


def _nothing_lost(evidence: Evidence) -> Check:
    lost = 0
    for ward in evidence.stage.wards:
        site = evidence.root / ward.name
        lost += ward.files - sum(row["files"] for row in evidence.intake[ward.name])
        for outcome, folder in (("held", "review"), ("quarantined", "quarantine")):
            known = sum(r["files"] for r in evidence.intake[ward.name] if r["outcome"] == outcome)
            lost += known - len(_files(site / folder))
    return Check(
        "Nothing that came in is lost",
        lost == 0,
        f"every file has one outcome, and what was held or quarantined is kept whole; {lost} missing",
    )


def _no_process(evidence: Evidence) -> Check:
    return Check(
        "No process is left behind",
        evidence.left_running == 0,
        f"{evidence.left_running} processes of the consortium still running after the stop",
    )


def _counted(evidence: Evidence, number: int) -> set[str]:
    return {
        row["site"]
        for row in evidence.run["contributions"]
        if (row["round"], row["kind"], row["outcome"]) == (number, "train", "counted")
    }


def _released(evidence: Evidence, site: str) -> list[Mapping[str, Any]]:
    return [row for row in evidence.rounds[site] if row["outcome"] == "released" and row["kind"] == "train"]


def _planted(evidence: Evidence) -> list[str]:
    return sorted(set(chain.from_iterable(ward.planted for ward in evidence.stage.wards)))


def _images(evidence: Evidence) -> Iterator[NDArray[np.generic]]:
    """Yield the pixels of every image that training may read."""
    for ward in evidence.stage.wards:
        for path in _files(evidence.root / ward.name / "deidentified"):
            ds = dcmread(path)
            if ds.get("Modality") == evidence.stage.modality and "PixelData" in ds:
                yield ds.pixel_array


def _files(folder: Path) -> list[Path]:
    found: Iterable[Path] = folder.rglob("*") if folder.is_dir() else ()
    return sorted(path for path in found if path.is_file())

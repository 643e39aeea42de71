"""The gate: four permissions, all denied by default, all asked before training and again before release.

Patient consent, the dataset's terms and approval, the access grant, and the approved task digest. Each asking reads one
consistent state of the database and says which consent epoch it saw, so that a release can compare.
"""

from __future__ import annotations

import hashlib
import json
from dataclasses import asdict, dataclass, replace
from datetime import date
from typing import TYPE_CHECKING, Literal

import rfc8785

from consent import (
    CONSENT,
    DataUseDecision,
    DataUseVerdict,
    Deny,
    GrantClaim,
    Outcome,
    Permit,
    Request,
    ResearchKind,
    ResearchPurpose,
    covers,
    decide_under,
    exceeds,
    match_data_use,
    permits_dataset,
    permits_project,
    permits_sources,
    permits_task,
)
from site_node import access_requests, permissions, sources
from site_node.catalogue import holds_all, labelled_images, series_with_labels
from site_node.cohort import Cohort, freeze
from site_node.consents import ConsentReader, current_epoch
from site_node.store import reading

if TYPE_CHECKING:
    from collections.abc import Sequence
    from datetime import datetime, timedelta

    import sqlalchemy as sa

    from consent import DataUse, LegalBasis, Study
    from models import Task
    from site_node.access_requests import Granted
    from site_node.cohort import Item

POLICY = hashlib.sha256(b"filmroom-gate/1: consent AND data use AND grant AND task").hexdigest()


@dataclass(frozen=True, slots=True)
class Snapshot:
    """What may be used for a task, in the state of one consent epoch."""

    task: Task
    task_digest: str
    request: Request
    grants: tuple[GrantClaim, ...]
    cohort: Cohort
    epoch: int
    at: datetime
    basis: LegalBasis = CONSENT


class Gate:
    """Asks the four permissions of the site's store."""

    def __init__(self, store: sa.Engine, federation: str, minimum_studies: int, max_consent_age: timedelta) -> None:
        self._store = reading(store)
        self.recipients = (f"urn:filmroom:federation|{federation}",)
        self._minimum_studies = minimum_studies
        self._max_consent_age = max_consent_age
        self._consents = ConsentReader()

    def warm(self) -> None:
        """Parse the consent records before the first round needs them."""
        with self._store.connect() as db:
            self._consents.read(db, current_epoch(db))

    def approved_task(self, digest: str, at: datetime) -> Task | Deny:
        """Return the task if this hospital approved it; for work that uses no patient's data."""
        with self._store.connect() as db:
            offered = permissions.tasks(db).get(digest)
        approvals = [offered.approval] if offered and offered.approval else []
        verdict = permits_task(approvals, digest, at)
        if isinstance(verdict, Deny):
            return verdict
        return offered.task if offered else Deny("task: never offered here")

    def snapshot(self, digest: str, at: datetime) -> Snapshot | Deny:
        """Return all that may be used for the task with `digest` at `at`, or why nothing may be."""
        return self.enough(self.explained(digest, at))

    def explained(self, digest: str, at: datetime) -> Snapshot | Deny:
        """Return the same for a person to read: whether or not enough studies are permitted."""
        task = self.approved_task(digest, at)
        if isinstance(task, Deny):
            return task
        return self._evaluate(task, digest, _items(self._store, task), at)

    def recheck(self, snapshot: Snapshot, at: datetime) -> Snapshot | Deny:
        """Return the same items under the state of now, or why they may no longer be used together.

        The set is never thinned out: one study less, and the whole work done with it is void.
        """
        task = self.approved_task(snapshot.task_digest, at)
        if isinstance(task, Deny):
            return task
        current = self.enough(self._evaluate(task, snapshot.task_digest, snapshot.cohort.items, at))
        if isinstance(current, Snapshot) and current.grants[0].dataset != snapshot.grants[0].dataset:
            return Deny("dataset: the task was assigned to another")
        if isinstance(current, Snapshot) and len(current.cohort.items) < len(snapshot.cohort.items):
            return Deny("consent: a study in use is no longer permitted")
        # After the epoch was read: what is taken out later begins a new one, and the release compares.
        if not holds_all(self._store, snapshot.cohort.items):
            return Deny("catalogue: an image in use was taken out")
        return current

    def epoch(self) -> int:
        """Return the consent epoch of now."""
        with self._store.connect() as db:
            return current_epoch(db)

    def withdrawn(self, digest: str, used: Sequence[Study], released_at: datetime, at: datetime) -> dict[str, Outcome]:
        """Return the studies whose use at `released_at` is not permitted by the records of now, and what they say.

        A consent that has merely expired permitted it then; one that was renewed since permits it now.
        """
        with self._store.connect() as db:
            offered = permissions.tasks(db).get(digest)
            data = permissions.datasets(db).get(offered.dataset or "") if offered else None
            consents = self._consents.read(db, current_epoch(db))
        request = _request(offered.task, self.recipients) if offered else Deny("task: never offered here")
        if isinstance(request, Deny):
            return {study.StudyInstanceUID: Outcome.REVIEW for study in used}
        basis = data.basis if data else CONSENT
        found: dict[str, Outcome] = {}
        for study in (replace(study, modality=offered.task.input.modality) for study in used) if offered else ():
            records = consents.get(study.patient, ())
            outcomes = [decide_under(basis, records, study, request, moment).outcome for moment in (at, released_at)]
            if Outcome.PERMIT not in outcomes:
                found[study.StudyInstanceUID] = outcomes[0]
        return found

    def enough(self, answer: Snapshot | Deny) -> Snapshot | Deny:
        """Return the answer, or that it permits fewer studies than this site or the task asks for."""
        if isinstance(answer, Deny):
            return answer
        minimum = max(self._minimum_studies, answer.task.minimum_examples)
        if len(answer.cohort.studies) < minimum:
            return Deny(f"cohort: fewer than {minimum} studies are permitted")
        return answer

    def _evaluate(self, task: Task, digest: str, items: Sequence[Item], at: datetime) -> Snapshot | Deny:
        with self._store.connect() as db:
            epoch = current_epoch(db)
            use = _permitted_use(db, task, digest, at)
            recent = permits_sources(sources.known(db), self._max_consent_age, at)
            consents = self._consents.read(db, epoch)
        if isinstance(use, Deny):
            return use
        if isinstance(recent, Deny):
            return recent
        claim, basis = use
        request = _request(task, self.recipients)
        if isinstance(request, Deny):
            return request
        cohort = freeze(items, consents, request, at, basis, task.input.modality)
        return Snapshot(task, digest, request, (claim,), cohort, epoch, at, basis)


def _request(task: Task, recipients: tuple[str, ...]) -> Request | Deny:
    """Return what the task asks of consents; what it does not state about recipients is taken as the worse."""
    try:
        return Request(
            task.purpose.purposes,
            recipients,
            retrospective=task.purpose.retrospective,
            linked=task.purpose.linked,
            outside_gdpr=task.purpose.outside_gdpr is not False,
            project=task.project,
        )
    except ValueError as error:
        return Deny(f"task: {error}")


def _permitted_use(db: sa.Connection, task: Task, digest: str, at: datetime) -> tuple[GrantClaim, LegalBasis] | Deny:
    """Return the grant under which the task's dataset may be used, with how its terms were met, and its basis."""
    offered = permissions.tasks(db)[digest]
    data = permissions.datasets(db).get(offered.dataset or "")
    if data is None:
        return Deny("dataset: none is assigned to this task")
    granted = [_within_time_limit(made, data.terms) for made in access_requests.granted(db)]
    purpose = research_purpose(task)
    for verdict in (
        permits_task([offered.approval] if offered.approval else [], digest, at),
        permits_dataset([data.approval] if data.approval else [], data.name, at),
        permits_project([made.grant for made in granted], data.name, task.project, at),
        _keeps_to(data.terms, purpose, at),
    ):
        if isinstance(verdict, Deny):
            return verdict
    chosen = _covering(granted, data.name, task.project, purpose, at)
    if isinstance(chosen, Deny):
        return chosen
    # All that was stated when access was asked for keeps to the terms as well: an ethics approval ends.
    terms = _keeps_to(data.terms, chosen.purpose, at)
    if isinstance(terms, Deny):
        return terms
    if data.modality != task.input.modality:
        return Deny("dataset: another modality than the task's")
    # Terms that need a human are met by the humans who made the grant; the receipt says so.
    duo: Literal["APPROVE", "MANUAL"] = "APPROVE" if terms.decision is DataUseDecision.APPROVE else "MANUAL"
    return GrantClaim(dataset=data.name, expires_at=chosen.grant.expires_at, duo=duo), data.basis


def _within_time_limit(made: Granted, terms: DataUse) -> Granted:
    """Return the grant, ended at the latest when the dataset's time limit (DUO TS) ends it."""
    limit = terms.expiry(made.grant.granted_at)
    if limit is None or made.grant.expires_at <= limit:
        return made
    return replace(made, grant=replace(made.grant, expires_at=limit))


def _keeps_to(terms: DataUse, purpose: ResearchPurpose, at: datetime) -> DataUseVerdict | Deny:
    verdict = match_data_use(terms, purpose, at)
    if verdict.decision is DataUseDecision.DENY:
        return Deny(f"data use: {', '.join(verdict.reasons)}")
    return verdict


def _covering(
    granted: Sequence[Granted], dataset: str, project: str, purpose: ResearchPurpose, at: datetime
) -> Granted | Deny:
    """Return, of the grants that hold and were made for this purpose, the one that holds longest."""
    holding = [made for made in granted if isinstance(permits_project([made.grant], dataset, project, at), Permit)]
    covering = [made for made in holding if not exceeds(purpose, made.purpose)]
    if not covering:
        beyond = sorted({fact for made in holding for fact in exceeds(purpose, made.purpose)})
        return Deny(f"grant: made for another purpose: {', '.join(beyond)}")
    return max(covering, key=lambda made: made.grant.expires_at)


def research_purpose(task: Task) -> ResearchPurpose:
    """Return the task's purpose in the words of data-use terms; what it does not state is unknown."""
    stated = task.purpose
    is_research = all(covers("HRESCH", purpose) for purpose in stated.purposes)
    kind = ResearchKind(stated.research) if stated.research else None
    return ResearchPurpose(
        kind=kind if is_research else ResearchKind.NONE,
        methods_development=stated.methods_development,
        diseases=stated.diseases,
        ancestry=stated.ancestry,
        clinical_care=stated.clinical_care,
        genetic=False,  # images alone are used
        commercial=stated.commercial,
        for_profit=stated.for_profit,
        countries=stated.countries,
        institutions=stated.institutions,
        users=stated.users,
        projects=(task.project,),
        topics=stated.topics,
        ethics_approved_until=stated.ethics_approved_until,
        will_publish=stated.will_publish,
        publishes_from=stated.publishes_from,
        collaboration_signed=stated.collaboration_signed,
        returns_data=stated.returns_data,
    )


def _items(store: sa.Engine, task: Task) -> list[Item]:
    if task.kind == "classification":
        return list(labelled_images(store, task.input.modality))
    labelled = series_with_labels(store, task.input.modality)
    return [series for series in labelled if series.segmentation is not None]


def policy_digest(request: Request, basis: LegalBasis) -> str:
    """Return the digest of the policy, the request it was asked with and the dataset's legal basis."""
    asked = {"policy": POLICY, **asdict(request), "basis": {**asdict(basis), "kind": basis.kind.value}}
    return hashlib.sha256(rfc8785.dumps(json.loads(json.dumps(asked, default=date.isoformat)))).hexdigest()

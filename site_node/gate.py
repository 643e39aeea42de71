"""The gate: four permissions, all denied by default, all asked before training and again before release.

Patient consent, the dataset's terms and approval, the access grant, and the approved task digest. Each asking reads one
consistent state of the database and says which consent epoch it saw, so that a release can compare.
"""

from __future__ import annotations

import gc
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Literal, NamedTuple, TypeVar

from consent import (
    CONSENT,
    DatasetApproval,
    DataUseDecision,
    DataUseVerdict,
    Deny,
    Grant,
    GrantClaim,
    Outcome,
    Permit,
    Request,
    ResearchKind,
    ResearchPurpose,
    TaskApproval,
    covers,
    decide_under,
    exceeds,
    federation_recipient,
    match_data_use,
    permits_dataset,
    permits_project,
    permits_sources,
    permits_task,
    still_stands,
)
from site_node import access_requests, permissions, sources
from site_node.alarms import open_alarm
from site_node.catalogue import holds_all, labelled_images, series_with_labels
from site_node.cohort import Cohort, freeze
from site_node.consents import NONE_HELD, ConsentReader, came_and_went, current_epoch, last_number
from site_node.store import reading

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from datetime import datetime, timedelta

    import sqlalchemy as sa

    from consent import DataUse, LegalBasis, Study
    from models import Task
    from site_node.access_requests import Granted
    from site_node.cohort import Item

_ALLOCATIONS = 100_000
"""So many objects more, and the collector looks for cycles among the young ones."""
_Decision = TypeVar("_Decision", Grant, TaskApproval, DatasetApproval)


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
    records: Mapping[str, tuple[int, ...]] = field(default_factory=dict)
    """Of each patient asked about, the numbers of the consent records held."""
    decided: frozenset[Grant | TaskApproval | DatasetApproval] = frozenset()
    """What people had decided by then, as it was made; what is decided later counts from the next round on."""
    last_record: int = 0
    """The number of the last consent record taken by then."""


class _Use(NamedTuple):
    """The grant under which a dataset may be used and how its terms were met, its basis, and what was decided."""

    claim: GrantClaim
    basis: LegalBasis
    decided: frozenset[Grant | TaskApproval | DatasetApproval]


class Gate:
    """Asks the four permissions of the site's store."""

    def __init__(self, store: sa.Engine, federation: str, minimum_studies: int, max_consent_age: timedelta) -> None:
        self._store = reading(store)
        self.recipients = (federation_recipient(federation),)
        self._minimum_studies = minimum_studies
        self._max_consent_age = max_consent_age
        self._consents = ConsentReader()
        self._before: dict[str, Snapshot] = {}  # the last of each task

    def warm(self, at: datetime) -> None:
        """Decide on what the approved tasks ask about, so that a round decides only on what is not as it was."""
        with self._store.connect() as db:
            approved = [digest for digest, offered in permissions.tasks(db).items() if offered.approval]
        for digest in approved:
            self.explained(digest, at)
        # What was read and decided lives with the process, and what a freeze makes has no cycles: nobody need walk it
        # again and again.
        gc.freeze()
        gc.set_threshold(_ALLOCATIONS)

    def approved_task(self, digest: str, at: datetime) -> Task | Deny:
        """Return the task if this hospital approved it; for work that uses no patient's data."""
        with self._store.connect() as db:
            offered = permissions.tasks(db).get(digest)
        approvals = [_on_record(offered.approval, at)] if offered and offered.approval else []
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
        before = self._before.pop(digest, None)
        if isinstance(task, Deny):
            return task
        answer = self._evaluate(task, digest, at, standing=before)
        if isinstance(answer, Snapshot):
            self._before[digest] = answer
        return answer

    def recheck(self, snapshot: Snapshot, at: datetime) -> Snapshot | Deny:
        """Return the same items under the state of now, or why they may no longer be used together.

        The set is never thinned out: one study less, and the whole work done with it is void. Nor does it grow: what
        was taken back meanwhile and given anew counts from the next round on.
        """
        task = self.approved_task(snapshot.task_digest, at)
        if isinstance(task, Deny):
            return task
        current = self.enough(self._evaluate(task, snapshot.task_digest, at, before=snapshot))
        if isinstance(current, Snapshot) and current.grants[0].dataset != snapshot.grants[0].dataset:
            return Deny("dataset: the task was assigned to another")
        if isinstance(current, Snapshot) and len(current.cohort.items) < len(snapshot.cohort.items):
            return Deny("consent: a study in use is no longer permitted")
        if isinstance(current, Snapshot) and not current.decided <= snapshot.decided:
            return Deny("task or dataset: approved anew meanwhile: it counts from the next round on")
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
            held = self._consents.read(db, current_epoch(db), {study.patient for study in used})
        request = request_of(offered.task, self.recipients) if offered else Deny("task: never offered here")
        if isinstance(request, Deny):
            return {study.StudyInstanceUID: Outcome.REVIEW for study in used}
        basis = data.basis if data else CONSENT
        found: dict[str, Outcome] = {}
        for study in (replace(study, modality=offered.task.input.modality) for study in used) if offered else ():
            records = [reading.record() for reading in held.get(study.patient, NONE_HELD).readings]
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

    def _evaluate(
        self,
        task: Task,
        digest: str,
        at: datetime,
        before: Snapshot | None = None,
        standing: Snapshot | None = None,
    ) -> Snapshot | Deny:
        """Return what may be used: of what `before` used, if it is given; `standing` spares decisions alone."""
        request = request_of(task, self.recipients)
        with self._store.connect() as db:
            epoch = current_epoch(db)
            items = _items(db, task) if before is None else before.cohort.items
            if before and (lost := _lost(db, before)):
                return lost
            use = _permitted_use(db, task, digest, at, before)
            last_record = last_number(db)
            recent = permits_sources(sources.known(db), self._max_consent_age, at)
            if isinstance(use, Deny):
                return use
            if isinstance(recent, Deny):
                return recent
            if isinstance(request, Deny):
                return request
            claim, basis, decided = use
            now = Snapshot(task, digest, request, (claim,), Cohort((), {}), epoch, at, basis, {}, decided, last_record)
            if before is not None and _stands(before, now):
                return replace(now, cohort=before.cohort, records=before.records)
            held = self._consents.read(db, epoch, {item.patient for item in items})
        consents = {patient: some.readings for patient, some in held.items()}
        known = before or standing
        stood = known.cohort.standing if known and _asks_the_same(known, now) else {}
        cohort = freeze(items, consents, request, at, basis, task.input.modality, stood)
        return replace(now, cohort=cohort, records={patient: some.numbers for patient, some in held.items()})


def _lost(db: sa.Connection, before: Snapshot) -> Deny | None:
    """Return what of `before` may be used no more, whatever the consents say now."""
    items = before.cohort.items
    if not holds_all(db, items):
        return Deny("catalogue: an image in use was taken out")
    if came_and_went(db, {item.patient for item in items}, before.last_record):
        return Deny("consent: of a study in use, taken back and given anew: it counts from the next round on")
    return None


def _asks_the_same(before: Snapshot, now: Snapshot) -> bool:
    return (before.task_digest, before.request, before.basis) == (now.task_digest, now.request, now.basis)


def _stands(before: Snapshot, now: Snapshot) -> bool:
    """Whether the consents say now what they said before: nothing came, the same is asked, and no moment has passed."""
    if before.epoch != now.epoch or not _asks_the_same(before, now):
        return False
    return still_stands(before.cohort.until, before.at, now.at)


def request_of(task: Task, recipients: tuple[str, ...]) -> Request | Deny:
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


def _permitted_use(db: sa.Connection, task: Task, digest: str, at: datetime, before: Snapshot | None) -> _Use | Deny:
    """Return under what the task's dataset may be used; grants that were made after `before` do not count."""
    offered = permissions.tasks(db)[digest]
    data = permissions.datasets(db).get(offered.dataset or "")
    if data is None:
        return Deny("dataset: none is assigned to this task")
    known = [made for made in access_requests.granted(db) if before is None or _made(made.grant) in before.decided]
    granted = [within_time_limit(replace(made, grant=_on_record(made.grant, at)), data.terms) for made in known]
    approvals = [_on_record(offered.approval, at)] if offered.approval else []
    releases = [_on_record(data.approval, at)] if data.approval else []
    grants = frozenset(_made(made.grant) for made in known)
    decided = grants | frozenset(map(_made, approvals)) | frozenset(map(_made, releases))
    purpose = research_purpose(task)
    for verdict in (
        _permits_archive(db),
        permits_task(approvals, digest, at),
        permits_dataset(releases, data.name, at),
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
    claim = GrantClaim(dataset=data.name, expires_at=chosen.grant.expires_at, duo=duo)
    return _Use(claim, data.basis, decided)


def _permits_archive(db: sa.Connection) -> Permit | Deny:
    if open_alarm(db) is None:
        return Permit()
    return Deny("archive: an alarm is open: images changed as none may, and a person has to look")


def _on_record(decision: _Decision, at: datetime) -> _Decision:
    """Return the decision as it holds at `at`: what was taken back is, even if the clock was ahead when it was."""
    if decision.revoked_at is None or decision.revoked_at <= at:
        return decision
    return replace(decision, revoked_at=at)


def _made(decision: _Decision) -> _Decision:
    """Return the decision as it was made, taken back since or not."""
    return replace(decision, revoked_at=None)


def within_time_limit(made: Granted, terms: DataUse) -> Granted:
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


def _items(db: sa.Connection, task: Task) -> Sequence[Item]:
    if task.kind == "classification":
        return list(labelled_images(db, task.input.modality))
    labelled = series_with_labels(db, task.input.modality)
    return [series for series in labelled if series.segmentation is not None]

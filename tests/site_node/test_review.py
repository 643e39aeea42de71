"""What persons decide about held instances, and what audits find: nothing decided twice in silence, no leak kept."""

from __future__ import annotations

import hashlib
import json
import multiprocessing
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

import pytest
import sqlalchemy as sa
from hypothesis import given, settings
from hypothesis import strategies as st

from consent import Deny
from site_node import review
from site_node.consents import current_epoch
from site_node.deidentify.picture import Box
from site_node.errors import ConfigurationError
from site_node.gate import Snapshot
from site_node.review import Case, Decision, rate
from site_node.store import audit, disposition, instance, ledger, open_store, review_decision

if TYPE_CHECKING:
    from pathlib import Path

    from tests.site_node.hospital import Hospital

AT = datetime(2026, 6, 1, 12, tzinfo=UTC)
CONTENT = b"an original"
SOURCE = hashlib.sha256(CONTENT).hexdigest()
PROPOSED = ((10, 20, 30, 40), (50, 60, 70, 80))
DOUBT = "text-not-readable"
FACE = "face-in-field-of-view"


class Intake:
    """Stands where intake stands: accepts, or holds again for a reason, and records as intake does."""

    def __init__(self, store: sa.Engine, root: Path) -> None:
        self.store, self.root = store, root
        self.asked: list[tuple[review.Boxes, frozenset[str]]] = []
        self.again: str | None = None
        self.crash = False

    def retake(self, source: str, boxes: review.Boxes, cleared: frozenset[str], at: datetime) -> str | None:
        """Do what intake does, or what it would if it crashed."""
        self.asked.append((boxes, cleared))
        if self.again is None:
            accepted(self.store, self.root, source, f"2.25.{int(source[:6], 16)}", at=at)
        if self.crash:
            raise KeyboardInterrupt
        return self.again


def held(store: sa.Engine, root: Path, reason: str = DOUBT, source: str = SOURCE) -> str:
    (root / "review").mkdir(exist_ok=True)
    (root / "review" / source).write_bytes(CONTENT)
    with store.begin() as db:
        db.execute(
            sa.insert(disposition).values(
                source_sha256=source,
                outcome="held",
                reason=reason,
                kept_as=f"review/{source}",
                recorded_at=AT.isoformat(),
            )
        )
        review.treated(db, source, "1.0", [Box(*box) for box in PROPOSED])
    return source


def accepted(
    store: sa.Engine,
    root: Path,
    source: str,
    uid: str,
    *,
    modality: str = "US",
    pipeline: str = "1.0",
    at: datetime = AT,
) -> str:
    path = f"deidentified/{uid}.dcm"
    (root / "deidentified").mkdir(exist_ok=True)
    (root / path).write_bytes(uid.encode())
    values = {"outcome": "accepted", "reason": "", "kept_as": path, "recorded_at": at.isoformat()}
    with store.begin() as db:
        if not db.execute(sa.update(disposition).where(disposition.c.source_sha256 == source).values(values)).rowcount:
            db.execute(sa.insert(disposition).values(source_sha256=source, **values))
        review.treated(db, source, pipeline, ())
        db.execute(
            sa.insert(instance).values(
                SOPInstanceUID=uid,
                SeriesInstanceUID="2.25.2",
                StudyInstanceUID="2.25.3",
                SOPClassUID="1.2",
                Modality=modality,
                patient="P",
                path=path,
                sha256=hashlib.sha256(uid.encode()).hexdigest(),
                source_sha256=source,
            )
        )
    return uid


def many(store: sa.Engine, root: Path, number: int, **more: str) -> list[str]:
    start = len(rows(store, instance))
    return [
        accepted(store, root, hashlib.sha256(f"{index}".encode()).hexdigest(), f"2.25.9{index}", **more)  # type: ignore[arg-type] # all are text
        for index in range(start, start + number)
    ]


def rows(store: sa.Engine, table: sa.Table) -> list[dict[str, Any]]:
    with store.connect() as db:
        return [dict(row) for row in db.execute(sa.select(table)).mappings()]


def entries(store: sa.Engine) -> list[str]:
    return [row["entry"] for row in rows(store, ledger)]


def case(store: sa.Engine, source: str = SOURCE) -> Case:
    with store.connect() as db:
        return review.find(db, source)


def epoch(store: sa.Engine) -> int:
    with store.connect() as db:
        return current_epoch(db)


def decided(decision: Decision | Deny) -> Decision:
    assert isinstance(decision, Decision)
    return decision


def refusal(decision: object) -> str:
    assert isinstance(decision, Deny)
    return decision.reason


@pytest.fixture
def intake(store: sa.Engine, root: Path) -> Intake:
    """Return an intake that accepts."""
    return Intake(store, root)


def test_what_waits_is_shown_with_what_is_proposed(store: sa.Engine, root: Path) -> None:
    held(store, root)

    with store.connect() as db:
        (waiting,) = review.held(db)

    assert (waiting.source_sha256, waiting.reason, waiting.boxes, waiting.pipeline) == (SOURCE, DOUBT, PROPOSED, "1.0")
    assert case(store, SOURCE[:8]) == waiting


@pytest.mark.parametrize("name", ["", SOURCE[:7], "0" * 12, "%" * 12, SOURCE[:12].upper()])
def test_a_name_that_means_no_instance_or_too_many_is_refused(store: sa.Engine, root: Path, name: str) -> None:
    held(store, root)

    with pytest.raises(ConfigurationError):
        case(store, name)


def test_an_accepted_instance_is_taken_in_with_the_proposed_boxes(store: sa.Engine, root: Path, intake: Intake) -> None:
    held(store, root)

    decision = decided(review.accept(store, intake.retake, SOURCE[:10], "anna", AT))

    assert intake.asked == [(PROPOSED, frozenset({DOUBT}))]
    assert (decision.outcome, decision.by, decision.held_for) == ("accepted", "anna", DOUBT)
    assert case(store).outcome == "accepted"
    assert entries(store) == ["site:review:decided", "site:review:settled"]


@pytest.mark.parametrize("boxes", [(), ((0, 0, 5, 5),)])
def test_a_person_can_draw_other_boxes_or_none(
    store: sa.Engine, root: Path, intake: Intake, boxes: review.Boxes
) -> None:
    held(store, root)

    decision = decided(review.redraw(store, intake.retake, SOURCE, boxes, "anna", AT))

    assert intake.asked[0][0] == decision.boxes == boxes
    with store.connect() as db:
        assert review.decisions(db, SOURCE) == [decision]


@pytest.mark.parametrize("box", [(0, 0, 0, 5), (5, 0, 4, 5), (-1, 0, 4, 5), (0, 5, 4, 5)])
def test_a_box_that_is_empty_or_outside_is_refused_before_anything_happens(
    store: sa.Engine, root: Path, intake: Intake, box: tuple[int, int, int, int]
) -> None:
    held(store, root)

    with pytest.raises(ConfigurationError, match="half-open"):
        review.redraw(store, intake.retake, SOURCE, (box,), "anna", AT)

    assert (intake.asked, rows(store, review_decision)) == ([], [])


def test_what_the_pipeline_holds_again_waits_again_and_both_are_on_the_record(
    store: sa.Engine, root: Path, intake: Intake
) -> None:
    held(store, root)
    intake.again = "second-look-hit"
    first = decided(review.accept(store, intake.retake, SOURCE, "anna", AT))
    intake.again = None
    second = decided(review.redraw(store, intake.retake, SOURCE, (), "anna", AT))

    assert (first.outcome, first.held_again_for, second.outcome) == ("held", "second-look-hit", "accepted")
    assert [row["verdict"] for row in rows(store, review_decision)] == ["accept", "redraw"]


def test_a_decided_instance_is_not_decided_again_unless_it_is_reopened(
    store: sa.Engine, root: Path, intake: Intake
) -> None:
    held(store, root)
    review.reject(store, SOURCE, "name-in-anatomy", "anna", AT)

    assert "reopen it first" in refusal(review.accept(store, intake.retake, SOURCE, "bert", AT))
    assert "reopen it first" in refusal(review.reject(store, SOURCE, "again", "bert", AT))
    assert case(store).outcome == "rejected"
    decided(review.reopen(store, root, SOURCE, "second-thoughts", "bert", AT))
    assert "waits for a decision" in refusal(review.reopen(store, root, SOURCE, "again", "bert", AT))
    assert decided(review.accept(store, intake.retake, SOURCE, "bert", AT)).outcome == "accepted"

    assert [row["verdict"] for row in rows(store, review_decision)] == ["reject", "reopen", "accept"]
    assert entries(store).count("site:review:refused") == 3


@pytest.mark.parametrize("reason", ["", "Doe John", "name in the picture", "a_b", "-", "a" * 81])
def test_a_reason_is_words_joined_by_hyphens(store: sa.Engine, root: Path, reason: str) -> None:
    held(store, root)

    with pytest.raises(ConfigurationError, match="joined by hyphens"):
        review.reject(store, SOURCE, reason, "anna", AT)


def test_a_face_is_let_in_by_two_persons_who_agree(store: sa.Engine, root: Path, intake: Intake) -> None:
    held(store, root, FACE)

    first = decided(review.accept(store, intake.retake, SOURCE, "anna", AT))
    assert (first.outcome, intake.asked) == ("second-awaited", [])
    assert "another person" in refusal(review.accept(store, intake.retake, SOURCE, "Anna ", AT))
    # Other boxes are another opinion: it is the first of its own.
    other = decided(review.redraw(store, intake.retake, SOURCE, (), "bert", AT))
    assert (other.outcome, intake.asked) == ("second-awaited", [])
    assert decided(review.redraw(store, intake.retake, SOURCE, (), "anna", AT)).outcome == "accepted"


def test_a_face_that_was_rejected_and_reopened_still_takes_two(store: sa.Engine, root: Path, intake: Intake) -> None:
    held(store, root, FACE)
    review.reject(store, SOURCE, "face-is-seen", "anna", AT)
    review.reopen(store, root, SOURCE, "second-thoughts", "anna", AT)

    assert decided(review.accept(store, intake.retake, SOURCE, "anna", AT)).outcome == "second-awaited"


@pytest.mark.parametrize(("reason", "two"), [(FACE, True), ("recognizable-surface", True), (DOUBT, False)])
def test_only_what_a_face_may_be_seen_in_takes_two(reason: str, two: bool) -> None:  # noqa: FBT001 -- of the example
    assert review.needs_two(reason) is two


@pytest.mark.parametrize("after", [True, False])
def test_a_decision_that_a_crash_interrupted_is_known_from_what_happened(
    store: sa.Engine, root: Path, intake: Intake, *, after: bool
) -> None:
    held(store, root)
    intake.crash, intake.again = True, None if after else "x"
    with pytest.raises(KeyboardInterrupt):
        review.accept(store, intake.retake, SOURCE, "anna", AT)
    assert rows(store, review_decision)[0]["outcome"] == "begun"

    with review.deciding(store, root, AT):
        (decision,) = rows(store, review_decision)

    assert decision["outcome"] == ("accepted" if after else "held")
    assert decision["held_again_for"] == (None if after else "interrupted")


def test_a_decision_that_intake_could_not_carry_out_is_on_the_record_and_can_be_made_again(
    store: sa.Engine, root: Path, intake: Intake
) -> None:
    def busy(*_: object) -> str:
        raise ConfigurationError("another process takes in files here")

    held(store, root)
    with pytest.raises(ConfigurationError, match="another process"):
        review.accept(store, busy, SOURCE, "anna", AT)

    assert rows(store, review_decision)[0]["held_again_for"] == "interrupted"
    assert decided(review.accept(store, intake.retake, SOURCE, "anna", AT)).outcome == "accepted"


def test_a_series_that_waits_is_meant_by_its_uid(store: sa.Engine, root: Path) -> None:
    sources = sorted(hashlib.sha256(bytes([number])).hexdigest() for number in range(3))
    for source in sources:
        held(store, root, source=source)
    with store.begin() as db:
        for source in sources[:2]:
            review.treated(db, source, "1.0", (), SeriesInstanceUID="2.25.5", Modality="US")

    with store.connect() as db:
        assert review.members(db, "2.25.5") == sources[:2]
        assert review.members(db, sources[2][:10]) == sources[2:]
        with pytest.raises(ConfigurationError, match="no instance of that series"):
            review.members(db, "2.25.6")


def test_what_stands_beside_a_leak_leaves_with_it_on_wish(store: sa.Engine, root: Path) -> None:
    uids = many(store, root, 4)
    review.sample(store, AT, "seed", count=4)

    alone = review.judge(store, root, uids[0], "leak", "anna", AT, "pixels")
    together = review.judge(store, root, uids[1], "leak", "anna", AT, "pixels", whole_series=True)

    assert alone == (hashlib.sha256(b"0").hexdigest(),)
    assert together == tuple(hashlib.sha256(str(number).encode()).hexdigest() for number in (1, 2, 3))
    assert rows(store, instance) == []
    assert list((root / "deidentified").iterdir()) == []
    assert [row["verdict"] for row in rows(store, review_decision)] == ["leak", "leak", "reopen", "reopen"]
    # Its audit is still to be judged, and can be.
    assert review.judge(store, root, uids[2], "leak", "anna", AT, "pixels") == ()


def _decide(root: Path, came_out: multiprocessing.Queue[str]) -> None:
    store = open_store(root / "site.db")
    with review.deciding(store, root, AT):
        decision = review.accept(store, Intake(store, root).retake, SOURCE, "bert", AT)
    came_out.put(decision.reason if isinstance(decision, Deny) else decision.outcome)


def test_two_persons_at_once_decide_one_after_the_other(store: sa.Engine, root: Path) -> None:
    held(store, root)
    store.dispose()
    come = multiprocessing.get_context("spawn")
    came_out = come.Queue()
    both = [come.Process(target=_decide, args=(root, came_out)) for _ in range(2)]
    for process in both:
        process.start()

    found = sorted(came_out.get(timeout=120) for _ in both)
    for process in both:
        process.join()

    assert found == ["accepted", "the instance is accepted: reopen it first"]


def test_a_leak_takes_the_instance_out_at_once(store: sa.Engine, root: Path) -> None:
    uid, before = accepted(store, root, SOURCE, "2.25.7"), epoch(store)
    review.sample(store, AT, "seed", count=1)

    assert review.judge(store, root, uid, "leak", "anna", AT, "PatientComments") == (SOURCE,)

    assert rows(store, instance) == []
    assert epoch(store) == before + 1
    assert (case(store).outcome, case(store).reason) == ("held", "leak-found-in-audit")
    assert not (root / "deidentified" / "2.25.7.dcm").exists()
    assert (root / case(store).kept_as).read_bytes() == b"2.25.7"
    assert entries(store) == ["site:audit:drawn", "site:audit:judged", "site:review:decided"]


def test_what_leaked_comes_back_with_its_original_alone(store: sa.Engine, root: Path, intake: Intake) -> None:
    uid = accepted(store, root, SOURCE, f"2.25.{int(SOURCE[:6], 16)}")
    review.sample(store, AT, "seed", count=1)
    review.judge(store, root, uid, "leak", "anna", AT, "pixels")

    # What left the catalogue is no original: taken in again, its pseudonyms would get pseudonyms.
    assert "--original" in refusal(review.accept(store, intake.retake, SOURCE, "anna", AT))
    with pytest.raises(ConfigurationError, match="not the original"):
        review.provide_original(store, root, SOURCE, b"another file")
    review.provide_original(store, root, SOURCE, CONTENT)
    assert decided(review.accept(store, intake.retake, SOURCE, "anna", AT)).outcome == "accepted"

    assert (root / "deidentified" / f"{uid}.dcm").exists()
    with pytest.raises(ConfigurationError, match="does not wait"):
        review.provide_original(store, root, SOURCE, CONTENT)


@pytest.mark.parametrize("crash_before", ["link", "record", "deletion"])
def test_a_crash_while_a_leak_is_taken_out_leaves_nothing_behind(
    store: sa.Engine, root: Path, crash_before: str
) -> None:
    uid = accepted(store, root, SOURCE, "2.25.7")
    review.sample(store, AT, "seed", count=1)
    path, aside = root / "deidentified/2.25.7.dcm", root / f"review/{SOURCE}.taken-out"
    if crash_before == "record":
        aside.parent.mkdir()
        aside.hardlink_to(path)
    review.judge(store, root, uid, "leak", "anna", AT, "pixels")
    if crash_before == "deletion":
        path.write_bytes(b"2.25.7")
        with store.begin() as db:
            db.execute(sa.update(review_decision).values(taken_out="deidentified/2.25.7.dcm"))
        with review.deciding(store, root, AT):
            pass

    assert not path.exists()
    assert aside.read_bytes() == b"2.25.7"


def test_running_work_with_an_image_that_leaked_is_void(hospital: Hospital, root: Path) -> None:
    snapshot = hospital.gate.snapshot(hospital.task, AT)
    assert isinstance(snapshot, Snapshot)
    assert isinstance(hospital.gate.recheck(snapshot, AT), Snapshot)
    (uid,) = review.sample(hospital.store, AT, "seed", count=1)

    review.judge(hospital.store, root, uid, "leak", "anna", AT, "pixels")

    verdict = hospital.gate.recheck(snapshot, AT)
    assert verdict == Deny("catalogue: an image in use was taken out")
    assert hospital.gate.epoch() > snapshot.epoch


def test_an_image_whose_file_was_replaced_voids_running_work(hospital: Hospital) -> None:
    snapshot = hospital.gate.snapshot(hospital.task, AT)
    assert isinstance(snapshot, Snapshot)
    with hospital.store.begin() as db:
        db.execute(sa.update(instance).values(sha256="1" * 64))

    assert isinstance(hospital.gate.recheck(snapshot, AT), Deny)


def test_a_judged_audit_is_judged_again_only_to_find_a_leak(store: sa.Engine, root: Path) -> None:
    uid = accepted(store, root, SOURCE, "2.25.7")
    review.sample(store, AT, "seed", count=1)

    assert review.judge(store, root, uid, "clean", "anna", AT) == ()
    assert "already: clean" in refusal(review.judge(store, root, uid, "clean", "bert", AT))
    assert review.judge(store, root, uid, "leak", "bert", AT, "pixels") == (SOURCE,)
    assert "already: leak" in refusal(review.judge(store, root, uid, "clean", "anna", AT))


@pytest.mark.parametrize(
    ("verdict", "place", "by"),
    [
        ("fine", None, "anna"),
        ("leak", None, "anna"),
        ("clean", "pixels", "anna"),
        ("leak", "John Doe", "anna"),
        ("leak", "a" * 81, "anna"),
        ("clean", None, " "),
    ],
)
def test_a_finding_is_complete_and_tells_no_value(
    store: sa.Engine, root: Path, verdict: str, place: str | None, by: str
) -> None:
    uid = accepted(store, root, SOURCE, "2.25.7")
    review.sample(store, AT, "seed", count=1)

    with pytest.raises(ConfigurationError):
        review.judge(store, root, uid, verdict, by, AT, place)

    assert rows(store, audit)[0]["verdict"] is None


def test_what_was_not_drawn_is_not_audited(store: sa.Engine, root: Path) -> None:
    uid = accepted(store, root, SOURCE, "2.25.7")

    with pytest.raises(ConfigurationError, match="not drawn"):
        review.judge(store, root, uid, "clean", "anna", AT)


def test_the_same_seed_draws_the_same_and_nothing_is_drawn_twice(store: sa.Engine, root: Path, tmp_path: Path) -> None:
    many(store, root, 20)
    (tmp_path / "other").mkdir()
    other = open_store(tmp_path / "other" / "site.db")
    many(other, tmp_path / "other", 20)

    first = review.sample(store, AT, "seed", count=5)
    assert first == review.sample(other, AT, "seed", count=5)
    assert len(set(first)) == 5
    rest = review.sample(store, AT, "seed", fraction=0.5)
    assert len(rest) == 8  # of fifteen, rounded up
    assert set(first).isdisjoint(rest)
    assert len(review.sample(store, AT, "seed", count=100)) == 7
    with store.connect() as db:
        assert len(review.awaited(db)) == 20
    other.dispose()


def test_every_instance_is_as_likely_as_every_other(store: sa.Engine, root: Path) -> None:
    uids = many(store, root, 10)
    drawn = dict.fromkeys(uids, 0)
    for seed in range(300):
        drawn[min(uids, key=lambda uid: review._rank(str(seed), uid))] += 1  # noqa: SLF001 -- the order of a draw

    # 300 draws, 30 expected each, standard deviation 5.2.
    assert min(drawn.values()) > 10
    assert max(drawn.values()) < 52


def test_a_sample_can_be_of_one_modality(store: sa.Engine, root: Path) -> None:
    ultrasound = many(store, root, 3)
    many(store, root, 3, modality="MR")

    assert sorted(review.sample(store, AT, "seed", fraction=1.0, modality="US")) == sorted(ultrasound)


@pytest.mark.parametrize(
    ("count", "fraction"),
    [(None, None), (1, 0.5), (0, None), (-1, None), (None, 0.0), (None, 1.1), (None, float("nan"))],
)
def test_a_sample_of_nothing_or_of_more_than_all_is_refused(
    store: sa.Engine, count: int | None, fraction: float | None
) -> None:
    with pytest.raises(ConfigurationError):
        review.sample(store, AT, "seed", count=count, fraction=fraction)


def test_leak_rates_are_told_by_modality_and_by_pipeline(store: sa.Engine, root: Path) -> None:
    many(store, root, 4)
    many(store, root, 2, modality="MR", pipeline="1.1")
    for number, uid in enumerate(review.sample(store, AT, "seed", count=6, modality=None)):
        leak = number == 0
        review.judge(store, root, uid, "leak" if leak else "clean", "anna", AT, "pixels" if leak else None)

    with store.connect() as db:
        found = review.statistics(db)

    assert list(found) == [
        ("all", ""),
        ("modality", "MR"),
        ("modality", "US"),
        ("pipeline", "1.0"),
        ("pipeline", "1.1"),
    ]
    assert found["all", ""] == rate(1, 6)
    assert {key: value.audited for key, value in found.items()} == {
        ("all", ""): 6,
        ("modality", "MR"): 2,
        ("modality", "US"): 4,
        ("pipeline", "1.0"): 4,
        ("pipeline", "1.1"): 2,
    }


@pytest.mark.parametrize(
    ("leaks", "audited", "lower", "upper"),
    [
        (0, 10, 0.0, 0.3084971),  # 1 - 0.025 ** (1/10)
        (10, 10, 0.6915029, 1.0),
        (1, 10, 0.0025286, 0.4450161),  # R: binom.test(1, 10)
        (5, 10, 0.1870860, 0.8129140),  # R: binom.test(5, 10)
        (0, 3000, 0.0, 0.0012289),
        (0, 1, 0.0, 0.975),
    ],
)
def test_bounds_are_those_of_the_tables(leaks: int, audited: int, lower: float, upper: float) -> None:
    found = rate(leaks, audited)

    assert found.lower == pytest.approx(lower, abs=5e-7)
    assert found.upper == pytest.approx(upper, abs=5e-7)


@settings(deadline=None)
@given(st.integers(1, 400).flatmap(lambda audited: st.tuples(st.integers(0, audited), st.just(audited))))
def test_bounds_enclose_the_share_and_mirror_each_other(pair: tuple[int, int]) -> None:
    leaks, audited = pair
    here, mirrored = rate(leaks, audited), rate(audited - leaks, audited)

    assert 0 <= here.lower <= leaks / audited <= here.upper <= 1
    assert here.lower == pytest.approx(1 - mirrored.upper, abs=1e-9)


@settings(deadline=None)
@given(st.integers(0, 3), st.integers(3, 200), st.sampled_from(review.GOALS))
def test_so_many_clean_audits_are_needed_and_not_one_fewer(leaks: int, audited: int, goal: float) -> None:
    needed = review.clean_audits_needed(leaks, audited, goal)

    assert rate(leaks, audited + needed).upper < goal
    assert needed == 0 or rate(leaks, audited + needed - 1).upper >= goal


def test_without_a_leak_the_rule_of_three_and_a_bit_holds() -> None:
    assert [review.clean_audits_needed(0, 0, goal) for goal in review.GOALS] == [3688, 736, 368]


def test_nothing_on_the_record_is_more_than_digests_words_and_counts(
    store: sa.Engine, root: Path, intake: Intake
) -> None:
    held(store, root)
    review.accept(store, intake.retake, SOURCE, "anna", AT)

    assert [json.loads(row["detail"]) for row in rows(store, ledger)] == [
        {
            "decision": 1,
            "source": SOURCE,
            "verdict": "accept",
            "held_for": DOUBT,
            "boxes": 2,
            "reason": "",
            "outcome": "begun",
            "by": "anna",
        },
        {"decision": 1, "outcome": "accepted", "reason": ""},
    ]

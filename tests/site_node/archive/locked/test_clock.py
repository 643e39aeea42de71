"""The clock by which expiry is judged never goes back, and a jump ahead is refused."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING

import pytest
from hypothesis import given
from hypothesis import strategies as st

from site_node.archive.locked.clock import LONGEST_REST, TOLERANCE, Clock, Reading, judge, read_machine
from site_node.errors import ClockRefused

if TYPE_CHECKING:
    import sqlalchemy as sa

NOON = datetime(2026, 6, 1, 12, tzinfo=UTC)
SECOND = timedelta(seconds=1)


class Machine:
    """A machine whose clock a test sets."""

    def __init__(self) -> None:
        self.reading = Reading(NOON, "first", 100.0)

    def __call__(self) -> Reading:
        """Return what the machine shows."""
        return self.reading

    def passes(self, real: timedelta, shown: timedelta | None = None, boot: str | None = None) -> None:
        """Let time pass: so much in truth, and so much on the clock."""
        now = self.reading
        running = now.running_s + real.total_seconds() if boot is None else 1.0
        self.reading = Reading(now.at + (real if shown is None else shown), boot or now.boot, running)


def test_time_that_passes_as_it_should_is_told(store: sa.Engine) -> None:
    machine = Machine()
    clock = Clock(store, machine)

    assert clock.now() == NOON
    machine.passes(timedelta(days=400))
    assert clock.now() == NOON + timedelta(days=400)
    machine.passes(timedelta(hours=1), boot="second")
    assert Clock(store, machine).now() == NOON + timedelta(days=400, hours=1)


def test_a_clock_that_was_set_back_is_refused_after_a_restart_too(store: sa.Engine) -> None:
    machine = Machine()
    Clock(store, machine).now()

    for boot in (None, "second"):
        machine.passes(SECOND, shown=-timedelta(days=1), boot=boot)
        with pytest.raises(ClockRefused, match="went back"):
            Clock(store, machine).now()
        with pytest.raises(ClockRefused, match="behind"):
            Clock(store, machine).accept("operator")


def test_a_small_step_back_holds_the_moment_instead(store: sa.Engine) -> None:
    machine = Machine()
    clock = Clock(store, machine)
    clock.now()

    machine.passes(SECOND, shown=-SECOND)

    assert clock.now() == NOON


def test_many_small_steps_back_do_not_add_up(store: sa.Engine) -> None:
    machine = Machine()
    clock = Clock(store, machine)
    clock.now()

    machine.passes(SECOND, shown=-TOLERANCE)
    clock.now()
    machine.passes(SECOND, shown=-TOLERANCE)

    with pytest.raises(ClockRefused):
        clock.now()


def test_a_jump_ahead_is_refused_until_a_person_takes_it_on_the_record(store: sa.Engine) -> None:
    machine = Machine()
    clock = Clock(store, machine)
    clock.now()

    machine.passes(SECOND, shown=timedelta(days=3650))
    with pytest.raises(ClockRefused, match="jumped ahead by 3649 days"):
        clock.now()
    accepted = clock.accept("operator")

    assert clock.now() == accepted == NOON + timedelta(days=3650)


def test_a_machine_that_was_off_for_long_is_looked_at(store: sa.Engine) -> None:
    machine = Machine()
    Clock(store, machine).now()
    machine.passes(LONGEST_REST + SECOND, boot="second")

    with pytest.raises(ClockRefused):
        Clock(store, machine).now()


@given(st.lists(st.tuples(st.integers(-200, 200), st.integers(0, 200), st.booleans()), max_size=20))
def test_no_sequence_of_settings_makes_it_go_back(steps: list[tuple[int, int, bool]]) -> None:
    last, machine, told = None, Machine(), NOON
    for number, (shown, real, restarted) in enumerate(steps):
        machine.passes(timedelta(seconds=real), timedelta(seconds=shown), str(number) if restarted else None)
        try:
            moment = judge(last, machine.reading)
        except ClockRefused:
            continue
        assert last is None or moment >= told
        told, last = moment, Reading(moment, machine.reading.boot, machine.reading.running_s)


def test_the_machine_of_this_test_is_read() -> None:
    first, second = read_machine(), read_machine()

    assert first.boot == second.boot
    assert second.running_s >= first.running_s

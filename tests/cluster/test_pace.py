"""When a Device counts as slowed: a pure decision over what its Worker counts."""

from __future__ import annotations

from cluster.pace import ROUNDS, ROWS, Pace, Work

NORMAL_S = 1e-10
BYTES = 10**9


class Serving:
    """A Device that serves, and a Coordinator that looks."""

    def __init__(self, sharers: int = 1) -> None:
        self.pace, self.work, self.epoch, self.sharers = Pace(), Work(), 1, sharers
        self.pace = self.pace.seen(self.epoch, self.work, sharers)

    def round(self, times: float, rows: int = ROWS) -> float:
        """One look after so many rows, each so many times slower than normal; returns `slowed`."""
        w = self.work
        self.work = Work(w.count + rows, w.seconds + rows * BYTES * NORMAL_S * times, w.num_bytes + rows * BYTES)
        self.pace = self.pace.seen(self.epoch, self.work, self.sharers)
        return self.pace.slowed

    def rounds(self, *times: float) -> list[float]:
        return [round(self.round(t), 6) for t in times]


def test_a_device_that_reads_at_half_its_speed_three_rounds_in_a_row_is_slowed_by_that() -> None:
    assert Serving().rounds(1, 1, 1, 2, 2, 2) == [1, 1, 1, 1, 1, 2]


def test_one_slow_round_or_two_are_chance() -> None:
    assert set(Serving().rounds(1, 1, 3, 1, 3, 3, 1, 1.3, 1.3, 1.3)) == {1}


def test_it_recovers_after_three_rounds_at_its_own_speed() -> None:
    assert Serving().rounds(1, 2, 2, 2, 1, 1, 1) == [1, 1, 1, 2, 2, 2, 1]


def test_rounds_with_few_rows_are_added_up_until_they_count() -> None:
    serving = Serving()
    serving.round(1)
    seen = [serving.round(2, rows=1) for _ in range(ROUNDS * ROWS)]
    assert seen[:-1] == [1] * (ROUNDS * ROWS - 1) and round(seen[-1], 6) == 2


def test_a_factor_that_changes_is_told_anew_and_noise_about_it_is_not() -> None:
    serving = Serving()
    assert serving.rounds(1, 2, 2, 2, 2.1, 1.9, 2.1)[-1] == 2
    assert serving.rounds(4, 4, 4)[-1] == 4


def test_another_plan_keeps_what_was_known_and_compares_with_itself() -> None:
    serving = Serving()
    serving.rounds(1, 2, 2, 2)
    serving.epoch = 2
    serving.round(2.4)  # the new Stage reads a little differently: no reason to call it slower still
    assert serving.rounds(2.4, 2.4, 2.4)[-1] == 2
    assert serving.rounds(1.2, 1.2, 1.2)[-1] == 1


def test_a_worker_that_was_started_anew_counts_from_there() -> None:
    serving = Serving()
    serving.rounds(1, 1, 1)
    serving.work = Work(2, 2 * BYTES * NORMAL_S, 2 * BYTES)
    serving.pace = serving.pace.seen(1, serving.work)
    assert serving.rounds(1, 1, 1, 2, 2, 2)[-1] == 2


def test_a_measurement_while_nobody_talks_decides() -> None:
    serving = Serving()
    serving.rounds(1, 2, 2, 2)
    serving.pace = serving.pace.measured(1.0)
    assert serving.rounds(1, 1, 1) == [1, 1, 1]


def test_three_cpu_devices_of_a_rig_that_take_turns_are_not_slowed_and_one_that_somebody_else_uses_is() -> None:
    serving = Serving(sharers=3)
    assert set(serving.rounds(1, 3, 3, 3, 3.9, 3.9, 3.9)) == {1}
    assert serving.rounds(6, 6, 6)[-1] == 2
    assert serving.rounds(3, 3, 3)[-1] == 1


def test_cpu_devices_that_were_slowed_under_another_plan_are_told_again_when_they_are_quick() -> None:
    serving = Serving(sharers=2)
    serving.rounds(1, 6, 6, 6)
    serving.epoch = 2
    serving.round(6)
    assert serving.rounds(6, 6, 6)[-1] == 3
    assert serving.rounds(1, 1, 1)[-1] == 1

"""Learning rates begin warm and fall when they should, and a run without progress slows down or stops."""

import numpy as np
import pytest

from mask_lib.base import config
from mask_lib.training import optimizer

SCHEDULES = ["constant", "cosine", "one_cycle", "step", "plateau"]


def history(*macro_f1: float) -> list[dict[str, float]]:
    return [{"epoch": epoch, "val_macro_f1": value} for epoch, value in enumerate(macro_f1, start=1)]


@pytest.mark.parametrize("schedule", SCHEDULES)
def test_schedules_start_warm_peak_at_one_and_stay_positive(schedule):
    run = config.Run(epochs=10, schedule=schedule, warmup_epochs=1.0)
    factors = [optimizer.learning_rate_factor(run, progress) for progress in np.linspace(0, 9.99, 400)]
    assert factors[0] < 0.01
    assert max(factors) == pytest.approx(1.0, abs=0.01)
    assert min(factors) > 0
    if schedule not in ("constant", "plateau"):
        assert factors[-1] < 0.02


@pytest.mark.parametrize(("warmup_epochs", "peak"), [(0.0, 1.8), (0.5, 0.5), (3.0, 3.0)])
def test_one_cycle_rises_once_to_exactly_1_and_then_falls(warmup_epochs, peak):
    run = config.Run(epochs=6, schedule="one_cycle", warmup_epochs=warmup_epochs)
    progress = np.append(np.arange(0, 6, 0.01), peak)
    progress.sort()
    factors = np.array([optimizer.learning_rate_factor(run, moment) for moment in progress])
    top = int(factors.argmax())
    assert factors.max() == 1 and progress[top] == pytest.approx(peak)
    assert (np.diff(factors[: top + 1]) >= 0).all() and (np.diff(factors[top:]) <= 0).all()
    assert 0 < factors[0] < 0.01 and 0 < factors[-1] < 0.001


@pytest.mark.parametrize(
    ("macro_f1", "idle"),
    [
        ([], []),
        ([0.0], [0]),  # better than nothing
        ([0.3, 0.4, 0.5], [0, 0, 0]),
        ([0.3, 0.3, 0.2, 0.31, 0.31], [0, 1, 2, 0, 1]),  # as good is not better
    ],
)
def test_idle_epochs_are_those_since_the_best(macro_f1, idle):
    assert optimizer.idle_epochs(config.Run(), history(*macro_f1)) == idle


STANDSTILL = (0.5, 0.5, 0.5, 0.5, 0.5)


@pytest.mark.parametrize(
    ("changes", "idle"),
    [
        ({"frozen_epochs": 2}, [0, 0, 1, 2, 3]),
        ({"warmup_epochs": 2.5}, [0, 0, 0, 1, 2]),  # an epoch that began warming up is one
        ({"frozen_epochs": 1, "warmup_epochs": 2.0}, [0, 0, 1, 2, 3]),
        ({"schedule": "one_cycle"}, [0, 0, 0, 1, 2]),  # of ten epochs three rise
    ],
)
def test_idle_epochs_are_counted_from_the_last_that_was_frozen_or_warming_up(changes, idle):
    assert optimizer.idle_epochs(config.Run(epochs=10, **changes), history(*STANDSTILL)) == idle


@pytest.mark.parametrize("begins", [{"frozen_epochs": 3}, {"warmup_epochs": 3.0}])
def test_a_run_neither_slows_down_nor_stops_before_it_has_begun_in_earnest(begins):
    run = config.Run(epochs=10, schedule="plateau", plateau_epochs=2, early_stop_epochs=2, **begins)
    for past, drops in ((3, 0), (4, 0), (5, 1)):
        rows = history(*STANDSTILL[:past])
        assert optimizer.learning_rate_factor(run, past + 0.5, rows) == pytest.approx(0.1**drops)
        assert optimizer.stopped_early(run, rows) == (drops > 0)


@pytest.mark.parametrize(
    ("macro_f1", "drops"),
    [
        ([0.5], 0),
        ([0.5, 0.4], 0),
        ([0.5, 0.4, 0.4], 1),
        ([0.5, 0.4, 0.4, 0.4], 1),
        ([0.5, 0.4, 0.4, 0.4, 0.4], 2),
        ([0.5, 0.4, 0.4, 0.6, 0.7], 1),  # what has fallen stays down
        ([0.5, 0.4, 0.6, 0.4, 0.7, 0.4], 0),
    ],
)
def test_after_each_plateau_a_tenth_is_left(macro_f1, drops):
    run = config.Run(epochs=10, schedule="plateau", plateau_epochs=2)
    factor = optimizer.learning_rate_factor(run, len(macro_f1) + 0.5, history(*macro_f1))
    assert factor == pytest.approx(0.1**drops)


@pytest.mark.parametrize("schedule", SCHEDULES[:-1])
def test_other_schedules_do_not_look_back(schedule):
    run = config.Run(epochs=10, schedule=schedule, plateau_epochs=1)
    with_history = optimizer.learning_rate_factor(run, 3.5, history(0.5, 0.4, 0.3))
    assert with_history == optimizer.learning_rate_factor(run, 3.5)


@pytest.mark.parametrize(
    ("macro_f1", "stopped"),
    [([], False), ([0.5], False), ([0.5, 0.4], False), ([0.5, 0.4, 0.5], True), ([0.5, 0.4, 0.6, 0.5], False)],
)
def test_a_run_stops_after_so_many_epochs_without_a_better_macro_f1(macro_f1, stopped):
    assert optimizer.stopped_early(config.Run(early_stop_epochs=2), history(*macro_f1)) == stopped
    assert not optimizer.stopped_early(config.Run(early_stop_epochs=0), history(*macro_f1))

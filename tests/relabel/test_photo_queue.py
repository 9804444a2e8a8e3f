"""The pace of work is that of photos, breaks left out, and is told once it means anything."""

import pytest

from mask_lib.relabel.photo_queue import Queue


@pytest.mark.parametrize(
    ("times", "waiting", "pace"),  # of key presses; photos waiting after each; photos a minute and minutes left
    [
        pytest.param(
            [*range(0, 12, 2), *range(5000, 5012, 2)], range(19, 7, -1), (30, 8 / 30), id="breaks do not count"
        ),
        pytest.param(range(0, 20, 5), range(16, 0, -4), (48, 4 / 48), id="photos count, not keys: each settles four"),
        pytest.param(range(0, 40, 2), range(19, -1, -1), (30, None), id="no time is left at the end"),
        pytest.param(range(0, 12, 2), range(19, 13, -1), (None, None), id="too few photos"),
        pytest.param([0.1 * number for number in range(16)], range(19, 3, -1), (None, None), id="too short a time"),
        pytest.param(range(0, 1600, 100), range(19, 3, -1), (None, None), id="nothing but breaks"),
        pytest.param(range(0, 32, 2), [*range(19, 11, -1), *range(13, 21)], (None, None), id="all undone in the end"),
    ],
)
def test_the_pace_is_that_of_photos_without_breaks_once_it_means_anything(times, waiting, pace):
    queue = Queue([str(number) for number in range(20)], lambda path: int(path) >= 20 - waiting[-1])
    found = queue.progress(list(zip(times, waiting, strict=True)))
    assert (found["done"], found["total"]) == (20 - waiting[-1], 20)
    assert (found["per_minute"], found["minutes_left"]) == pytest.approx(pace)

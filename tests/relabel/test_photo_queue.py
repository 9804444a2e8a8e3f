"""The pace of work is that of photos, breaks left out, and is told once it means anything."""

import pytest

from mask_lib.relabel.photo_queue import Queue


def pace(times: list[float], waiting: list[int]) -> tuple[float | None, float | None]:
    """Photos a minute and minutes left, after key presses at these times with so many photos waiting after each."""
    queue = Queue([str(number) for number in range(20)], lambda path: int(path) >= 20 - waiting[-1])
    found = queue.progress(list(zip(times, waiting, strict=True)))
    assert (found["done"], found["total"]) == (20 - waiting[-1], 20)
    return found["per_minute"], found["minutes_left"]


def test_the_pace_leaves_out_breaks():
    times = [0, 2, 4, 6, 8, 10, 5000, 5002, 5004, 5006, 5008, 5010]
    assert pace(times, list(range(19, 7, -1))) == pytest.approx((30, 8 / 30))


@pytest.mark.parametrize(
    ("times", "waiting"),
    [
        ([0, 2, 4, 6, 8, 10], [19, 18, 17, 16, 15, 14]),  # too few photos
        ([0.1 * number for number in range(16)], list(range(19, 3, -1))),  # too short a time
        ([100.0 * number for number in range(16)], list(range(19, 3, -1))),  # nothing but breaks
        ([2.0 * number for number in range(16)], [*range(19, 11, -1), *range(13, 21)]),  # all undone in the end
    ],
)
def test_no_pace_is_told_before_it_means_anything(times, waiting):
    assert pace(times, waiting) == (None, None)


def test_the_pace_counts_photos_and_not_keys():
    assert pace([0, 5, 10, 15], [16, 12, 8, 4]) == pytest.approx((48, 4 / 48))  # each key settles four


def test_at_the_end_no_time_is_left_to_tell_of():
    per_minute, minutes = pace([2.0 * number for number in range(20)], list(range(19, -1, -1)))
    assert per_minute == pytest.approx(30) and minutes is None

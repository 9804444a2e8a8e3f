"""What a search found, as tables: the best policies, and which operations go with a good score."""

import json

import numpy as np
import pandas as pd
import pytest

from mask_lib.augment import search
from mask_lib.augment.policy import Policy


def table(*rows: tuple[str, float, list]) -> pd.DataFrame:
    """Trials of (state, value, steps); the first is no augmentation."""
    found = [
        {
            "trial": number,
            "state": state,
            "value": value,
            "policy": json.dumps(Policy(f"policy {number}", (steps,) if steps else ()).plain()),
        }
        for number, (state, value, steps) in enumerate(rows)
    ]
    return pd.DataFrame(found)


FOUND = table(
    ("complete", 0.9, []),
    ("complete", 0.5, [("rotate", 0.5, 1.0), ("blur", 0.5, 0.2)]),
    ("complete", 0.7, [("rotate", 0.5, 0.5), ("blur", 0.5, 0.4), ("invert", 1.0, None)]),
    ("complete", 0.8, [("rotate", 0.5, 0.1), ("blur", 0.5, 0.6)]),
    ("pruned", np.nan, [("rotate", 1.0, 1.0)]),
)


def test_the_best_come_first_without_the_pruned_and_without_no_augmentation():
    assert [policy.name for policy in search.best_policies(FOUND, 2)] == ["policy 3", "policy 2"]
    assert len(search.best_policies(FOUND, 99)) == 3
    with pytest.raises(ValueError, match="no policy was scored to the end"):
        search.best_policies(FOUND[FOUND["trial"] == 0], 5)


def test_of_equals_the_earlier_one_wins():
    equal = table(("complete", 0, []), ("complete", 0.5, [("flip", 1, None)]), ("complete", 0.5, [("invert", 1, None)]))
    assert [policy.name for policy in search.best_policies(equal, 1)] == ["policy 1"]


def test_an_operation_counts_by_how_much_of_it_photos_meet():
    policy = Policy("a", ((("rotate", 0.5, 0.4), ("invert", 0.25, None)), (("rotate", 1.0, 0.2),)))
    assert search.operation_use(policy) == pytest.approx({"rotate": 0.2, "invert": 0.125})


def test_operations_are_ranked_by_what_the_score_goes_with():
    found = search.operation_importance(FOUND).set_index("operation")
    assert list(found.index) == ["blur", "invert", "rotate"]
    assert found["correlation"]["blur"] == pytest.approx(1)
    assert found["correlation"]["rotate"] == pytest.approx(-1)
    assert found["correlation"]["invert"] == pytest.approx(0)
    assert dict(found["policies"]) == {"blur": 3, "invert": 1, "rotate": 3}


def test_what_does_not_vary_correlates_with_nothing():
    equal = table(("complete", 0, []), ("complete", 0.5, [("flip", 1, None)]), ("complete", 0.7, [("flip", 1, None)]))
    assert list(search.operation_importance(equal)["correlation"]) == [0]


def test_trials_that_are_not_there_say_what_to_run(tmp_path):
    with pytest.raises(FileNotFoundError, match="run 02_search_augmentation first"):
        search.read_trials(tmp_path)

"""Augmentation policies in words and as tables: what each step does, what photos meet, what differs between two."""

import difflib
from collections import Counter
from collections.abc import Sequence

import pandas as pd

from mask_lib.policies import Policy
from mask_lib.steps import OPERATIONS, Step

MOST_LINES = 12  # of a description


def table(policy: Policy) -> pd.DataFrame:
    """One row a step: sub_policy and step (from 0), operation, probability, magnitude (NaN for none), in_words."""
    rows = [
        (number, place, *step, in_words(step))
        for number, sub_policy in enumerate(policy.sub_policies)
        for place, step in enumerate(sub_policy)
    ]
    columns = ["sub_policy", "step", "operation", "probability", "magnitude", "in_words"]
    return pd.DataFrame(rows, columns=columns).astype({"magnitude": float, "probability": float})


def in_words(step: Step) -> str:
    """`rotate ± 13.5 degrees, half the time`, as a person says it."""
    operation = OPERATIONS[step.operation]
    size = ""
    if operation.unit and step.magnitude is None:
        size = f" from {operation.value(0):.3g} to {operation.value(1):.3g} {operation.unit}"
    elif operation.unit:
        size = f" {operation.value(step.magnitude):.3g} {operation.unit}"
    size = size.replace(" ", " ± ", 1) if operation.signed else size
    often = {0: ", never", 1: ""}.get(step.probability, f", in {step.probability:.0%}")
    return f"{operation.words}{size}{often}"


def describe(policy: Policy) -> str:
    """The policy in words, a sub-policy a line; of more than a dozen the first, and how many there are."""
    count = len(policy.sub_policies)
    if not count:
        return f"{policy.name}: photos stay as they are"
    lines = [f"  {_line(sub_policy)}" for sub_policy in policy.sub_policies[:MOST_LINES]]
    more = [f"  … and {count - MOST_LINES:,} more"] if count > MOST_LINES else []
    many = f"each photo draws one of {count:,} sub-policies" if count > 1 else "every photo, in this order"
    return "\n".join([f"{policy.name}: {many}", *lines, *more])


def diff(before: Policy, after: Policy) -> pd.DataFrame:
    """What differs between two policies, a row a sub-policy; none if they do the same.

    Columns: change (removed, added, changed), before, after: the sub-policy in words, empty where there is none.
    Sub-policies stand in any order: one that only moved is no difference.
    """
    first, second = (Counter(map(_line, policy.sub_policies)) for policy in (before, after))
    removed, added = list((first - second).elements()), list((second - first).elements())
    rows = []
    for old in removed:
        close = difflib.get_close_matches(old, added, 1)
        rows.append(("changed" if close else "removed", old, *(close or [""])))
        for new in close:
            added.remove(new)
    rows += [("added", "", new) for new in added]
    return pd.DataFrame(rows, columns=["change", "before", "after"])


def shares(policy: Policy) -> pd.DataFrame:
    """How often a photo meets each operation at each magnitude, as columns operation, magnitude and share.

    magnitude: NaN for one that is drawn, and for none; share: how many times a photo meets it in the mean.
    """
    steps = table(policy)
    found = steps.assign(share=steps["probability"] / max(len(policy.sub_policies), 1))
    grouped = found.groupby(["operation", "magnitude"], dropna=False, sort=False)["share"].sum()
    return grouped.reset_index()


def _line(sub_policy: Sequence[Step]) -> str:
    return ", then ".join(map(in_words, sub_policy)) or "leave as it is"

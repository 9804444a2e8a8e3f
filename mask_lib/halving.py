"""Which policies of a search by halving go on past a rung, a number of epochs, and which stop there.

Successive halving (Jamieson and Talwalkar 2016) whose workers never wait for one another (Li et al. 2020): a policy is
measured against those that reached the rung before it. One in `factor` goes on, but never fewer than `at_least`, so
that so many policies are trained to the end whatever the first epochs look like.

No augmentation is outside of this: what is easiest to learn leads after an epoch or two, and measured against it
every policy might stop. It is trained to the end, for it is the bar to clear.
"""

from collections.abc import Mapping, Sequence

from optuna.trial import FrozenTrial

from mask_lib.journal import SLOT


def is_rung(epochs: int, first: int, factor: int) -> bool:
    """Whether so many epochs are one of first, first x factor, first x factor x factor …"""
    while first < epochs:
        first *= factor
    return first == epochs


def reached(trials: Sequence[FrozenTrial], epochs: int) -> dict[int, float]:
    """By place, what the policies that reached a rung had scored there; no augmentation is none of them."""
    found = {trial.user_attrs.get(SLOT): trial.intermediate_values.get(epochs) for trial in trials}
    return {place: value for place, value in found.items() if place and value is not None}


def goes_on(place: int, values: Mapping[int, float], factor: int, at_least: int) -> bool:
    """Whether the policy of a place is among the best of a rung; values: by place, its own too.

    Of equals the earlier place is the better one.
    """
    ranked = sorted(values, key=lambda one: (-values[one], one))
    return place in ranked[: max(at_least, len(ranked) // factor)]

"""How long twenty models of the official set's 18,900 photos take to be averaged, weighted and chosen from.

Run it with `python benchmarks/ensemble.py [models] [photos]`, with OMP_NUM_THREADS=1 for one core. At most 5 s
are asked for the weighted mean and greedy selection together; what 07_ensemble does in whole is printed in multiples
of these two.
"""

import sys
from collections.abc import Callable

import numpy as np
import pandas as pd
import timing

from mask_lib.base import labels
from mask_lib.ensemble import blending, calibration
from mask_lib.ensemble.members import OutOfFold, with_probabilities

PHOTOS_A_PERSON = 7


def simulated(models: int, photos: int) -> OutOfFold:
    """Models that fail together in part."""
    generator, classes = np.random.default_rng(0), labels.class_count()
    truth = generator.integers(0, classes, photos)
    shared = generator.normal(size=(photos, classes)) + 2 * np.eye(classes)[truth]
    powers = np.stack([np.exp(shared + generator.normal(size=shared.shape)) for _ in range(models)])
    person = (np.arange(photos) // PHOTOS_A_PERSON).astype(str)
    keys = pd.DataFrame({"path": np.arange(photos).astype(str), "person": person, "label": truth})
    return OutOfFold([f"run{number}" for number in range(models)], keys, powers / powers.sum(axis=2, keepdims=True))


def timed(name: str, function: Callable[[], object]) -> float:
    """Seconds of one call, printed."""
    seconds = timing.once(function)
    print(f"  {name}: {seconds:.2f} s")
    return seconds


def main(models: int, photos: int) -> None:
    found = simulated(models, photos)
    members, truth, recipe = found.probabilities, found.truth, blending.given_recipe([], models)
    print(f"{models} models x {photos:,} photos x {labels.class_count()} classes")
    asked = timed("weighted mean", lambda: recipe.blend(members))
    asked += timed("greedy selection", lambda: blending.greedy_weights(members, truth))
    print(f"weighted mean and greedy selection: {asked:.2f} s (at most 5 s are asked)")
    blended = with_probabilities(found.photos, recipe.blend(members))
    timed("the mean's temperature", lambda: calibration.fit_temperature(recipe.blend(members), truth))
    whole = timed("the recipe of 07_ensemble", lambda: blending.choose_recipe(found))
    whole += timed("each member's part in it", lambda: blending.contributions(found, recipe))
    whole += timed("its scores out of fold", lambda: blending.intervals(found.names, members, blended))
    print(f"07_ensemble in whole: {whole:.2f} s, {whole / asked:.1f} x weighted mean and greedy selection")


if __name__ == "__main__":
    given = [int(number) for number in sys.argv[1:3]]
    main(*given, *(20, 18_900)[len(given) :])

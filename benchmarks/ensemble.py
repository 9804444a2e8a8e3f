"""How long twenty models of the official set's 18,900 photos take to be weighted, averaged and chosen from.

Run it with `python benchmarks/ensemble.py [models] [photos]`, with OMP_NUM_THREADS=1 for one core. At most
5 s are asked for the weighted mean and greedy selection together; the other ways are printed beside, and what
07_ensemble does in whole, in multiples of these two.
"""

import sys
from collections.abc import Callable

import numpy as np
import pandas as pd
import timing

from mask_lib.base.labels import CLASS_COUNT
from mask_lib.ensemble import blending, calibration
from mask_lib.ensemble.members import COLUMNS, OutOfFold, weighted_mean

PHOTOS_A_PERSON = 7


def invented(models: int, photos: int) -> tuple[np.ndarray, np.ndarray]:
    """(M, N, 18) probabilities of models that fail together in part, and (N,) labels."""
    generator = np.random.default_rng(0)
    truth = generator.integers(0, CLASS_COUNT, photos)
    shared = generator.normal(size=(photos, CLASS_COUNT)) + 2 * np.eye(CLASS_COUNT)[truth]
    logits = np.stack([shared + generator.normal(size=shared.shape) for _ in range(models)])
    powers = np.exp(logits)
    return powers / powers.sum(axis=2, keepdims=True), truth


def timed(name: str, function: Callable[[], object]) -> float:
    """Seconds of one call, printed."""
    seconds = timing.once(function)
    print(f"  {name}: {seconds:.2f} s")
    return seconds


def main(models: int, photos: int) -> None:
    members, truth = invented(models, photos)
    tables = [pd.DataFrame(one, columns=COLUMNS) for one in members]
    for table in tables:
        table.insert(0, "ImageID", [f"{number:040x}.jpg" for number in range(photos)])
    print(f"{models} models x {photos:,} photos x {CLASS_COUNT} classes")
    asked = timed("weighted mean", lambda: weighted_mean(tables, [1.0] * models, "ImageID"))
    asked += timed("greedy selection", lambda: blending.greedy_weights(members, truth))
    for method in ("simplex, log loss", "simplex, macro F1"):
        timed(method, lambda method=method: blending.METHODS[method](members, truth))
    timed("a temperature a model", lambda: [calibration.fit_temperature(one, truth) for one in members])
    timed("an offset a class", lambda: calibration.fit_offsets(members.mean(axis=0), truth))
    print(f"weighted mean and greedy selection: {asked:.2f} s (at most 5 s are asked)")
    person = np.arange(photos) // PHOTOS_A_PERSON
    keys = pd.DataFrame({"path": np.arange(photos).astype(str), "person": person, "label": truth})
    found = OutOfFold([f"run{number}" for number in range(models)], keys, members)
    whole = timed("the recipe of 07_ensemble", lambda: blending.choose(found))
    recipe = blending.fit(members, truth)
    whole += timed("each member's part in it", lambda: blending.contributions(found, recipe))
    whole += timed("its scores out of fold", lambda: blending.intervals(found, blending.given(found, [1.0] * models)))
    print(f"07_ensemble in whole: {whole:.2f} s, {whole / asked:.1f} x weighted mean and greedy selection")


if __name__ == "__main__":
    given = [int(number) for number in sys.argv[1:3]]
    main(*given, *(20, 18_900)[len(given) :])

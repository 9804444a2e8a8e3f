"""How often the intervals of `scores.bootstrap` hold the truth, of sets of people drawn from many: 95% asked.

`python benchmarks/coverage.py` draws from simulated people of the competition's shares, who have seven photos each
and answers right as often as its teams had them; `python benchmarks/coverage.py OUTPUT RUN` from the people of a
finished run and what it said of them out of fold: a real table of labels, but a population of these people alone.
"""

import sys

import numpy as np
import pandas as pd

from mask_lib.base import files, labels, scores
from mask_lib.training import run_folder

SIZES, SAMPLES = (60, 124, 300, 700), 400
SHARES = {(0, 0): 0.20, (0, 1): 0.15, (0, 2): 0.03, (1, 0): 0.27, (1, 1): 0.30, (1, 2): 0.05}  # gender, age group
MASKS = (0, 0, 0, 0, 0, 1, 2)  # of a person's photos


def simulated(people: int = 5000, seed: int = 0) -> pd.DataFrame:
    """Columns person, label, predicted: mask, gender and age are right as often as 98%, 93% and 68% at random.

    Half of the chance to err is the person's: whose photos fail, fail together.
    """
    random, kinds = np.random.default_rng(seed), np.array(list(SHARES))
    gender, age = kinds[random.choice(len(kinds), people, p=list(SHARES.values()))].repeat(len(MASKS), axis=0).T
    person, mask = np.arange(people).repeat(len(MASKS)), np.tile(MASKS, people)
    said = {}
    for name, true, right in (("mask", mask, 0.98), ("gender", gender, 0.93), ("age", age, 0.68)):
        luck = np.where(random.random(len(true)) < 0.5, random.random(people)[person], random.random(len(true)))
        size = labels.attribute(name).size
        said[name] = np.where(luck < right, true, (true + random.integers(1, size, len(true))) % size)
    truth = labels.encode_all({"mask": mask, "gender": gender, "age": age})
    return pd.DataFrame({"person": person, "label": truth, "predicted": labels.encode_all(said)})


def main(output: str = "", run: str = "") -> None:
    """Print how many of the intervals hold the population's value, by metric and number of people."""
    if output:
        table = run_folder.out_of_fold(run_folder.folder_of(files.project_path(output), run))
        table = table.assign(predicted=scores.from_probabilities(table)[1])
    else:
        table = simulated()
    whole = pd.Series(scores.summarise(table["label"], table["predicted"]))
    rows, random = dict(tuple(table.groupby("person"))), np.random.default_rng(0)
    names = list(rows)
    for size in SIZES:
        held, width = [], []
        for number in range(SAMPLES):
            drawn = [rows[names[one]].assign(person=place) for place, one in enumerate(random.choice(len(names), size))]
            sample = pd.concat(drawn)
            found = scores.bootstrap(sample["label"], sample["predicted"], sample["person"], draws=300, seed=number)
            held.append((found["low"] <= whole) & (whole <= found["high"]))
            width.append(found["high"] - found["low"])
        shares = ", ".join(f"{name} {share:.1%}" for name, share in pd.DataFrame(held).mean().items())
        print(f"{size} people: {shares}; macro F1 is {pd.DataFrame(width)['macro_f1'].mean():.3f} wide", flush=True)


if __name__ == "__main__":
    main(*sys.argv[1:])

"""Whether a submission scores what it was promised: the whole chain on one painted set after another.

Run it with `python benchmarks/expected.py [sets] [first seed]`; ten sets take about 40 minutes on two CPU cores, one on
each, and a set that was done before is not done again. The interval of 07_ensemble should hold the true macro F1 in at
least nine of ten and be at most 0.25 wide. In every second set the evaluation people wear masks that no photo to learn
from shows: how masks are worn should nearly always be right there too (0.97), and what 07 says of looks never seen be
within 0.05 of that. Sets, runs and submissions lie under outputs/expected.
"""

import concurrent.futures
import json
import os
import subprocess
import sys
from pathlib import Path

import pandas as pd
import yaml

from mask_lib.base import files
from mask_lib.ensemble import expected_score
from mask_lib.headless import runner
from mask_lib.sample import paint

DEMO = files.PROJECT / "notebooks" / "params" / "demo.yml"
OUTPUT = files.PROJECT / "outputs" / "expected"
SIZE = {"width": 192, "height": 256}  # pixels: a quarter of what is usual, and still no less than the networks see
EVAL_PEOPLE = 200  # by 40, as many as the demo's, the truth itself is known to 0.13 either way
RUNS = ("frozen", "heads")  # of demo.yml


def has_new_masks(seed: int) -> bool:
    """Whether the evaluation people of a set wear masks that training never saw."""
    return seed % 2 == 0


def submission_of(seed: int) -> Path:
    """Paint a set and take it through the chain of demo.yml; where its submission lies. Raises CalledProcessError."""
    folder = OUTPUT / str(seed)
    paint.paint(folder / "data", eval_people=EVAL_PEOPLE, seed=seed, new_masks=has_new_masks(seed), workers=1, **SIZE)
    experiment = yaml.safe_load(DEMO.read_text())
    experiment |= {"data_dir": str(folder / "data"), "output_dir": str(folder), "seed": seed, "unseen_looks": True}
    experiment["runs"] = {run: experiment["runs"][run] for run in RUNS}
    settings = files.write_json(experiment, folder / "experiment.json")
    submission = folder / "submissions" / "submission.csv"
    command = [sys.executable, "-m", "snakemake", "--cores", "1", "--nolock", files.shown_path(submission)]
    with (folder / "chain.log").open("w") as log:
        subprocess.run(
            [*command, "--configfile", settings],
            cwd=files.PROJECT,
            env=os.environ | runner.quicker(),
            check=True,
            stdout=log,
            stderr=log,
        )
    return submission


def main(sets: int, first: int) -> None:
    """Print for each set what was promised and what came true."""
    held, seeds = 0, range(first, first + sets)
    with concurrent.futures.ThreadPoolExecutor(os.cpu_count()) as pool:
        for number, (seed, submission) in enumerate(zip(seeds, pool.map(submission_of, seeds), strict=True), start=1):
            promised = json.loads((submission.parent / expected_score.FILE).read_text())["metrics"]["macro_f1"]
            true = paint.score_submission(OUTPUT / str(seed) / "data", submission)
            looks = pd.read_csv(submission.parent / "looks.csv").set_index("run")
            held += promised["low"] <= true["macro_f1"] <= promised["high"]
            print(
                f"seed {seed}: promised {promised['value']:.3f} ({promised['low']:.3f}–{promised['high']:.3f}, "
                f"{promised['high'] - promised['low']:.3f} wide), true {true['macro_f1']:.3f}; {held} of {number} "
                f"within; mask {true['mask']:.3f}{' on new masks' * has_new_masks(seed)}, on looks never seen "
                f"{looks['unseen'].get('ensemble', float('nan')):.3f} of {looks['photos'].max()}",
                flush=True,
            )


if __name__ == "__main__":
    given = [int(number) for number in sys.argv[1:3]]
    main(*given, *(10, 1)[len(given) :])

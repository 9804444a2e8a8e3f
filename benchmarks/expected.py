"""Whether a submission scores what it was promised: the whole chain on one painted set after another.

Run it with `python benchmarks/expected.py [sets] [first seed]`; ten sets take about half an hour on two CPU cores, and
a set that was done before is not done again. The interval of 07_ensemble should hold the true macro F1 in at least
nine of ten. Sets, runs and submissions lie under outputs/expected.
"""

import json
import os
import subprocess
import sys
from pathlib import Path

import yaml

from mask_lib.base import files
from mask_lib.ensemble import expected_score
from mask_lib.headless import runner
from mask_lib.sample import paint

DEMO = files.PROJECT / "notebooks" / "params" / "demo.yml"
OUTPUT = files.PROJECT / "outputs" / "expected"
SIZE = {"width": 192, "height": 256}  # pixels: a quarter of what is usual, and still more than the network sees
RUN = "heads"  # of demo.yml: one run is enough to ask, and takes half the time


def submission_of(seed: int) -> Path:
    """Paint a set and take it through the chain of demo.yml; where its submission lies. Raises CalledProcessError."""
    folder = OUTPUT / str(seed)
    paint.paint(folder / "data", seed=seed, **SIZE)
    experiment = yaml.safe_load(DEMO.read_text())
    experiment |= {"data_dir": str(folder / "data"), "output_dir": str(folder), "seed": seed}
    experiment["runs"] = {RUN: experiment["runs"][RUN] | {"compare_with": ""}}  # there is no other
    settings = files.write_json(experiment, folder / "experiment.json")
    submission = folder / "submissions" / "submission.csv"
    command = [sys.executable, "-m", "snakemake", "--cores", "all", "--nolock", files.shown_path(submission)]
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
    held = 0
    for number, seed in enumerate(range(first, first + sets), start=1):
        submission = submission_of(seed)
        promised = json.loads((submission.parent / expected_score.FILE).read_text())["metrics"]["macro_f1"]
        true = paint.score_submission(OUTPUT / str(seed) / "data", submission)["macro_f1"]
        held += promised["low"] <= true <= promised["high"]
        print(
            f"seed {seed}: promised {promised['value']:.3f} ({promised['low']:.3f}–{promised['high']:.3f}), "
            f"true {true:.3f}; {held} of {number} within",
            flush=True,
        )


if __name__ == "__main__":
    given = [int(number) for number in sys.argv[1:3]]
    main(*given, *(10, 1)[len(given) :])

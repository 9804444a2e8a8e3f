"""Toy runs that are trained and have predicted, with the recipe of their ensemble."""

from pathlib import Path

import toys

from mask_lib.ensemble import blending, inference, members, pack, voting
from mask_lib.models.predict import Tta
from mask_lib.training import runs

FROZEN = {"head": "frozen", "epochs": 1, "attribute_loss": 0.0, "warmup_epochs": 0.0}
RUNS = {  # settings, and views
    "frozen": (FROZEN, Tta()),
    "heads": ({"head": "three", "epochs": 1, "attribute_loss": 0.0}, Tta(4)),
    "toy": ({}, Tta()),
}
RECIPE = blending.Recipe((0.2, 0.3, 0.5), 1.5)


def write(data: Path, output: Path, asked: dict[str, tuple[dict, Tta]], recipe: blending.Recipe | None = None) -> None:
    """Train these runs on the toy in `data`, let them predict, and if one is given write their recipe."""
    toys.prepare(data, output)
    for run, (changes, tta) in asked.items():
        runs.write_scores(toys.train(data, output, run=run, **changes))
        inference.predict_run(data, output, run, tta)
    if recipe:
        nobody_voted = voting.VoteResult(None, None, None, False, "")
        pack.write_recipe(output, members.read_members(output), recipe, nobody_voted)

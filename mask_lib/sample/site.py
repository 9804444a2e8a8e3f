"""People on a building site, with helmets and vests or without: a task of its own, `tasks/helmet.yml`, in a CSV."""

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from mask_lib.base import files, labels
from mask_lib.sample.crowd import hashed_name, invent_people, stream
from mask_lib.sample.people import Mask, Shot, invent_shot

HELMETS = ((240, 240, 236), (246, 200, 50), (60, 110, 200), (206, 60, 50))
VESTS = {"none": None, "orange": (250, 120, 30), "yellow": (216, 240, 50)}
WRONG_SHARE = 0.03  # of the rows, whose helmet is not that of the photo


def dressed(random: np.random.Generator, helmet: str, vest: str) -> Shot:
    """One photo's pose, light and gear."""
    colour = HELMETS[random.integers(len(HELMETS))] if helmet == "yes" else None
    return replace(invent_shot(random, Mask.NOT_WORN), helmet=colour, vest=VESTS[vest])


def plan(root: Path, arguments: dict[str, Any]) -> tuple[list[tuple], dict[str, Any]]:
    """The photos of each person to paint, as `paint.Job`s, and the truth about them; writes the labels' CSV.

    A person has four photos, in one kind of vest or in none, in one photo at least with a helmet, in one without.
    """
    seed, size, count = arguments["seed"], (arguments["width"], arguments["height"]), arguments["people"]
    jobs, truth = [], {"arguments": arguments, "photos": {}, "eval": {}, "faults": {}}
    for person in invent_people(stream(seed, 0, 0), count + arguments["eval_people"], 0):
        random, is_asked = stream(seed, 2, person.number), person.number >= count
        vest, helmets, photos = str(random.choice(list(VESTS))), ["yes", "no", *random.choice(["yes", "no"], 2)], []
        for number, helmet in enumerate(random.permutation(helmets).tolist()):
            name = hashed_name(seed, person.number, number) if is_asked else f"{person.id}/{number}.jpg"
            label = labels.encode(helmet == "no", list(VESTS).index(vest))
            truth["eval" if is_asked else "photos"][name] = {"label": label, "helmet": helmet, "vest": vest}
            photos.append((number, (helmet, vest), str(root / ("eval" if is_asked else "train") / "images" / name)))
        jobs.append((seed, person, size, photos, False))
    files.write_csv(listed(stream(seed, 0, 3), truth), root / "train" / "labels.csv")
    return jobs, truth


def listed(random: np.random.Generator, truth: dict[str, Any]) -> pd.DataFrame:
    """What the CSV says of the photos; where faults are asked for some rows are wrong, and the truth notes which."""
    rows = [(name, name.split("/")[0], fact["helmet"], fact["vest"]) for name, fact in truth["photos"].items()]
    table = pd.DataFrame(rows, columns=["path", "group", "helmet", "vest"])
    if truth["arguments"]["faults"]:
        misspelt, *wrong = random.permutation(len(table))[: 2 + int(WRONG_SHARE * len(table))]
        table.loc[wrong, "helmet"] = table.loc[wrong, "helmet"].map({"yes": "no", "no": "yes"})
        table.loc[misspelt, "vest"] = "yelow"
        truth["faults"] = {"wrong_helmet": list(table["path"][wrong]), "misspelt": [table["path"][misspelt]]}
        table.loc[len(table)] = truth["faults"]["missing"] = ["nobody/0.jpg", "nobody", "yes", "none"]
    return table

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
EACH = 4  # photos of a person
WRONG_SHARE = 0.03  # of the rows, whose helmet is not that of the photo


def dressed(random: np.random.Generator, helmet: str, vest: str) -> Shot:
    """One photo's pose, light and gear."""
    colour = HELMETS[random.integers(len(HELMETS))] if helmet == "yes" else None
    return replace(invent_shot(random, Mask.NOT_WORN), helmet=colour, vest=VESTS[vest])


def plan(root: Path, arguments: dict[str, Any]) -> tuple[list[tuple], dict[str, Any]]:
    """The photos of each person to paint, as `paint.Job`s, and the truth about them; writes the labels' CSV.

    Every person is in one kind of vest, or in none, and in some photos under a helmet. Of the rows some are wrong, one
    holds a misspelt word and one a photo that is not there.
    """
    seed, size, count = arguments["seed"], (arguments["width"], arguments["height"]), arguments["people"]
    crowd = invent_people(stream(seed, 0, 0), count, 0) + invent_people(
        stream(seed, 0, 1), arguments["eval_people"], count
    )
    jobs, truth = [], {"arguments": arguments, "photos": {}, "eval": {}, "faults": {}}
    for person in crowd:
        random, part = stream(seed, 2, person.number), "train" if person.number < count else "eval"
        vest, photos = str(random.choice(list(VESTS))), []
        for number, helmet in enumerate(random.permutation(["yes", "no", *random.choice(["yes", "no"], EACH - 2)])):
            name = f"{person.id}/{number}.jpg" if part == "train" else hashed_name(seed, person.number, number)
            values = {
                one.name: one.value_of(word) for one, word in zip(labels.attributes(), (helmet, vest), strict=True)
            }
            fact = {"label": labels.encode(**values), "helmet": str(helmet), "vest": vest}
            truth["photos" if part == "train" else "eval"][name] = fact | {"face": f"face{person.number:04d}"}
            photos.append((number, (str(helmet), vest), str(root / part / "images" / name)))
        jobs.append((seed, person, size, photos, False))
    write_labels(root / "train" / "labels.csv", stream(seed, 0, 3), truth)
    return jobs, truth


def write_labels(path: Path, random: np.random.Generator, truth: dict[str, Any]) -> None:
    """Write what the CSV says of each photo, with faults if the arguments want some; notes both in the truth."""
    rows = [(name, name.split("/")[0], fact["helmet"], fact["vest"]) for name, fact in truth["photos"].items()]
    table = pd.DataFrame(rows, columns=["path", "group", "helmet", "vest"])
    if truth["arguments"]["faults"]:
        wrong, misspelt = np.split(random.permutation(len(table))[: 2 + int(WRONG_SHARE * len(table))], [-1])
        table.loc[wrong, "helmet"] = table.loc[wrong, "helmet"].map({"yes": "no", "no": "yes"})
        table.loc[misspelt, "vest"] = "yelow"
        truth["faults"] = {"wrong_helmet": list(table["path"][wrong]), "misspelt": list(table["path"][misspelt])}
        table.loc[len(table)] = ["nobody/0.jpg", "nobody", "yes", "none"]
    files.write_csv(table, path)

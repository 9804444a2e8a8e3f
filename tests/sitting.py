"""A tiny photo table with its files, and the fingers of an annotator, for the tests of relabeling."""

from pathlib import Path
from typing import Any

import pandas as pd
from PIL import Image

from mask_lib.base import labels
from mask_lib.relabel.decision_log import DecisionLog
from mask_lib.relabel.session import Review

STEMS = {"incorrect_mask": "incorrect", "mask1": "worn", "mask2": "worn", "normal": "not_worn"}
ANNOTATOR = "ann"


def person_name(number: int) -> str:
    return f"{number:06d}_male_Asian_{31 + number}"


PATHS = [f"{person_name(number)}/{stem}.png" for number in range(3) for stem in STEMS]  # of three people


def photo_table(data_dir: Path, people: int = 3) -> pd.DataFrame:
    """Four photos a person, all of them men in their thirties, every photo with bytes of its own."""
    rows = []
    for number in range(people):
        person = person_name(number)
        for place, (stem, mask) in enumerate(STEMS.items()):
            path = data_dir / "train" / "images" / person / f"{stem}.png"
            path.parent.mkdir(parents=True, exist_ok=True)
            Image.new("RGB", (4, 6), (number, place, 9)).save(path)
            label = labels.encode(labels.from_key(labels.Mask, mask), 0, 1)
            rows.append((f"{person}/{stem}.png", person, mask, "male", 31 + number, label, "train"))
    return pd.DataFrame(rows, columns=["path", "person", "mask", "gender", "age", "label", "split"])


def open_log(data_dir: Path, annotator: str = ANNOTATOR) -> DecisionLog:
    return DecisionLog(data_dir / "review" / f"decisions.{annotator}.jsonl", annotator)


def suspects_of(photos: pd.DataFrame) -> pd.DataFrame:
    """Every photo suspected to show a woman."""
    evidence = {"field": "gender", "current": photos["label"], "suggested": photos["label"] + 3}
    return pd.DataFrame({"path": photos["path"], **evidence, "score": 0.9, "why": "4 of 4 photos look female"})


def open_review(data_dir: Path, people: int = 3) -> Review:
    photos = photo_table(data_dir, people)
    return Review(photos, open_log(data_dir), data_dir, suspects_of(photos))


def shown(review: Review) -> str | None:
    """The photo on the screen."""
    card = review.screen()["current"]
    return card and card["path"]


def type_keys(review: Review, *keys: str) -> list[dict[str, Any]]:
    """Press keys one after another, each on the photo that is then shown."""
    return [review.press(key, shown(review), number) for number, key in enumerate(keys)]

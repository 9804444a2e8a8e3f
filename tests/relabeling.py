"""A tiny photo table with its files, and an annotator who presses keys, for the tests of relabeling."""

from collections.abc import Iterable
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from PIL import Image

from mask_lib.base import labels
from mask_lib.relabel.decision_log import CurrentDecisions, Decision, DecisionLog
from mask_lib.relabel.session import Session

STEMS = {"incorrect_mask": "incorrect", "mask1": "worn", "mask2": "worn", "normal": "not_worn"}
SEVEN = {"incorrect_mask": "incorrect", **{f"mask{number}": "worn" for number in range(1, 6)}, "normal": "not_worn"}
CROWD = 100
WRONG, RIGHT = {"mark": "wrong"}, {"mark": "right"}  # what stands on a photo


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
            label = labels.encode(labels.attribute("mask").value_of(mask), 0, 1)
            rows.append((f"{person}/{stem}.png", person, mask, "male", 31 + number, label, "train"))
    return pd.DataFrame(rows, columns=["path", "person", "mask", "gender", "age", "label", "split"])


def open_log(data_dir: Path, annotator: str = "ann") -> DecisionLog:
    return DecisionLog(data_dir / "review" / f"decisions.{annotator}.jsonl", annotator)


def replay(decisions: Iterable[Decision]) -> dict[str, dict[str, Any]]:
    """The state that decisions lead to: path -> field -> current value, nulls left out."""
    state: dict[str, dict[str, Any]] = {}
    for _, last in CurrentDecisions(decisions).first_and_last():
        if last["new"] is not None:
            state.setdefault(last["path"], {})[last["field"]] = last["new"]
    return state


def suspects_of(photos: pd.DataFrame) -> pd.DataFrame:
    """Every photo suspected to show a woman."""
    suspects = photos[["path"]].assign(field="gender", current=photos["label"], suggested=photos["label"] + 3)
    return suspects.assign(score=0.9, why="4 of 4 photos look female")


def open_session(data_dir: Path, people: int = 3) -> Session:
    photos = photo_table(data_dir, people)
    return Session(photos, open_log(data_dir), data_dir, suspects_of(photos))


def shown(session: Session) -> str | None:
    """The photo on the screen."""
    card = session.screen()["current"]
    return card and card["path"]


def type_keys(session: Session, *keys: str) -> list[dict[str, Any]]:
    """Press keys one after another, each on the photo that is then shown."""
    return [session.press(key, shown(session), number) for number, key in enumerate(keys)]


def crowd(seed: int = 0) -> pd.DataFrame:
    """A hundred people, seven photos each; `true` is what the photos show, `label` what the table claims."""
    generator = np.random.default_rng(seed)
    rows = []
    for number in range(CROWD):
        person, gender, age = f"{number:06d}", generator.integers(2), generator.integers(3)
        years = int(generator.integers([18, 30, 60][age], [29, 59, 75][age]))
        for stem, mask in SEVEN.items():
            label = labels.encode(labels.attribute("mask").value_of(mask), gender, age)
            rows.append((f"{person}/{stem}.jpg", person, mask, years, label, label))
    return pd.DataFrame(rows, columns=["path", "person", "mask", "age", "label", "true"])


def with_faults(photos: pd.DataFrame) -> pd.DataFrame:
    """Three people of the wrong gender, three of the wrong age group, three with a swap: 48 of 700 photos."""
    mask, gender, age = (part.copy() for part in labels.decode_all(photos["true"].to_numpy()).values())
    number = photos["person"].astype(int).to_numpy()
    gender = np.where(number < 3, 1 - gender, gender)
    changed = (number >= 3) & (number < 6)
    age = np.where(changed, (age + 1) % 3, age)
    swapped = (number >= 6) & (number < 9)
    mask = np.where(swapped & (mask > 0), 3 - mask, mask)
    years = np.where(changed, np.array([20, 45, 65])[age], photos["age"])
    return photos.assign(label=labels.encode_all({"mask": mask, "gender": gender, "age": age}), age=years)


def seen(photos: pd.DataFrame, seed: int = 1, noise: float = 1.0) -> pd.DataFrame:
    """Probabilities of a fair network that looks at the truth; what it gets wrong, it does for the whole person too."""
    generator, heads = np.random.default_rng(seed), {}
    person = pd.factorize(photos["person"])[0]
    for name, values in labels.decode_all(photos["true"].to_numpy()).items():
        count = labels.attribute(name).size
        logits = 2.5 * np.eye(count)[values] + noise * generator.normal(size=(len(photos), count))
        if name != "mask":
            logits += 0.4 * noise * generator.normal(size=(person.max() + 1, count))[person]
        shares = np.exp(logits)
        heads[name] = shares / shares.sum(axis=1, keepdims=True)
    table = pd.DataFrame(labels.joint(heads), columns=labels.probability_columns())
    return pd.concat([photos[["path", "label"]], table], axis=1)

"""Groups of alike photos are found whatever the face behind them, and some are held out of training."""

import numpy as np
import pandas as pd
import pytest

from mask_lib.base import files, labels
from mask_lib.models import looks


def painted(people: int = 60, kinds: int = 3, seed: int = 0) -> tuple[list[np.ndarray], pd.DataFrame, np.ndarray]:
    """Features of two stages, their photos, and which of so many masks each of a person's worn photos shows.

    What tells people apart is far larger than what tells masks apart.
    """
    random, rows = np.random.default_rng(seed), []
    faces, masks = random.normal(size=(people, 40)) * 5, random.normal(size=(kinds, 40)) * 3
    for person, number in np.ndindex(people, 4):
        mask = "normal" if number == 3 else "worn"
        rows.append((f"{person:02d}/{number}.jpg", f"{person:02d}", mask, number % kinds if mask == "worn" else -1))
    table = pd.DataFrame(rows, columns=["path", "person", "mask", "kind"])
    label = [labels.encode(0 if mask == "worn" else 2, 0, 1) for mask in table["mask"]]
    worn = np.where(table["kind"] >= 0, 1.0, 0.0)[:, None] * masks[table["kind"]]
    found = faces[table["person"].astype(int)] + worn + random.normal(size=(len(table), 40))
    return [found, found[:, ::-1]], table.assign(label=label)[["path", "person", "label"]], table["kind"].to_numpy()


@pytest.fixture(scope="module")
def found() -> pd.DataFrame:
    return looks.find(*painted()[:2])


def test_masks_are_told_apart_not_faces(found):
    _, photos, kind = painted()
    found = found.set_index("path").loc[photos["path"]]
    worn = kind >= 0
    assert set(found["attribute"]) == {"mask"}
    pairs = pd.crosstab(found["look"][worn], kind[worn])
    assert pairs.shape == (3, 3) and ((pairs > 0).sum(axis=1) == 1).all()
    assert set(found["look"][~worn]) == {"not worn 1"}  # bare faces have nothing in common but that


def test_every_second_look_is_held_out_but_never_the_most_frequent(found):
    assert found.groupby("look")["held_out"].first().to_dict() == {
        "not worn 1": False, "worn 1": False, "worn 2": True, "worn 3": False
    }  # fmt: skip
    counts = found["look"].value_counts()
    assert counts["worn 1"] >= counts["worn 2"] >= counts["worn 3"]


def test_a_look_of_nearly_half_of_a_value_is_not_held_out():
    """Half of the masks worn wrongly may hang on the chin: without them nothing teaches what that is."""
    stages, photos, _ = painted(kinds=2)
    of_first = photos.groupby("person").cumcount() != 2  # of a person's three worn photos the first and third are alike
    assert looks.find(stages, photos)["held_out"].sum() == 60
    found = looks.find([stage[of_first] for stage in stages], photos[of_first].reset_index(drop=True))
    assert found["look"].value_counts()[["worn 1", "worn 2"]].tolist() == [60, 60]
    assert not found["held_out"].any()


def test_where_photos_do_not_fall_into_groups_there_is_one_look():
    stages, photos, _ = painted(kinds=1)
    assert set(looks.find(stages, photos)["look"]) == {"not worn 1", "worn 1"}


def test_few_photos_and_people_of_one_photo_are_taken():
    stages, photos, _ = painted(people=2)
    alone = photos.assign(person=photos["path"])
    assert set(looks.find(stages, alone)["look"]) == {"not worn 1", "worn 1"}


def test_the_split_loses_train_rows_of_held_out_looks_alone(found, tmp_path):
    files.write_csv(found, looks.path_of(tmp_path))
    held_out, photos = looks.read_held_out(tmp_path), painted()[1]
    split = photos.assign(split=np.where(photos["person"] < "20", "val", "train"))
    left = looks.without(split, held_out)
    gone = split[~split["path"].isin(left["path"])]
    assert set(gone["split"]) == {"train"} and set(gone["path"].map(held_out)) == {"worn 2"}
    assert not left.loc[left["split"] == "train", "path"].isin(held_out).any()
    assert left.loc[left["split"] == "val", "path"].isin(held_out).any()


def test_what_is_missing_is_said(tmp_path):
    with pytest.raises(FileNotFoundError, match=r"looks\.csv: run 00_prepare_data with measure_optimism: true first"):
        looks.read_held_out(tmp_path)
    _, photos, _ = painted()
    with pytest.raises(ValueError, match="unseen_looks: the photos of no value have several looks"):
        looks.without(photos.assign(split="train"), {})


def test_some_examples_of_each_look(found):
    shown = looks.examples(found, 5)
    assert shown["look"].tolist() == [name for name in ("not worn 1", "worn 1", "worn 2", "worn 3") for _ in range(5)]
    assert "4 looks of mask, 1 of them held out" in looks.summary(found)

"""Pseudo-labels: which photos may join, where they join, and that none knows of whom its fold validates."""

import numpy as np
import pandas as pd
import pytest

from mask_lib.base import labels
from mask_lib.data.splits import audit_splits, make_splits
from mask_lib.training import pseudo_labels

COLUMNS = labels.probability_columns()


def predicted(*rows: tuple[str, int, float]) -> pd.DataFrame:
    """A fold's predictions from rows of name, class and its probability."""
    table = np.array([[(1 - sure) / 17] * 18 for _, _, sure in rows])
    table[np.arange(len(rows)), [label for _, label, _ in rows]] = [sure for _, _, sure in rows]
    return pd.DataFrame(table, columns=COLUMNS).assign(path=[f"/eval/{name}.jpg" for name, _, _ in rows])


def split_table() -> pd.DataFrame:
    rows = [("a/1.jpg", "a", 3, "train"), ("b/1.jpg", "b", 4, "val"), ("c/1.jpg", "c", 5, "test_val")]
    return pd.DataFrame(rows, columns=["path", "person", "label", "split"])


def made_splits(seed: int = 0) -> dict[int, pd.DataFrame]:
    rows = [(f"{person:02d}/{one}.jpg", f"{person:02d}", person % 6) for person in range(30) for one in range(2)]
    return make_splits(pd.DataFrame(rows, columns=["path", "person", "label"]), 3, 0.1, seed)


@pytest.fixture(scope="module")
def splits() -> dict[int, pd.DataFrame]:
    return made_splits()


@pytest.fixture(scope="module")
def chosen() -> pd.DataFrame:
    return pseudo_labels.choose({0: predicted(("x", 7, 0.95), ("y", 8, 0.99)), 1: predicted(("x", 9, 0.95))})


def test_photos_join_where_their_own_folds_network_is_sure():
    found = pseudo_labels.choose(
        {0: predicted(("x", 3, 0.95), ("y", 5, 0.89)), 2: predicted(("x", 4, 0.6), ("y", 5, 0.9))}, threshold=0.9
    )
    assert list(found) == ["fold", "path", "label", "probability"]
    assert found.to_numpy().tolist() == [[0, "/eval/x.jpg", 3, 0.95], [2, "/eval/y.jpg", 5, 0.9]]


@pytest.mark.parametrize(("share", "names"), [(1.0, "abcdef"), (0.75, "abdef"), (0.5, "abf"), (0.01, "af")])
def test_a_share_of_each_class_keeps_its_surest_photos(share, names):
    rows = predicted(("a", 3, 0.9), ("b", 3, 0.8), ("c", 3, 0.5), ("d", 3, 0.7), ("e", 4, 0.3), ("f", 4, 0.4))
    found = pseudo_labels.choose({1: rows}, threshold=0.2, class_share=share)
    assert "".join(path[6] for path in found["path"]) == names


def test_a_tenth_of_thirty_photos_are_three():
    rows = predicted(*((f"{number:02d}", 3, 0.5 + number / 100) for number in range(30)))
    assert len(pseudo_labels.choose({0: rows}, threshold=0, class_share=0.1)) == 3  # 0.1 x 30 is a little above 3


def test_classes_are_those_of_the_task():
    with labels.using((labels.Attribute("kind", ("rose", "tulip", "daisy"), "abc"),)):
        rows = pd.DataFrame({"path": ["/a", "/b"], "p00": [0.9, 0.1], "p01": [0.05, 0.1], "p02": [0.05, 0.8]})
        table = pseudo_labels.choose({0: rows}, threshold=0.5)
        assert table["label"].tolist() == [0, 2]
        with pytest.raises(ValueError, match="other than 0-2"):
            pseudo_labels.joined(split_table(), table.assign(label=3), fold=0, weight=1)


def test_the_share_does_not_let_in_what_is_below_the_threshold():
    found = pseudo_labels.choose({0: predicted(("a", 3, 0.6), ("b", 3, 0.5))}, threshold=0.7, class_share=0.5)
    assert found.empty and list(found) == pseudo_labels.COLUMNS
    assert found["path"].dtype == "str" and found["label"].dtype == "int64"


@pytest.mark.parametrize(("name", "value"), [("threshold", 1.2), ("class_share", 0.0)])
def test_settings_out_of_range_are_refused(name, value):
    with pytest.raises(ValueError, match=f"{name} = {value}"):
        pseudo_labels.choose({0: predicted(("a", 3, 0.6))}, **{name: value})


def test_only_the_folds_own_rows_join_and_only_for_training(chosen):
    split = split_table()
    found = pseudo_labels.joined(split, chosen, fold=0, weight=0.5)
    assert list(found) == ["path", "person", "label", "split", "weight"]
    pd.testing.assert_frame_equal(found.iloc[:3].drop(columns="weight"), split)
    assert list(found["weight"]) == [1.0, 1.0, 1.0, 0.5, 0.5]
    added = found.iloc[3:]
    assert added[["path", "label"]].to_numpy().tolist() == [["/eval/x.jpg", 7], ["/eval/y.jpg", 8]]
    assert set(added["split"]) == {"train"}
    assert added["person"].is_unique and not set(added["person"]) & set(split["person"])
    assert found["label"].dtype == "int64"
    assert pseudo_labels.joined(split, chosen, fold=1, weight=0.5)["label"].tolist() == [3, 4, 5, 9]


def test_what_a_split_tells_of_its_own_photos_stays_even_where_no_photo_joins(chosen):
    split = split_table().assign(age=[20, 30, 60], weight=[0.7, 1.0, 1.0])
    found = pseudo_labels.joined(split, chosen, fold=1, weight=0.2)
    assert list(found["age"][:3]) == [20, 30, 60] and found["age"].isna().tolist()[3:] == [True]
    assert list(found["weight"]) == [0.7, 1.0, 1.0, 0.2]
    nobody = pseudo_labels.joined(split_table(), chosen, fold=2, weight=0.5)
    pd.testing.assert_frame_equal(nobody, split_table().assign(weight=1.0))


def test_relative_paths_and_photos_that_stand_twice_or_in_the_split_are_refused(chosen):
    with pytest.raises(ValueError, match=r"absolute paths.*x\.jpg"):
        pseudo_labels.joined(split_table(), chosen.assign(path="x.jpg"), fold=0, weight=0.5)
    with pytest.raises(ValueError, match="two pseudo-labels"):
        pseudo_labels.joined(split_table(), pd.concat([chosen, chosen]), fold=0, weight=0.5)
    split = split_table().replace("a/1.jpg", "/eval/x.jpg")
    with pytest.raises(ValueError, match=r"fold 0: pseudo-labeled photos that stand in the split: 1.*x\.jpg"):
        pseudo_labels.joined(split, chosen, fold=0, weight=0.5)


# On disk.


def test_a_table_comes_back_and_joins_a_split_that_stays_honest(tmp_path, splits):
    table = pseudo_labels.choose({fold: predicted(("x", fold, 0.91234567890123)) for fold in splits})
    path = pseudo_labels.write(table, tmp_path, "teacher", splits)
    assert path == tmp_path / "tables" / "pseudo.teacher.csv"
    pd.testing.assert_frame_equal(pseudo_labels.read(tmp_path, "teacher", splits), table, check_exact=True)
    found = pseudo_labels.joined(splits[0], table, 0, weight=0.5)
    audit_splits({0: found.drop(columns="weight")} | {fold: splits[fold] for fold in (1, 2)})
    pseudo_labels.write(table[:0], tmp_path, "teacher", splits)
    pd.testing.assert_frame_equal(pseudo_labels.read(tmp_path, "teacher", splits), table[:0])


@pytest.mark.parametrize("moved", ["all", "two folds", "held out"])
def test_folds_made_anew_refuse_labels_of_networks_that_may_know_their_people(tmp_path, splits, chosen, moved):
    pseudo_labels.write(chosen, tmp_path, "teacher", splits)
    someone = splits[0].loc[splits[0]["split"] == "train", "person"].iloc[0]
    held_out = splits[0].assign(split=splits[0]["split"].mask(splits[0]["person"] == someone, "test_val"))
    now, folds = {
        "all": (made_splits(seed=1), r"\[0, 1, 2\]"),
        "two folds": ({0: splits[1], 1: splits[0], 2: splits[2]}, r"\[0, 1\]"),
        "held out": ({**splits, 0: held_out}, r"\[0\]"),
    }[moved]
    with pytest.raises(ValueError, match=f"when folds {folds} validated or held out other people.*train teacher"):
        pseudo_labels.read(tmp_path, "teacher", now)


def test_corrected_labels_do_not_make_a_table_useless(tmp_path, splits, chosen):
    pseudo_labels.write(chosen, tmp_path, "teacher", splits)
    corrected = {fold: split.assign(label=0) for fold, split in splits.items()}
    pd.testing.assert_frame_equal(pseudo_labels.read(tmp_path, "teacher", corrected), chosen)


def test_a_fold_that_the_earlier_run_lacks_is_named_unless_it_is_not_asked_for(tmp_path, splits, chosen):
    pseudo_labels.write(chosen, tmp_path, "teacher", {0: splits[0]})
    with pytest.raises(ValueError, match=r"nothing for folds \[1, 2\]: teacher was not trained on them"):
        pseudo_labels.read(tmp_path, "teacher", splits)
    pd.testing.assert_frame_equal(pseudo_labels.read(tmp_path, "teacher", {0: splits[0]}), chosen)

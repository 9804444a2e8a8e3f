"""No person stands on both sides of a fold, whatever the table looks like; and the audit would tell."""

import itertools

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mask_lib import folds


def photo_table(label_lists: list[list[int]]) -> pd.DataFrame:
    """One person a list, one photo a label."""
    rows = [
        (f"p{person:03d}/{number}.jpg", f"p{person:03d}", label)
        for person, found in enumerate(label_lists)
        for number, label in enumerate(found)
    ]
    return pd.DataFrame(rows, columns=["path", "person", "label"])


def people_like_the_contest(count: int, seed: int = 0) -> pd.DataFrame:
    """Seven photos a person: five masks worn, one incorrect, one not worn; few people are old."""
    generator = np.random.default_rng(seed)
    kinds = generator.choice(6, count, p=[0.25, 0.2, 0.05, 0.25, 0.2, 0.05])  # gender and age
    return photo_table([[kind] * 5 + [6 + kind, 12 + kind] for kind in kinds.tolist()])


tables = st.lists(st.lists(st.integers(0, 17), min_size=1, max_size=5), min_size=12, max_size=40).map(photo_table)
settings_of_splits = {"fold_count": st.integers(2, 5), "test_val_share": st.sampled_from([0, 0.1, 0.25, 0.5])}


@settings(max_examples=40, deadline=None)
@given(table=tables, seed=st.integers(0, 1000), **settings_of_splits)
def test_no_person_stands_in_two_parts_and_each_photo_is_validated_once(table, fold_count, test_val_share, seed):
    splits = folds.make_splits(table, fold_count, test_val_share, seed)
    assert list(splits) == list(range(fold_count))
    validated = []
    for split in splits.values():
        assert list(split.columns) == folds.SPLIT_COLUMNS
        pd.testing.assert_frame_equal(split[["path", "person", "label"]], table)
        people = {part: set(found["person"]) for part, found in split.groupby("split")}
        assert not any(one & other for one, other in itertools.combinations(people.values(), 2))
        assert people[folds.TRAIN]
        assert people[folds.VAL]
        validated += split.loc[split["split"] == folds.VAL, "path"].tolist()
    held_out = {tuple(split.loc[split["split"] == folds.TEST_VAL, "path"]) for split in splits.values()}
    assert len(held_out) == 1
    assert bool(next(iter(held_out))) == bool(test_val_share)
    assert sorted([*validated, *held_out.pop()]) == sorted(table["path"])


def test_validation_people_are_drawn_without_replacement():
    """The contest's own baseline draws them with it: some twice, and fewer than asked for."""
    splits = folds.make_splits(people_like_the_contest(100), fold_count=5, test_val_share=0)
    people = [split.loc[split["split"] == folds.VAL, "person"].unique() for split in splits.values()]
    assert [len(one) for one in people] == [20] * 5
    assert len(set(np.concatenate(people))) == 100


def test_one_table_leaves_no_trace_in_the_splits_of_another():
    """The contest's own baseline keeps its lists in class attributes, where the next data set finds them."""
    first, second = people_like_the_contest(30), people_like_the_contest(25, seed=1)
    before = first.copy()
    alone = folds.make_splits(second, 3)
    folds.make_splits(first, 3)
    for fold, split in folds.make_splits(second, 3).items():
        pd.testing.assert_frame_equal(split, alone[fold])
    pd.testing.assert_frame_equal(first, before)


def test_each_fold_has_its_share_of_every_class():
    table = people_like_the_contest(600)
    counts = table["label"].value_counts()
    splits = folds.make_splits(table, fold_count=5, test_val_share=0.1)
    held_out = splits[0].loc[splits[0]["split"] == folds.TEST_VAL, "label"].value_counts()
    photos_a_person = pd.Series([5] * 6 + [1] * 12)
    assert ((held_out - counts / 10).abs() <= photos_a_person).all()
    for split in splits.values():
        validated = split.loc[split["split"] == folds.VAL, "label"].value_counts()
        assert ((validated - (counts - held_out) / 5).abs() <= photos_a_person).all()


def test_a_class_of_few_people_reaches_every_fold():
    table = photo_table([[0]] * 95 + [[17]] * 5)
    for split in folds.make_splits(table, fold_count=5, test_val_share=0).values():
        assert (split.loc[split["split"] == folds.VAL, "label"] == 17).sum() == 1


def test_people_with_a_rare_photo_count_as_of_that_class():
    table = photo_table([[0, 0, 0], [0, 5], [0, 1, 1], [1, 0]])
    found = folds.rarest_class(table)
    assert found.to_dict() == {"p000": 0, "p001": 5, "p002": 1, "p003": 1}


def test_a_tie_of_rareness_goes_to_the_lower_label_whatever_the_order():
    table = photo_table([[7, 3], [3, 7]])
    assert folds.rarest_class(table).tolist() == [3, 3]


def test_the_seed_decides_and_nothing_else_does():
    table = people_like_the_contest(60)
    first, again, other = (folds.make_splits(table, 3, seed=seed) for seed in (4, 4, 5))
    assert all(first[fold].equals(again[fold]) for fold in first)
    assert not all(first[fold].equals(other[fold]) for fold in first)


def test_every_part_is_filled_and_no_person_left_out():
    parts = folds.spread(people_like_the_contest(23), 4, seed=0)
    assert sorted(parts.value_counts().tolist()) == [5, 6, 6, 6]
    assert parts.index.is_unique


def test_a_toy_set_whose_classes_reach_no_five_parts_is_still_split():
    for split in folds.make_splits(photo_table([[label] for label in range(6)]), 5, test_val_share=0).values():
        assert (split["split"] == folds.VAL).sum() in (1, 2)


def test_too_few_people_are_an_error_with_a_way_out():
    with pytest.raises(ValueError, match="4 people cannot fill 5 parts: lower fold_count or add people"):
        folds.make_splits(photo_table([[0]] * 4), fold_count=5, test_val_share=0)


@pytest.mark.parametrize("fold_count", [1, 0, -1])
def test_one_fold_is_no_cross_validation(fold_count):
    with pytest.raises(ValueError, match=f"fold_count = {fold_count}"):
        folds.make_splits(people_like_the_contest(20), fold_count)


@pytest.mark.parametrize("share", [-0.1, 0.6, 1, float("nan")])
def test_a_share_that_leaves_nothing_to_train_on_is_refused(share):
    with pytest.raises(ValueError, match=f"test_val_share = {share}"):
        folds.make_splits(people_like_the_contest(20), 3, test_val_share=share)


@pytest.fixture
def splits() -> dict[int, pd.DataFrame]:
    """Honest splits of 20 people in three folds."""
    return folds.make_splits(people_like_the_contest(20), fold_count=3, test_val_share=0.2)


def someone_in(split: pd.DataFrame, part: str) -> str:
    return split.loc[split["split"] == part, "person"].iloc[0]


def move(split: pd.DataFrame, rows: pd.Series, part: str) -> None:
    split.loc[rows, "split"] = part


def cross_from_val_to_train(splits):
    """One photo of a validated person trains."""
    person = someone_in(splits[1], folds.VAL)
    move(splits[1], splits[1]["path"] == f"{person}/0.jpg", folds.TRAIN)
    return f"fold 1: people who stand in more than one part: 1, such as ['{person}']"


def cross_from_test_val_to_train(splits):
    person = someone_in(splits[0], folds.TEST_VAL)
    for split in splits.values():
        move(split, split["path"] == f"{person}/6.jpg", folds.TRAIN)
    return f"fold 0: people who stand in more than one part: 1, such as ['{person}']"


def train_on_test_val_in_one_fold(splits):
    person = someone_in(splits[2], folds.TEST_VAL)
    move(splits[2], splits[2]["person"] == person, folds.TRAIN)
    return "folds 0 and 2: photos in the test_val of only one: 7"


def validate_twice(splits):
    move(splits[1], splits[1]["person"] == someone_in(splits[0], folds.VAL), folds.VAL)
    return "photos validated in more than one fold: 7"


def validate_never(splits):
    move(splits[1], splits[1]["person"] == someone_in(splits[1], folds.VAL), folds.TRAIN)
    return "photos validated in no fold: 7"


def photo_twice(splits):
    splits[1] = pd.concat([splits[1], splits[1].iloc[:1]], ignore_index=True)
    return f"fold 1: photos that stand twice: 1, such as ['{splits[1]['path'].iloc[0]}']"


def unknown_part(splits):
    move(splits[2], splits[2]["path"] == splits[2]["path"].iloc[0], "test")
    return "fold 2: split names other than train, val and test_val: 1, such as ['test']"


def nothing_to_train_on(splits):
    move(splits[0], splits[0]["split"] == folds.TRAIN, folds.VAL)
    return "fold 0: no photo is in train"


def nothing_to_validate(splits):
    move(splits[0], splits[0]["split"] == folds.VAL, folds.TRAIN)
    return "fold 0: no photo is in val"


LEAKS = (
    cross_from_val_to_train,
    cross_from_test_val_to_train,
    train_on_test_val_in_one_fold,
    validate_twice,
    validate_never,
    photo_twice,
    unknown_part,
    nothing_to_train_on,
    nothing_to_validate,
)


def test_honest_splits_pass_the_audit(splits):
    assert folds.audit(splits) is None


@pytest.mark.parametrize("leak", LEAKS, ids=lambda leak: leak.__name__)
def test_the_audit_finds_and_names(splits, leak):
    expected = leak(splits)
    with pytest.raises(ValueError) as refusal:
        folds.audit(splits)
    assert expected in str(refusal.value)


def test_the_audit_finds_a_photo_that_only_one_fold_knows(splits):
    """It trains there and is validated nowhere."""
    extra = pd.DataFrame([("new/0.jpg", "new", 3, folds.TRAIN)], columns=folds.SPLIT_COLUMNS)
    splits[1] = pd.concat([splits[1], extra], ignore_index=True)
    with pytest.raises(ValueError, match=r"new/0\.jpg"):
        folds.audit(splits)


def test_the_audit_finds_a_person_who_goes_by_two_names(splits):
    """Under a name of its own one photo trains while the person is validated."""
    person = someone_in(splits[1], folds.VAL)
    alone = splits[1]["path"] == f"{person}/0.jpg"
    splits[1].loc[alone, ["person", "split"]] = ["somebody else", folds.TRAIN]
    other = next(fold for fold in splits if fold != 1)
    move(splits[other], splits[other]["path"] == f"{person}/0.jpg", folds.VAL)
    splits[other].loc[splits[other]["path"] == f"{person}/0.jpg", "person"] = "somebody else"
    with pytest.raises(ValueError, match=f"{person}|somebody else"):
        folds.audit(splits)


def test_splits_come_back_from_their_files(splits, tmp_path):
    paths = folds.write_splits(splits, tmp_path)
    assert [path.name for path in paths] == [f"split.stratified.{fold}.csv" for fold in range(3)]
    found = folds.read_splits(tmp_path)
    assert list(found) == [0, 1, 2]
    for fold, split in splits.items():
        pd.testing.assert_frame_equal(found[fold], split, check_dtype=False)


def test_people_named_by_numbers_keep_their_zeros(tmp_path):
    table = people_like_the_contest(20).assign(person=lambda table: table["person"].str.slice(1))
    folds.write_splits(folds.make_splits(table, 2), tmp_path)
    assert folds.read_splits(tmp_path)[0]["person"].iloc[0] == "000"


def test_files_of_an_earlier_larger_count_are_removed_and_others_left(splits, tmp_path):
    folds.write_splits(folds.make_splits(people_like_the_contest(40), fold_count=12), tmp_path)
    small = tmp_path / "tables" / "split.stratified.small.0.csv"
    small.write_text("of the search\n")
    assert list(folds.read_splits(tmp_path)) == list(range(12))
    folds.write_splits(splits, tmp_path)
    assert list(folds.read_splits(tmp_path)) == [0, 1, 2]
    assert small.exists()


def test_files_are_audited_when_they_are_read(splits, tmp_path):
    cross_from_val_to_train(splits)
    folds.write_splits(splits, tmp_path)
    with pytest.raises(ValueError, match="more than one part"):
        folds.read_splits(tmp_path)


def test_a_lost_fold_is_noticed(splits, tmp_path):
    folds.write_splits(splits, tmp_path)[1].unlink()
    with pytest.raises(ValueError, match="validated in no fold"):
        folds.read_splits(tmp_path)


def test_missing_splits_say_how_to_make_them(tmp_path):
    with pytest.raises(FileNotFoundError, match="run 00_prepare_data first"):
        folds.read_splits(tmp_path)

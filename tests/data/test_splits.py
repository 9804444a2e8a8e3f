"""No person stands on both sides of a fold, whatever the table looks like; and the audit would tell."""

import itertools
import re

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mask_lib.data import splits
from mask_lib.data.splits import TEST_VAL, TRAIN, VAL


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
    folds = splits.make_splits(table, fold_count, test_val_share, seed)
    assert list(folds) == list(range(fold_count))
    validated = []
    for split in folds.values():
        assert list(split.columns) == splits.SPLIT_COLUMNS
        pd.testing.assert_frame_equal(split[["path", "person", "label"]], table)
        people = {part: set(found["person"]) for part, found in split.groupby("split")}
        assert not any(one & other for one, other in itertools.combinations(people.values(), 2))
        assert people[TRAIN]
        assert people[VAL]
        validated += split.loc[split["split"] == VAL, "path"].tolist()
    held_out = {tuple(split.loc[split["split"] == TEST_VAL, "path"]) for split in folds.values()}
    assert len(held_out) == 1
    assert bool(next(iter(held_out))) == bool(test_val_share)
    assert sorted([*validated, *held_out.pop()]) == sorted(table["path"])


def test_each_fold_has_its_share_of_every_class():
    table = people_like_the_contest(600)
    folds = splits.make_splits(table, fold_count=5, test_val_share=0.1)
    photos_a_person = np.array([5] * 6 + [1] * 12)
    counts = pd.crosstab(folds[0]["split"], folds[0]["label"])
    assert (np.abs(counts.loc[TEST_VAL] - counts.sum() / 10) <= 3 * photos_a_person).all()
    for split in folds.values():
        validated = pd.crosstab(split["split"], split["label"]).loc[VAL]
        assert (np.abs(validated - (counts.sum() - counts.loc[TEST_VAL]) / 5) <= photos_a_person).all()


def test_the_seed_decides_and_nothing_else_does():
    """The contest's own baseline keeps its lists in class attributes, where the next data set finds them."""
    table = people_like_the_contest(60)
    before = table.copy()
    first = splits.make_splits(table, 3, seed=4)
    splits.make_splits(people_like_the_contest(25, seed=1), 3, seed=4)
    again, other = (splits.make_splits(table, 3, seed=seed) for seed in (4, 5))
    assert all(first[fold].equals(again[fold]) for fold in first)
    assert not all(first[fold].equals(other[fold]) for fold in first)
    pd.testing.assert_frame_equal(table, before)


@pytest.mark.parametrize("share", [0.02, 0.1, 0.25, 0.4, 0.5])
def test_the_share_of_people_who_are_held_out_is_met_in_every_class(share):
    table = people_like_the_contest(400)
    apart = splits.held_out_people(table, share, seed=0)
    assert len(apart) == pytest.approx(share * 400, abs=4)
    counts = table[table["person"].isin(apart)]["label"].value_counts().reindex(range(18), fill_value=0)
    photos_a_person = pd.Series([5] * 6 + [1] * 12)
    assert ((counts - table["label"].value_counts().sort_index() * share).abs() <= 2 * photos_a_person).all()


def test_the_order_of_rows_does_not_matter():
    table = photo_table(np.random.default_rng(1).integers(0, 18, (30, 4)).tolist())
    shuffled = table.sample(frac=1, random_state=0)
    pd.testing.assert_series_equal(splits.spread_people(table, 4, 2), splits.spread_people(shuffled, 4, 2))
    assert splits.held_out_people(table, 0.2, 2).equals(splits.held_out_people(shuffled, 0.2, 2))


def test_a_toy_set_whose_classes_reach_no_five_parts_is_still_split():
    for split in splits.make_splits(photo_table([[label] for label in range(6)]), 5, test_val_share=0).values():
        assert (split["split"] == VAL).sum() in (1, 2)


@pytest.mark.parametrize(
    ("people", "changes", "complaint"),
    [
        (20, {"test_val_share": -0.1}, r"test_val_share = -0\.1"),
        (20, {"test_val_share": 0.6}, r"test_val_share = 0\.6"),
        (20, {"test_val_share": float("nan")}, "test_val_share = nan"),
        (20, {"test_val_share": 0.02}, r"test_val_share = 0\.02: that is less than one person"),
        (4, {"test_val_share": 0}, "4 people cannot fill 5 parts: lower fold_count or add people"),
    ],
)
def test_settings_that_leave_a_part_empty_are_refused(people, changes, complaint):
    with pytest.raises(ValueError, match=complaint):
        splits.make_splits(people_like_the_contest(people), **{"fold_count": 5, **changes})


@pytest.fixture
def folds() -> dict[int, pd.DataFrame]:
    """Honest splits of 20 people in three folds."""
    return splits.make_splits(people_like_the_contest(20), fold_count=3, test_val_share=0.2)


def external_table(people: list[str]) -> pd.DataFrame:
    """A photo of each person, from outside the data folder."""
    return pd.DataFrame({"path": [f"/far/{person}.jpg" for person in people], "person": people, "label": 3})


def someone_in(split: pd.DataFrame, part: str) -> str:
    return split.loc[split["split"] == part, "person"].iloc[0]


@pytest.mark.parametrize(
    ("where", "of", "photos", "part", "complaint"),
    [
        ([1], VAL, "{0}/0.jpg", TRAIN, "fold 1: people who stand in more than one part: 1, such as ['{0} ({0})']"),
        ([0, 1, 2], TEST_VAL, "{0}/6.jpg", TRAIN, "fold 0: people who stand in more than one part: 1, such as ['{0}"),
        ([2], TEST_VAL, "{0}/", TRAIN, "photos in the test_val of some folds alone: 7, such as ['{0}/0.jpg'"),
        ([1], TRAIN, "{0}/", VAL, "photos validated in more than one fold: 7, such as ['{0}/0.jpg'"),
        ([1], VAL, "{0}/", TRAIN, "photos validated in no fold: 7, such as ['{0}/0.jpg'"),
        ([2], VAL, "{0}/", "test", "fold 2: split names other than train, val and test_val: 1, such as ['test']"),
        ([0], VAL, "p", TRAIN, "fold 0: parts without a photo: 1, such as ['val']"),  # p: everybody
        ([0], VAL, "p", VAL, "fold 0: parts without a photo: 1, such as ['train']"),
    ],
)
def test_honest_splits_pass_and_the_audit_finds_and_names(folds, where, of, photos, part, complaint):
    splits.audit_splits(folds)
    person = someone_in(folds[where[0]], of)
    for fold in where:
        folds[fold].loc[folds[fold]["path"].str.startswith(photos.format(person)), "split"] = part
    with pytest.raises(ValueError, match=re.escape(complaint.format(person))):
        splits.audit_splits(folds)


def test_the_audit_finds_a_person_who_goes_by_two_names(folds):
    """Under a name of its own one photo trains while the person is validated."""
    path = f"{someone_in(folds[1], VAL)}/0.jpg"
    for fold, part in ((1, TRAIN), (2, VAL)):
        folds[fold].loc[folds[fold]["path"] == path, ["person", "split"]] = ["somebody else", part]
    with pytest.raises(ValueError, match=rf"photos that not all folds list, or alike: 1, such as \['{path}'\]"):
        splits.audit_splits(folds)


@pytest.mark.parametrize(
    ("spelling", "complaint"),
    [
        ("new/0.jpg", "photos that not all folds list, or alike: 1, such as .*new/0.jpg"),
        ("{}", "fold 0: photos that stand twice: 1, such as .*{}"),
        ("./{}", "fold 0: photos that stand twice: 1, such as .*{}"),
        ("x/../{}", "fold 0: photos that stand twice: 1, such as .*{}"),
    ],
)
def test_the_audit_finds_a_further_photo_or_an_augmented_copy_beside_the_validated_one(folds, spelling, complaint):
    """Under a new person's name, as a tool that multiplies rare photos on disk would list it."""
    path = folds[0].loc[folds[0]["split"] == VAL, "path"].iloc[0]
    folds[0].loc[len(folds[0])] = [spelling.format(path), "somebody new", 3, TRAIN]
    with pytest.raises(ValueError, match=complaint.format(path)):
        splits.audit_splits(folds)


@pytest.mark.parametrize("small", [False, True])
def test_splits_come_back_from_their_files_and_small_ones_without_external_photos(folds, tmp_path, small):
    joined = splits.join_training(folds, external_table(["e1", "e2"]))
    paths = splits.write_splits(joined, tmp_path)
    kinds = [f"split.stratified.{kind}{fold}.csv" for kind in ("", "small.") for fold in range(3)]
    assert [path.name for path in paths] == [*kinds, "groups.csv"]
    found = splits.read_splits(tmp_path, small=small)
    assert list(found) == [0, 1, 2]
    for fold, split in (folds if small else joined).items():
        pd.testing.assert_frame_equal(found[fold], split, check_dtype=False)


def test_files_of_an_earlier_larger_count_are_removed_and_others_left(folds, tmp_path):
    splits.write_splits(splits.make_splits(people_like_the_contest(40), fold_count=12), tmp_path)
    other = tmp_path / "tables" / "split.of.mine.0.csv"
    other.write_text("not ours\n")
    assert list(splits.read_splits(tmp_path)) == list(splits.read_splits(tmp_path, small=True)) == list(range(12))
    splits.write_splits(folds, tmp_path)
    assert list(splits.read_splits(tmp_path)) == list(splits.read_splits(tmp_path, small=True)) == [0, 1, 2]
    assert other.exists()


def test_people_named_by_numbers_or_like_a_missing_value_keep_their_names(tmp_path):
    table = people_like_the_contest(20).replace({"person": {"p002": "002", "p003": "NA", "p004": "null"}})
    splits.write_splits(splits.make_splits(table, 2), tmp_path)
    assert list(splits.read_splits(tmp_path)[0]["person"]) == list(table["person"])


def test_a_lost_fold_and_lost_splits_are_noticed(folds, tmp_path):
    with pytest.raises(FileNotFoundError, match="run 00_prepare_data first"):
        splits.read_splits(tmp_path)
    splits.write_splits(folds, tmp_path)[1].unlink()
    with pytest.raises(ValueError, match="validated in no fold"):
        splits.read_splits(tmp_path)


def pairs_of(table: pd.DataFrame, names: list[tuple[str, str]]) -> pd.Series:
    """Groups of everybody, in which each of the given pairs is one."""
    return pd.Series({person: person for person in table["person"].unique()} | {other: one for one, other in names})


@settings(max_examples=30, deadline=None)
@given(data=st.data(), table=tables, seed=st.integers(0, 1000), test_val_share=st.sampled_from([0, 0.2]))
def test_no_group_of_people_stands_in_two_parts(data, table, seed, test_val_share):
    people = table["person"].unique()
    drawn = data.draw(st.lists(st.integers(0, 15), min_size=len(people), max_size=len(people)))
    named = {person: f"g{number}" for person, number in zip(people, drawn, strict=True) if number < 8}  # others: alone
    groups = pd.Series(named, dtype="str")
    try:
        folds = splits.make_splits(table, 3, test_val_share, seed, groups)
    except ValueError as error:
        assert "people cannot fill 3 parts" in str(error)  # nearly all are one
        return
    for split in folds.values():
        together = split.assign(group=[named.get(person, person) for person in split["person"]])
        assert (together.groupby("group")["split"].nunique() == 1).all()
        pd.testing.assert_frame_equal(split[["path", "person", "label"]], table)


def test_a_person_in_two_groups_is_an_error():
    table = people_like_the_contest(20)
    groups = pd.Series(["a", "b"], index=["p003", "p003"])
    with pytest.raises(ValueError, match=r"people in more than one group: 1, such as \['p003'\]"):
        splits.make_splits(table, 3, groups=groups)


@pytest.mark.parametrize("parts", list(itertools.permutations((TRAIN, VAL, TEST_VAL), 2)))
def test_the_audit_finds_and_names_a_duplicate_group_that_crosses(folds, parts):
    one, other = (someone_in(folds[0], part) for part in parts)
    named = re.escape(f"{one} ({', '.join(sorted([one, other]))})")
    with pytest.raises(ValueError, match=f"fold 0: duplicate groups that stand in more than one part: 1, .*{named}"):
        splits.audit_splits(folds, pairs_of(folds[0], [(one, other)]))


def copies_of(paths: list[str], where: str = "train") -> pd.DataFrame:
    """A duplicates table in which these photos are one."""
    return pd.DataFrame({"hash": "00ff", "path": paths, "person": "", "label": 0, "set": where, "distance": 0})


def test_the_audit_finds_and_names_copies_that_cross_and_no_others(folds):
    one, other = someone_in(folds[2], TRAIN), someone_in(folds[2], VAL)
    crossing = sorted([f"{one}/0.jpg", f"{other}/4.jpg"])
    same_side = copies_of([f"{other}/0.jpg", f"{other}/1.jpg", "not in any split.jpg"])
    splits.audit_splits(folds, duplicates=[same_side, copies_of(crossing, where="eval")])
    expected = rf"copies that stand in more than one part: 1, such as \['00ff \({', '.join(crossing)}\)'\]"
    with pytest.raises(ValueError, match=expected):
        splits.audit_splits(folds, duplicates=[copies_of([]), copies_of(crossing)])


def test_groups_are_audited_again_when_splits_are_read(folds, tmp_path):
    one, other = someone_in(folds[1], TRAIN), someone_in(folds[1], VAL)
    splits.write_splits(folds, tmp_path, pairs_of(folds[0], [(one, other)]))
    for small in (False, True):
        with pytest.raises(ValueError, match=f"duplicate groups that stand in more than one part.*{one}"):
            splits.read_splits(tmp_path, small=small)


def test_groups_come_back_from_their_file_and_a_later_preparation_replaces_them(folds, tmp_path):
    splits.write_splits(folds, tmp_path, pd.Series({"p001": "twins", "p002": "twins"}))
    table = pd.read_csv(tmp_path / "tables" / "groups.csv")
    assert list(table) == ["person", "group"]
    assert list(table["person"]) == sorted(folds[0]["person"].unique())
    assert splits.read_groups(tmp_path)[["p001", "p002", "p003"]].tolist() == ["twins", "twins", "p003"]
    splits.write_splits(folds, tmp_path)
    assert splits.read_groups(tmp_path)["p001"] == "p001"


def external_paths(split: pd.DataFrame) -> set[str]:
    return set(split.loc[split["path"].str.startswith("/far/"), "path"])


def test_external_photos_train_in_every_fold_and_stand_nowhere_else(folds):
    external = external_table(["e1", "e2"])
    for fold, split in splits.join_training(folds, external).items():
        expected = pd.concat([folds[fold], external.assign(split=TRAIN)], ignore_index=True)
        pd.testing.assert_frame_equal(split, expected)


def test_a_copy_of_a_validated_photo_trains_only_where_that_person_trains(folds):
    """And a copy of somebody in test_val never does."""
    validated, apart = someone_in(folds[0], VAL), someone_in(folds[0], TEST_VAL)
    external = external_table(["e1", "e2", "e3"])
    groups = pairs_of(folds[0], [(validated, "e1"), (apart, "e2")])
    joined = splits.join_training(folds, external, groups)
    assert external_paths(joined[0]) == {"/far/e3.jpg"}
    assert external_paths(joined[1]) == external_paths(joined[2]) == {"/far/e1.jpg", "/far/e3.jpg"}
    with pytest.raises(ValueError, match=rf"fold 0: duplicate groups.*{validated}"):
        splits.audit_splits(splits.join_training(folds, external), groups)


def test_an_external_photo_may_unite_two_people_of_the_data_folder():
    table = people_like_the_contest(20)
    groups = pairs_of(table, [("p001", "p002"), ("p001", "e1")])
    folds = splits.join_training(splits.make_splits(table, 3, groups=groups), external_table(["e1"]), groups)
    for split in folds.values():
        place = split.groupby("person")["split"].first()
        assert place["p001"] == place["p002"]
        assert ("e1" in place) == (place["p001"] == TRAIN)


def test_external_people_and_paths_cannot_pass_for_those_of_the_data_folder(folds):
    with pytest.raises(ValueError, match=r"external people named like people of the data folder: 1.*p004"):
        splits.join_training(folds, external_table(["e1", "p004"]))
    with pytest.raises(ValueError, match=r"need absolute paths.*near\.jpg"):
        splits.join_training(folds, external_table(["e1"]).assign(path="near.jpg"))


@pytest.mark.parametrize(
    ("column", "value", "complaint"),
    [
        ("split", VAL, "outside train"),
        ("split", TEST_VAL, "outside train"),
        ("label", 8, "that two folds list differently"),
    ],
)
def test_the_audit_finds_external_photos(folds, column, value, complaint):
    joined = splits.join_training(folds, external_table(["e1"]))
    joined[2].loc[joined[2]["person"] == "e1", column] = value
    with pytest.raises(ValueError, match=rf"external photos {complaint}: 1, such as \['/far/e1\.jpg'\]"):
        splits.audit_splits(joined)


def test_naive_splits_validate_each_photo_once_with_every_class_spread_evenly_as_the_seed_decides():
    table = people_like_the_contest(60)
    naive, again, other = (splits.naive_splits(table, 3, seed) for seed in (1, 1, 2))
    assert naive[0].equals(again[0]) and not naive[0].equals(other[0])
    validated = pd.concat([split[split["split"] == VAL] for split in naive.values()])
    assert sorted(validated["path"]) == sorted(table["path"])
    wanted = table["label"].value_counts() / 3
    for split in naive.values():
        assert set(split["split"]) == {TRAIN, VAL}
        counts = split.loc[split["split"] == VAL, "label"].value_counts()
        assert (counts.sub(wanted, fill_value=0).abs() <= 1).all()
    assert len(splits.naive_splits(photo_table([[label] for label in range(6)]), 5)) == 5  # a toy set


def test_naive_splits_tear_people_apart_and_are_refused_when_they_are_read(tmp_path):
    splits.write_splits(splits.naive_splits(people_like_the_contest(60), fold_count=3), tmp_path)
    with pytest.raises(ValueError, match="people who stand in more than one part"):
        splits.read_splits(tmp_path)


def test_a_fingerprint_covers_photos_labels_parts_weights_and_nothing_else(folds, tmp_path):
    split = folds[0]
    same = splits.fingerprint("content", split, "imagenet")
    assert same == splits.fingerprint("content", split.assign(age=30), "imagenet")
    others = [split.assign(label=split["label"].replace(0, 1)), split.assign(weight=0.5), folds[1]]
    (tmp_path / "weights").write_bytes(b"x")
    found = {splits.fingerprint("content", one, "imagenet") for one in others}
    found |= {
        splits.fingerprint("other", split, "imagenet"),
        splits.fingerprint("content", split, str(tmp_path / "weights")),
    }
    assert len(found | {same}) == 6

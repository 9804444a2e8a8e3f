"""No person stands on both sides of a fold, whatever the table looks like; and the audit would tell."""

import itertools

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mask_lib.data.splits import (
    SPLIT_COLUMNS,
    TEST_VAL,
    TRAIN,
    VAL,
    audit_splits,
    fingerprint,
    held_out_people,
    join_training,
    make_splits,
    naive_splits,
    read_groups,
    read_splits,
    spread_people,
    write_splits,
)


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
    splits = make_splits(table, fold_count, test_val_share, seed)
    assert list(splits) == list(range(fold_count))
    validated = []
    for split in splits.values():
        assert list(split.columns) == SPLIT_COLUMNS
        pd.testing.assert_frame_equal(split[["path", "person", "label"]], table)
        people = {part: set(found["person"]) for part, found in split.groupby("split")}
        assert not any(one & other for one, other in itertools.combinations(people.values(), 2))
        assert people[TRAIN]
        assert people[VAL]
        validated += split.loc[split["split"] == VAL, "path"].tolist()
    held_out = {tuple(split.loc[split["split"] == TEST_VAL, "path"]) for split in splits.values()}
    assert len(held_out) == 1
    assert bool(next(iter(held_out))) == bool(test_val_share)
    assert sorted([*validated, *held_out.pop()]) == sorted(table["path"])


def test_validation_people_are_drawn_without_replacement():
    """The contest's own baseline draws them with it: some twice, and fewer than asked for."""
    splits = make_splits(people_like_the_contest(100), fold_count=5, test_val_share=0)
    people = [split.loc[split["split"] == VAL, "person"].unique() for split in splits.values()]
    assert [len(one) for one in people] == [20] * 5
    assert len(set(np.concatenate(people))) == 100


def test_one_table_leaves_no_trace_in_the_splits_of_another():
    """The contest's own baseline keeps its lists in class attributes, where the next data set finds them."""
    first, second = people_like_the_contest(30), people_like_the_contest(25, seed=1)
    before = first.copy()
    alone = make_splits(second, 3)
    make_splits(first, 3)
    for fold, split in make_splits(second, 3).items():
        pd.testing.assert_frame_equal(split, alone[fold])
    pd.testing.assert_frame_equal(first, before)


def test_each_fold_has_its_share_of_every_class():
    table = people_like_the_contest(600)
    splits = make_splits(table, fold_count=5, test_val_share=0.1)
    photos_a_person = np.array([5] * 6 + [1] * 12)
    counts = pd.crosstab(splits[0]["split"], splits[0]["label"])
    assert (np.abs(counts.loc[TEST_VAL] - counts.sum() / 10) <= 3 * photos_a_person).all()
    for split in splits.values():
        validated = pd.crosstab(split["split"], split["label"]).loc[VAL]
        assert (np.abs(validated - (counts.sum() - counts.loc[TEST_VAL]) / 5) <= photos_a_person).all()


def test_a_class_of_few_people_reaches_every_fold():
    table = photo_table([[0]] * 95 + [[17]] * 5)
    for split in make_splits(table, fold_count=5, test_val_share=0).values():
        assert (split.loc[split["split"] == VAL, "label"] == 17).sum() == 1


def test_a_class_of_single_photos_among_mixed_people_is_spread_too():
    """What one class of a person must not do is decide for all their photos."""
    generator = np.random.default_rng(0)
    table = photo_table([[*generator.integers(0, 6, 6).tolist(), 17 if person < 10 else 16] for person in range(60)])
    for split in make_splits(table, fold_count=5, test_val_share=0).values():
        validated = split.loc[split["split"] == VAL, "label"].value_counts()
        assert validated[17] == 2
        assert 9 <= validated[16] <= 11


def test_the_seed_decides_and_nothing_else_does():
    table = people_like_the_contest(60)
    first, again, other = (make_splits(table, 3, seed=seed) for seed in (4, 4, 5))
    assert all(first[fold].equals(again[fold]) for fold in first)
    assert not all(first[fold].equals(other[fold]) for fold in first)


@pytest.mark.parametrize("share", [0.02, 0.1, 0.25, 0.4, 0.5])
def test_the_share_of_people_who_are_held_out_is_met_in_every_class(share):
    table = people_like_the_contest(400)
    apart = held_out_people(table, share, seed=0)
    assert len(apart) == pytest.approx(share * 400, abs=4)
    counts = table[table["person"].isin(apart)]["label"].value_counts().reindex(range(18), fill_value=0)
    photos_a_person = pd.Series([5] * 6 + [1] * 12)
    assert ((counts - table["label"].value_counts().sort_index() * share).abs() <= 2 * photos_a_person).all()


def test_a_share_of_less_than_one_person_is_refused():
    with pytest.raises(ValueError, match=r"test_val_share = 0\.02: that is less than one person"):
        make_splits(people_like_the_contest(20), 3, test_val_share=0.02)


def test_the_order_of_rows_does_not_matter():
    table = photo_table(np.random.default_rng(1).integers(0, 18, (30, 4)).tolist())
    shuffled = table.sample(frac=1, random_state=0)
    pd.testing.assert_series_equal(spread_people(table, 4, 2), spread_people(shuffled, 4, 2))
    assert held_out_people(table, 0.2, 2).equals(held_out_people(shuffled, 0.2, 2))


def test_a_wrong_label_here_and_there_does_not_upset_the_other_classes():
    generator = np.random.default_rng(0)
    kinds = generator.integers(0, 6, 300).tolist()
    lists = [[kind] * 5 + [6 + kind, 12 + kind] for kind in kinds]
    for wrong in generator.integers(0, 300, 60):
        lists[wrong][int(generator.integers(7))] = int(generator.integers(18))
    table = photo_table(lists)
    found = pd.crosstab(table["person"].map(spread_people(table, 5, 0)), table["label"])
    of_person = pd.crosstab(table["person"], table["label"]).max()
    assert ((found - found.mean()).abs() <= of_person + 1).all(axis=None)


def test_every_part_is_filled_and_no_person_left_out():
    parts = spread_people(people_like_the_contest(23), 4, seed=0)
    assert sorted(parts.index) == [f"p{person:03d}" for person in range(23)]
    assert sorted(parts.value_counts().tolist()) == [5, 6, 6, 6]


def test_a_toy_set_whose_classes_reach_no_five_parts_is_still_split():
    for split in make_splits(photo_table([[label] for label in range(6)]), 5, test_val_share=0).values():
        assert (split["split"] == VAL).sum() in (1, 2)


def test_too_few_people_are_an_error_with_a_way_out():
    with pytest.raises(ValueError, match="4 people cannot fill 5 parts: lower fold_count or add people"):
        make_splits(photo_table([[0]] * 4), fold_count=5, test_val_share=0)


@pytest.mark.parametrize("fold_count", [1, 0, -1])
def test_one_fold_is_no_cross_validation(fold_count):
    with pytest.raises(ValueError, match=f"fold_count = {fold_count}"):
        make_splits(people_like_the_contest(20), fold_count)


@pytest.mark.parametrize("share", [-0.1, 0.6, 1, float("nan")])
def test_a_share_that_leaves_nothing_to_train_on_is_refused(share):
    with pytest.raises(ValueError, match=f"test_val_share = {share}"):
        make_splits(people_like_the_contest(20), 3, test_val_share=share)


@pytest.fixture
def splits() -> dict[int, pd.DataFrame]:
    """Honest splits of 20 people in three folds."""
    return make_splits(people_like_the_contest(20), fold_count=3, test_val_share=0.2)


def someone_in(split: pd.DataFrame, part: str) -> str:
    return split.loc[split["split"] == part, "person"].iloc[0]


def move(split: pd.DataFrame, rows: pd.Series, part: str) -> None:
    split.loc[rows, "split"] = part


def cross_from_val_to_train(splits):
    """One photo of a validated person trains."""
    person = someone_in(splits[1], VAL)
    move(splits[1], splits[1]["path"] == f"{person}/0.jpg", TRAIN)
    return f"fold 1: people who stand in more than one part: 1, such as ['{person} ({person})']"


def cross_from_test_val_to_train(splits):
    person = someone_in(splits[0], TEST_VAL)
    for split in splits.values():
        move(split, split["path"] == f"{person}/6.jpg", TRAIN)
    return f"fold 0: people who stand in more than one part: 1, such as ['{person} ({person})']"


def train_on_test_val_in_one_fold(splits):
    person = someone_in(splits[2], TEST_VAL)
    move(splits[2], splits[2]["person"] == person, TRAIN)
    return "photos in the test_val of some folds alone: 7"


def validate_twice(splits):
    move(splits[1], splits[1]["person"] == someone_in(splits[0], VAL), VAL)
    return "photos validated in more than one fold: 7"


def validate_never(splits):
    move(splits[1], splits[1]["person"] == someone_in(splits[1], VAL), TRAIN)
    return "photos validated in no fold: 7"


def photo_twice(splits):
    splits[1] = pd.concat([splits[1], splits[1].iloc[:1]], ignore_index=True)
    return f"fold 1: photos that stand twice: 1, such as ['{splits[1]['path'].iloc[0]}']"


def unknown_part(splits):
    move(splits[2], splits[2]["path"] == splits[2]["path"].iloc[0], "test")
    return "fold 2: split names other than train, val and test_val: 1, such as ['test']"


def nothing_to_train_on(splits):
    move(splits[0], splits[0]["split"] == TRAIN, VAL)
    return "fold 0: parts without a photo: 1, such as ['train']"


def nothing_to_validate(splits):
    move(splits[0], splits[0]["split"] == VAL, TRAIN)
    return "fold 0: parts without a photo: 1, such as ['val']"


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
    assert audit_splits(splits) is None


@pytest.mark.parametrize("leak", LEAKS, ids=lambda leak: leak.__name__)
def test_the_audit_finds_and_names(splits, leak):
    expected = leak(splits)
    with pytest.raises(ValueError) as refusal:
        audit_splits(splits)
    assert expected in str(refusal.value)


def test_the_audit_finds_a_photo_that_only_one_fold_knows(splits):
    """It trains there and is validated nowhere."""
    extra = pd.DataFrame([("new/0.jpg", "new", 3, TRAIN)], columns=SPLIT_COLUMNS)
    splits[1] = pd.concat([splits[1], extra], ignore_index=True)
    with pytest.raises(ValueError, match=r"new/0\.jpg"):
        audit_splits(splits)


def test_the_audit_finds_a_person_who_goes_by_two_names(splits):
    """Under a name of its own one photo trains while the person is validated."""
    person = someone_in(splits[1], VAL)
    alone = splits[1]["path"] == f"{person}/0.jpg"
    splits[1].loc[alone, ["person", "split"]] = ["somebody else", TRAIN]
    other = next(fold for fold in splits if fold != 1)
    move(splits[other], splits[other]["path"] == f"{person}/0.jpg", VAL)
    splits[other].loc[splits[other]["path"] == f"{person}/0.jpg", "person"] = "somebody else"
    with pytest.raises(ValueError, match=f"{person}|somebody else"):
        audit_splits(splits)


def test_splits_come_back_from_their_files(splits, tmp_path):
    paths = write_splits(splits, tmp_path)
    kinds = [f"split.stratified.{small}{fold}.csv" for small in ("", "small.") for fold in range(3)]
    assert [path.name for path in paths] == [*kinds, "groups.csv"]
    for small in (False, True):
        found = read_splits(tmp_path, small=small)
        assert list(found) == [0, 1, 2]
        for fold, split in splits.items():
            pd.testing.assert_frame_equal(found[fold], split, check_dtype=False)


def test_people_named_by_numbers_keep_their_zeros(tmp_path):
    table = people_like_the_contest(20).assign(person=lambda table: table["person"].str.slice(1))
    write_splits(make_splits(table, 2), tmp_path)
    assert read_splits(tmp_path)[0]["person"].iloc[0] == "000"


def test_files_of_an_earlier_larger_count_are_removed_and_others_left(splits, tmp_path):
    write_splits(make_splits(people_like_the_contest(40), fold_count=12), tmp_path)
    other = tmp_path / "tables" / "split.of.mine.0.csv"
    other.write_text("not ours\n")
    assert list(read_splits(tmp_path)) == list(read_splits(tmp_path, small=True)) == list(range(12))
    write_splits(splits, tmp_path)
    assert list(read_splits(tmp_path)) == list(read_splits(tmp_path, small=True)) == [0, 1, 2]
    assert other.exists()


def test_a_person_named_like_a_missing_value_keeps_that_name(tmp_path):
    table = people_like_the_contest(20).replace({"person": {"p003": "NA", "p004": "null"}})
    write_splits(make_splits(table, 2), tmp_path)
    assert set(read_splits(tmp_path)[0]["person"]) == set(table["person"])


def test_files_are_audited_when_they_are_read(splits, tmp_path):
    cross_from_val_to_train(splits)
    write_splits(splits, tmp_path)
    with pytest.raises(ValueError, match="more than one part"):
        read_splits(tmp_path)


def test_a_lost_fold_is_noticed(splits, tmp_path):
    write_splits(splits, tmp_path)[1].unlink()
    with pytest.raises(ValueError, match="validated in no fold"):
        read_splits(tmp_path)


def test_missing_splits_say_how_to_make_them(tmp_path):
    with pytest.raises(FileNotFoundError, match="run 00_prepare_data first"):
        read_splits(tmp_path)


# People who are one under several names.


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
        splits = make_splits(table, 3, test_val_share, seed, groups)
    except ValueError as error:
        assert "people cannot fill 3 parts" in str(error)  # nearly all are one
        return
    for split in splits.values():
        together = split.assign(group=[named.get(person, person) for person in split["person"]])
        assert (together.groupby("group")["split"].nunique() == 1).all()
        pd.testing.assert_frame_equal(split[["path", "person", "label"]], table)


def test_a_person_in_two_groups_is_an_error():
    table = people_like_the_contest(20)
    groups = pd.Series(["a", "b"], index=["p003", "p003"])
    with pytest.raises(ValueError, match=r"people in more than one group: 1, such as \['p003'\]"):
        make_splits(table, 3, groups=groups)


def strangers(splits: dict[int, pd.DataFrame], fold: int, parts: tuple[str, str]) -> tuple[str, str]:
    """Somebody of each of two parts of a fold."""
    return tuple(someone_in(splits[fold], part) for part in parts)


@pytest.mark.parametrize("parts", list(itertools.permutations((TRAIN, VAL, TEST_VAL), 2)))
def test_the_audit_finds_and_names_a_duplicate_group_that_crosses(splits, parts):
    one, other = strangers(splits, 0, parts)
    groups = pairs_of(splits[0], [(one, other)])
    with pytest.raises(ValueError) as refusal:
        audit_splits(splits, groups)
    both = ", ".join(sorted([one, other]))
    assert f"fold 0: duplicate groups that stand in more than one part: 1, such as ['{one} ({both})']" in str(
        refusal.value
    )


def copies_of(paths: list[str], where: str = "train") -> pd.DataFrame:
    """A duplicates table in which these photos are one."""
    return pd.DataFrame({"hash": "00ff", "path": paths, "person": "", "label": 0, "set": where, "distance": 0})


def test_the_audit_finds_and_names_copies_that_a_table_marks(splits):
    one, other = strangers(splits, 2, (TRAIN, VAL))
    paths = [f"{one}/0.jpg", f"{other}/4.jpg"]
    expected = rf"copies that stand in more than one part: 1, such as \['00ff \({', '.join(sorted(paths))}\)'\]"
    with pytest.raises(ValueError, match=expected):
        audit_splits(splits, duplicates=[copies_of([]), copies_of(paths)])


def test_copies_on_one_side_and_copies_among_evaluation_photos_are_no_crossing(splits):
    person = someone_in(splits[0], VAL)
    same_side = copies_of([f"{person}/0.jpg", f"{person}/1.jpg", "not in any split.jpg"])
    one, other = strangers(splits, 0, (TRAIN, VAL))
    audit_splits(splits, duplicates=[same_side, copies_of([f"{one}/0.jpg", f"{other}/0.jpg"], where="eval")])


@pytest.mark.parametrize("spelling", ["{}", "./{}", "x/../{}"])
def test_the_audit_finds_an_augmented_copy_that_trains_beside_the_validated_photo(splits, spelling):
    """Under a new person's name, as a tool that multiplies rare photos on disk would list it."""
    path = splits[0].loc[splits[0]["split"] == VAL, "path"].iloc[0]
    row = (spelling.format(path), "somebody new", 3, TRAIN)
    splits[0] = pd.concat([splits[0], pd.DataFrame([row], columns=SPLIT_COLUMNS)], ignore_index=True)
    with pytest.raises(ValueError, match=rf"fold 0: photos that stand twice: 1, such as .*{path}"):
        audit_splits(splits)


def test_groups_are_audited_again_when_splits_are_read(splits, tmp_path):
    one, other = strangers(splits, 1, (TRAIN, VAL))
    write_splits(splits, tmp_path, pairs_of(splits[0], [(one, other)]))
    for small in (False, True):
        with pytest.raises(ValueError, match=f"duplicate groups that stand in more than one part.*{one}"):
            read_splits(tmp_path, small=small)


def test_groups_come_back_from_their_file_and_a_later_preparation_replaces_them(splits, tmp_path):
    write_splits(splits, tmp_path, pd.Series({"p001": "twins", "p002": "twins"}))
    table = pd.read_csv(tmp_path / "tables" / "groups.csv")
    assert list(table) == ["person", "group"]
    assert list(table["person"]) == sorted(splits[0]["person"].unique())
    assert read_groups(tmp_path)[["p001", "p002", "p003"]].tolist() == ["twins", "twins", "p003"]
    write_splits(splits, tmp_path)
    assert read_groups(tmp_path)["p001"] == "p001"


# External photos.


def external_table(people: list[str], label: int = 3) -> pd.DataFrame:
    """A photo of each person."""
    return pd.DataFrame({"path": [f"/far/{person}.jpg" for person in people], "person": people, "label": label})


def external_paths(split: pd.DataFrame) -> set[str]:
    return set(split.loc[split["path"].str.startswith("/far/"), "path"])


def test_external_photos_train_in_every_fold_and_stand_nowhere_else(splits):
    joined = join_training(splits, external_table(["e1", "e2"]))
    for fold, split in joined.items():
        assert list(split) == SPLIT_COLUMNS
        pd.testing.assert_frame_equal(split.iloc[: len(splits[fold])], splits[fold])
        added = split.iloc[len(splits[fold]) :]
        assert list(added["path"]) == ["/far/e1.jpg", "/far/e2.jpg"]
        assert set(added["split"]) == {TRAIN}


def test_a_copy_of_a_validated_photo_trains_only_where_that_person_trains(splits):
    """And a copy of somebody in test_val never does."""
    validated, apart = strangers(splits, 0, (VAL, TEST_VAL))
    groups = pairs_of(splits[0], [(validated, "e1"), (apart, "e2")])
    joined = join_training(splits, external_table(["e1", "e2", "e3"]), groups)
    assert external_paths(joined[0]) == {"/far/e3.jpg"}
    assert external_paths(joined[1]) == external_paths(joined[2]) == {"/far/e1.jpg", "/far/e3.jpg"}


def test_an_external_photo_may_unite_two_people_of_the_data_folder():
    table = people_like_the_contest(20)
    groups = pairs_of(table, [("p001", "p002"), ("p001", "e1")])
    splits = join_training(make_splits(table, 3, groups=groups), external_table(["e1"]), groups)
    for split in splits.values():
        place = split.groupby("person")["split"].first()
        assert place["p001"] == place["p002"]
        assert ("e1" in place) == (place["p001"] == TRAIN)


def test_external_people_and_paths_cannot_pass_for_those_of_the_data_folder(splits):
    with pytest.raises(ValueError, match=r"external people named like people of the data folder: 1.*p004"):
        join_training(splits, external_table(["e1", "p004"]))
    with pytest.raises(ValueError, match=r"need absolute paths.*near\.jpg"):
        join_training(splits, external_table(["e1"]).assign(path="near.jpg"))


@pytest.mark.parametrize("part", [VAL, TEST_VAL])
def test_the_audit_finds_external_photos_outside_train(splits, part):
    joined = join_training(splits, external_table(["e1"]))
    for split in joined.values():
        move(split, split["person"] == "e1", part)
    with pytest.raises(ValueError, match=r"external photos outside train: 1, such as \['/far/e1\.jpg'\]"):
        audit_splits(joined)


def test_the_audit_finds_external_photos_that_two_folds_list_differently(splits):
    joined = join_training(splits, external_table(["e1"]))
    joined[2].loc[joined[2]["person"] == "e1", "label"] = 8
    with pytest.raises(ValueError, match=r"external photos that two folds list differently: 1.*/far/e1\.jpg"):
        audit_splits(joined)


def test_the_audit_finds_an_external_copy_beside_the_validated_person(splits):
    joined = join_training(splits, external_table(["e1"]))
    validated = someone_in(joined[1], VAL)
    with pytest.raises(ValueError, match=rf"duplicate groups.*{validated}"):
        audit_splits(joined, pairs_of(joined[1], [(validated, "e1")]))


def test_small_files_are_the_same_folds_without_external_photos(splits, tmp_path):
    write_splits(join_training(splits, external_table(["e1", "e2"])), tmp_path)
    assert len(external_paths(read_splits(tmp_path)[0])) == 2
    for fold, split in read_splits(tmp_path, small=True).items():
        pd.testing.assert_frame_equal(split, splits[fold], check_dtype=False)


# How flattering a split of photos is.


@pytest.fixture
def naive() -> dict[int, pd.DataFrame]:
    return naive_splits(people_like_the_contest(60), fold_count=3)


def test_naive_splits_validate_each_photo_once_with_every_class_spread_evenly(naive):
    table = people_like_the_contest(60)
    validated = pd.concat([split[split["split"] == VAL] for split in naive.values()])
    assert sorted(validated["path"]) == sorted(table["path"])
    for split in naive.values():
        assert list(split) == SPLIT_COLUMNS
        assert set(split["split"]) == {TRAIN, VAL}
        counts = split.loc[split["split"] == VAL, "label"].value_counts().reindex(range(18), fill_value=0)
        wanted = table["label"].value_counts().reindex(range(18), fill_value=0) / 3
        assert ((counts - wanted).abs() <= 1).all()


def test_naive_splits_tear_people_apart_and_neither_the_audit_nor_training_accepts_them(naive, tmp_path):
    with pytest.raises(ValueError, match="people who stand in more than one part"):
        audit_splits(naive)
    write_splits(naive, tmp_path)
    with pytest.raises(ValueError, match="people who stand in more than one part"):
        read_splits(tmp_path)


def test_a_fingerprint_covers_photos_labels_parts_weights_and_nothing_else(splits, tmp_path):
    split = splits[0]
    same = fingerprint("content", split, "imagenet")
    assert same == fingerprint("content", split.assign(age=30), "imagenet")
    others = [split.assign(label=split["label"].replace(0, 1)), split.assign(weight=0.5), splits[1]]
    (tmp_path / "weights").write_bytes(b"x")
    found = {fingerprint("content", one, "imagenet") for one in others}
    found |= {fingerprint("other", split, "imagenet"), fingerprint("content", split, str(tmp_path / "weights"))}
    assert len(found | {same}) == 6


def test_naive_splits_follow_the_seed_and_take_toy_sets():
    table = people_like_the_contest(20)
    first, again, other = (naive_splits(table, 3, seed)[0]["split"].tolist() for seed in (1, 1, 2))
    assert first == again != other
    assert len(naive_splits(photo_table([[label] for label in range(6)]), 5)) == 5

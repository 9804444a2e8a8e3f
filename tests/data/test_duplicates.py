"""Planted copies are found and nothing else is; groups, leaks and united people follow from them."""

import itertools

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from photo_files import save
from PIL import Image

from mask_lib.data import duplicates, hashes, photos
from mask_lib.sample import paint

PHOTOS = pd.DataFrame(
    {
        "path": ["a/mask1.jpg", "a/normal.jpg", "b/mask1.jpg", "c/mask1.jpg", "1.jpg", "2.jpg"],
        "person": ["a", "a", "b", "c", "", ""],
        "label": pd.array([0, 12, 3, 0, None, None], "Int64"),
        "split": ["train"] * 4 + ["eval"] * 2,
    }
)


def hashed(ahash=(0, 1, 3, 0, 7, 2**63), phash=(0,) * 6) -> hashes.Hashes:
    """Made-up hashes of `PHOTOS`."""
    small = np.zeros((len(ahash), 16, 16), np.uint8)
    return hashes.Hashes(np.array(ahash, np.uint64), np.array(phash, np.uint64), small)


def pairs(*rows: tuple[int, int], ahash: int = 0, phash: int = 0) -> pd.DataFrame:
    """Made-up confirmed pairs."""
    return pd.DataFrame([(*row, ahash, phash, 0.5) for row in rows], columns=duplicates.PAIR_COLUMNS)


@pytest.fixture(scope="module")
def painted(tmp_path_factory):
    out = tmp_path_factory.mktemp("painted") / "sample"
    paint.paint(out, people=14, eval_people=6, width=192, height=256, workers=1)
    return out


@pytest.fixture(scope="module")
def photo_table(painted) -> pd.DataFrame:
    return photos.scan_photos(painted)[0]


@pytest.fixture(scope="module")
def opened(painted, photo_table, tmp_path_factory) -> hashes.Hashes:
    return hashes.open_hashes(tmp_path_factory.mktemp("hashes"), painted, photo_table)


@pytest.fixture(scope="module")
def found(painted, photo_table, opened) -> pd.DataFrame:
    return duplicates.find(photo_table, painted, opened)


@pytest.fixture(scope="module")
def planted(painted, photo_table) -> set[frozenset]:
    """Pairs of paths that are copies by the painter's own word."""
    faults, usable = paint.read_truth(painted)["faults"], set(photo_table["path"])
    twice = {
        frozenset((f"{fault['folder']}/{name}", f"{fault['of']}/{name}"))
        for fault in faults["duplicate_people"]
        for name in fault["changes"]
    }
    leaked = {frozenset((fault["ImageID"], fault["of"])) for fault in faults["leaks"]}
    return {pair for pair in twice | leaked if pair <= usable}


@pytest.mark.parametrize("kinds", [("ahash",), ("phash",), hashes.KINDS])
def test_all_planted_copies_are_found_by_either_kind_of_hash_and_nothing_else(
    painted, photo_table, opened, planted, kinds
):
    assert len(planted) >= 8
    found = duplicates.find(photo_table, painted, opened, {kind: duplicates.DISTANCES[kind] for kind in kinds})
    names = photo_table["path"].to_numpy()
    assert {frozenset(names[ends]) for ends in found[["row", "other"]].to_numpy()} == planted
    assert list(found.columns) == duplicates.PAIR_COLUMNS
    assert (found["row"] < found["other"]).all()


def test_tables_are_written_and_read_back(painted, photo_table, opened, found, tmp_path):
    with pytest.raises(FileNotFoundError, match="run 00_prepare_data first"):
        duplicates.read_duplicates(tmp_path, "ahash")
    tables = duplicates.write(photo_table, opened, found, tmp_path)
    planted = {(one["ImageID"], one["of"]) for one in paint.read_truth(painted)["faults"]["leaks"]}
    for kind in hashes.KINDS:
        pd.testing.assert_frame_equal(duplicates.read_duplicates(tmp_path, kind), tables[f"duplicates.{kind}"])
        leaks = pd.read_csv(tmp_path / "tables" / f"data_leak.{kind}.csv")
        assert set(zip(leaks["ImageID"], leaks["path"], strict=True)) == planted


def test_photos_of_one_colour_are_nobodys_copies(tmp_path):
    table = PHOTOS.iloc[:4]
    for path, grey in zip(photos.files_of(tmp_path, table), (60, 60, 10, 10), strict=True):
        save(Image.new("RGB", (80, 80), (grey, grey, grey)), path)
    opened = hashes.open_hashes(tmp_path / "hashes", tmp_path, table)
    assert duplicates.find(table, tmp_path, opened).empty


def test_duplicates_are_listed_the_nearest_to_all_first():
    found = duplicates.duplicates(PHOTOS, hashed(), pairs((0, 2), (1, 2), (2, 4)), "ahash")
    assert list(found.columns) == duplicates.DUPLICATE_COLUMNS
    # ahash 0, 1, 3 and 7: of 1 and 3, which are as near to all, the earlier stands for the group
    assert found.drop(columns="person").fillna({"label": -1}).values.tolist() == [
        ["0000000000000001", "a/normal.jpg", 12, "train", 0],
        ["0000000000000001", "a/mask1.jpg", 0, "train", 1],
        ["0000000000000001", "b/mask1.jpg", 3, "train", 1],
        ["0000000000000001", "1.jpg", -1, "eval", 2],
    ]


@pytest.mark.parametrize(
    ("distances", "kinds"), [({"ahash": 4}, ["ahash"]), ({"ahash": 3, "phash": 2}, ["phash"]), ({"phash": 1}, [])]
)
def test_only_pairs_within_the_distance_of_a_kind_that_is_asked_for_count(tmp_path, distances, kinds):
    tables = duplicates.write(PHOTOS, hashed(), pairs((0, 1), (0, 4), ahash=4, phash=2), tmp_path, distances)
    filled = [f"{what}.{kind}" for kind in kinds for what in ("duplicates", "data_leak")]
    assert [name for name, table in tables.items() if len(table)] == filled
    for kind in hashes.KINDS:
        assert duplicates.read_duplicates(tmp_path, kind).columns.tolist() == duplicates.DUPLICATE_COLUMNS


def test_two_groups_never_share_a_hash():
    found = duplicates.duplicates(PHOTOS, hashed(ahash=(5,) * 6), pairs((0, 1), (2, 3), (4, 5)), "ahash")
    assert found.groupby("hash")["path"].agg(list).to_dict() == {
        "0000000000000005": ["a/mask1.jpg", "a/normal.jpg"],
        "0000000000000006": ["b/mask1.jpg", "c/mask1.jpg"],
        "0000000000000007": ["1.jpg", "2.jpg"],
    }


def test_leaks_name_the_training_photo_best_match_first():
    found = pd.concat([pairs((2, 4), ahash=3), pairs((0, 4), ahash=1), pairs((1, 5), (0, 3), (4, 5))])
    leaks = duplicates.leaks(PHOTOS, found, "ahash")
    assert list(leaks.columns) == ["ImageID", "path", "label", "distance"]
    assert leaks.values.tolist() == [
        ["1.jpg", "a/mask1.jpg", 0, 1],
        ["1.jpg", "b/mask1.jpg", 3, 3],
        ["2.jpg", "a/normal.jpg", 12, 0],
    ]


def test_conflicts_are_groups_whose_labels_differ():
    found = duplicates.duplicates(PHOTOS, hashed(), pairs((0, 3), (3, 4), (1, 2)), "ahash")
    assert duplicates.conflicts(found)["path"].tolist() == ["a/normal.jpg", "b/mask1.jpg"]
    assert duplicates.conflicts(found[:0]).empty


def test_an_eval_photo_between_two_people_unites_them_and_is_in_no_group_itself():
    table = duplicates.duplicates(PHOTOS, hashed(), pairs((0, 4), (2, 4)), "phash")
    assert duplicates.unite(PHOTOS, table).to_dict() == {"a": "a", "b": "a", "c": "c"}


memberships = st.lists(st.tuples(st.integers(0, 5), st.integers(0, 9)), max_size=20)


@settings(deadline=None)
@given(tables=st.lists(memberships, max_size=3))
def test_united_people_are_those_that_a_walk_from_copy_to_copy_reaches(tables):
    people = pd.DataFrame({"person": [f"p{number}" for number in range(10)], "split": "train"})
    reached = {number: {number} for number in range(10)}
    for _, rows in itertools.product(range(10), tables):
        for (group, person), (other_group, other) in itertools.product(rows, rows):
            if group == other_group:
                reached[person] |= reached[other]
    named = [[(f"{group:016x}", f"p{person}") for group, person in rows] for rows in tables]
    group_of = duplicates.unite(people, *(pd.DataFrame(rows, columns=["hash", "person"]) for rows in named))
    assert group_of.to_dict() == {f"p{person}": f"p{min(together)}" for person, together in reached.items()}


@pytest.mark.parametrize(
    ("count", "distances", "complaint"),
    [
        (6, {"ahash": -1}, "'ahash': -1"),
        (6, {"phash": 65}, "give 0 to 64 bits"),
        (6, {"dhash": 3}, "dhash"),
        (6, {}, "for ahash or phash or both"),
        (4, {"ahash": 10}, "6 hashes for 4 photos"),
    ],
)
def test_distances_that_are_none_and_hashes_of_another_table_are_refused(tmp_path, count, distances, complaint):
    with pytest.raises(ValueError, match=complaint):
        duplicates.find(PHOTOS.iloc[:count], tmp_path, hashed(), distances)


def test_pairs_are_shown_side_by_side(painted, photo_table, found):
    first, second = (photo_table.iloc[found[end]] for end in ("row", "other"))
    shown = duplicates.side_by_side(painted, first, second)
    ends = zip(photos.thumbnails(painted, first), photos.thumbnails(painted, second), strict=True)
    for picture, (left, right) in zip(shown, ends, strict=True):
        np.testing.assert_array_equal(picture[: len(left), : left.shape[1]], left)
        np.testing.assert_array_equal(picture[: len(right), -right.shape[1] :], right)

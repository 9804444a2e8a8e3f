"""People are spread as evenly as anyone could, which for few people can be tried out in full."""

import itertools

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mask_lib.data import splits


def photo_table(label_lists: list[list[int]]) -> pd.DataFrame:
    """One person a list, one photo a label."""
    rows = [(f"p{person:03d}", label) for person, found in enumerate(label_lists) for label in found]
    return pd.DataFrame(rows, columns=["person", "label"])


def tables(people: tuple[int, int], photos: int = 7):
    """Random tables: how many people, and up to how many photos a person."""
    of_person = st.lists(st.integers(0, 17), min_size=1, max_size=photos)
    return st.lists(of_person, min_size=people[0], max_size=people[1]).map(photo_table)


def shares(part_count: int) -> list[float]:
    return [1 / part_count] * part_count


def plain_distance(table: pd.DataFrame, part_of: dict[str, int], parts: list[float]) -> float:
    """`splits.distance`, written the long way from the photos themselves."""
    found = 0.0
    columns = [*((table["person"][table["label"] == label]).tolist() for label in table["label"].unique())]
    for people in [*columns, table["person"].unique().tolist()]:
        for part, share in enumerate(parts):
            count = sum(part_of[person] == part for person in people)
            found += (count - share * len(people)) ** 2 / len(people)
    return found


@settings(max_examples=15, deadline=None)
@given(table=tables((6, 12)), part_count=st.integers(2, 4), seed=st.integers(0, 100))
def test_no_swap_and_no_move_of_people_would_spread_them_more_evenly(table, part_count, seed):
    parts = splits.spread_people(table, part_count, seed).to_dict()
    reached = plain_distance(table, parts, shares(part_count))
    assert reached == pytest.approx(
        splits.distance(splits.class_counts(table), np.array([*parts.values()]), shares(part_count))
    )
    for person, part in itertools.product(parts, range(part_count)):
        moved = parts | {person: part}
        assert set(moved.values()) != set(range(part_count)) or (
            plain_distance(table, moved, shares(part_count)) > reached - 1e-6
        )
    for one, other in itertools.combinations(parts, 2):
        swapped = parts | {one: parts[other], other: parts[one]}
        assert plain_distance(table, swapped, shares(part_count)) > reached - 1e-6


@settings(max_examples=60, deadline=None)
@given(table=tables((5, 60)), part_count=st.integers(2, 5), seed=st.integers(0, 100))
def test_every_part_is_filled_and_never_less_even_than_random_grouped_splits_on_average(table, part_count, seed):
    """The bound holds for every table: see `splits.exchanged`.

    A person put anywhere at random adds (1 - 1/k) Σ n² / N to the mean distance, n of N photos of a class.
    """
    counts = splits.class_counts(table)
    parts = splits.spread_people(table, part_count, seed)
    assert sorted(parts.unique()) == list(range(part_count))
    brought = np.column_stack([counts, np.ones(len(counts))])
    mean_of_random = (1 - 1 / part_count) * (brought**2 / brought.sum(axis=0)).sum()
    assert splits.distance(counts, parts.to_numpy(), shares(part_count)) <= mean_of_random + 1e-9


@pytest.mark.parametrize(("part_count", "people"), [(2, 11), (3, 8)])
def test_close_to_the_best_of_all_grouped_splits(part_count, people):
    """Each class stays within one person's photos of the best split there is, found by trying all."""
    generator = np.random.default_rng(part_count)
    every = np.array(list(itertools.product(range(part_count), repeat=people)))  # (splits, people)
    is_in = np.eye(part_count)[every]  # (splits, people, parts)
    for seed in range(25):
        kinds = generator.integers(2, 18)
        table = photo_table([generator.integers(0, kinds, generator.integers(1, 8)).tolist() for _ in range(people)])
        counts = splits.class_counts(table)
        ideal = counts.to_numpy().sum(axis=0) / part_count
        off = np.abs(np.einsum("spk,pc->skc", is_in, counts.to_numpy()) - ideal).max(axis=1)  # (splits, classes)
        parts = splits.spread_people(table, part_count, seed).to_numpy()
        ours = off[(every == parts).all(axis=1)][0]
        assert ours.max() <= off.max(axis=1).min() + counts.to_numpy().max()
        brought = np.column_stack([counts, np.ones(people)])
        total = brought.sum(axis=0)
        found = np.einsum("spk,pc->skc", is_in, brought)
        distances = ((found - total / part_count) ** 2 / total).sum(axis=(1, 2))
        reached = splits.distance(counts, parts, shares(part_count))
        assert reached - distances.min() <= 0.25 * (distances.mean() - distances.min()) + 1e-9


@settings(max_examples=40, deadline=None)
@given(table=tables((10, 60)), share=st.sampled_from([0.02, 0.05, 0.1, 0.17, 0.25, 0.37, 0.5]), seed=st.integers(0, 9))
def test_the_share_of_people_who_stand_apart_is_met(table, share, seed):
    people = table["person"].nunique()
    if share * people < 0.5:
        with pytest.raises(ValueError, match="less than one person"):
            splits.held_out(table, share, seed)
        return
    apart = splits.held_out(table, share, seed)
    assert set(apart) < set(table["person"])
    assert 1 <= len(apart) <= share * people + 0.2 * people + 1


def test_people_who_stand_apart_are_a_tenth_of_every_class():
    generator = np.random.default_rng(0)
    kinds = generator.choice(6, 400, p=[0.25, 0.2, 0.05, 0.25, 0.2, 0.05]).tolist()
    table = photo_table([[kind] * 5 + [6 + kind, 12 + kind] for kind in kinds])
    apart = splits.held_out(table, 0.1, seed=0)
    counts = table[table["person"].isin(apart)]["label"].value_counts().reindex(range(18), fill_value=0)
    of_person = pd.Series([5] * 6 + [1] * 12)
    assert ((counts - table["label"].value_counts().sort_index() / 10).abs() <= of_person).all()
    assert abs(len(apart) - 40) <= 1


def test_the_order_of_rows_does_not_matter():
    table = photo_table(np.random.default_rng(1).integers(0, 18, (30, 4)).tolist())
    shuffled = table.sample(frac=1, random_state=0)
    pd.testing.assert_series_equal(splits.spread_people(table, 4, 2), splits.spread_people(shuffled, 4, 2))
    assert splits.held_out(table, 0.2, 2).equals(splits.held_out(shuffled, 0.2, 2))


def test_a_wrong_label_here_and_there_does_not_upset_the_other_classes():
    """Photos with a rare label by mistake once decided where all seven of their person went."""
    generator = np.random.default_rng(0)
    kinds = generator.integers(0, 6, 300).tolist()
    lists = [[kind] * 5 + [6 + kind, 12 + kind] for kind in kinds]
    for wrong in generator.integers(0, 300, 60):
        lists[wrong][int(generator.integers(7))] = int(generator.integers(18))
    counts = splits.class_counts(photo_table(lists)).to_numpy()
    parts = splits.spread_people(photo_table(lists), 5, 0).to_numpy()
    found = np.array([counts[parts == part].sum(axis=0) for part in range(5)])
    assert (np.abs(found - counts.sum(axis=0) / 5) <= counts.max(axis=0)).all()

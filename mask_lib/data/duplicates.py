"""Photos that occur more than once: within the training photos, and on both sides of the evaluation.

Near hashes make a pair a candidate, its pixels decide. Copies are photos re-encoded, resized or cropped by up to 2 %
on each side; another photo of the same person is none.
"""

from collections.abc import Mapping
from pathlib import Path

import numpy as np
import pandas as pd
from scipy.sparse import coo_array
from scipy.sparse.csgraph import connected_components

from mask_lib.base import files, labels
from mask_lib.data import photos, pixels
from mask_lib.data.hashes import KINDS, Hashes, near
from mask_lib.data.layout import Finding, Problem

# Bits of 64 that a copy may differ in: the most that a crop of 2 % off each edge cost of hundreds of painted
# and real faces. By ahash most of what is as near is no copy; the pixels tell.
DISTANCES = {"ahash": 10, "phash": 14}
FLAT = 1.0  # grey levels; a photo that varies less shows nothing, and its hash is chance
PAIR_COLUMNS = ["row", "other", *KINDS, "residual"]
DUPLICATE_COLUMNS = ["hash", "path", "person", "label", "set", "distance"]
LEAK_COLUMNS = ["ImageID", "path", "label", "distance"]
PAIRS_AT_ONCE = 256  # whose pixels are compared in one go


def find(
    photo_table: pd.DataFrame, data_dir: files.AnyPath, hashes: Hashes, distances: Mapping[str, int] = DISTANCES
) -> pd.DataFrame:
    """All pairs of copies among the rows of the photo table, columns `PAIR_COLUMNS`.

    `row` < `other` are positions in the table, `ahash` and `phash` the bits the hashes differ in, `residual` what the
    pixels differ in once aligned (grey levels). `distances`: by kind of hash the bits in which candidates may differ.
    Raises OSError that names an unreadable photo, ValueError for hashes of another table and distances that are none.
    """
    if len(hashes.ahash) != len(photo_table):
        raise ValueError(f"{len(hashes.ahash)} hashes for {len(photo_table)} photos: open them for this photo table")
    if not distances or not all(kind in KINDS and 0 <= bits <= 64 for kind, bits in distances.items()):
        raise ValueError(f"distances = {dict(distances)}: give 0 to 64 bits for {' or '.join(KINDS)} or both")
    rows, others = candidates(hashes, distances)
    gaps = {kind: getattr(hashes, kind)[rows] ^ getattr(hashes, kind)[others] for kind in KINDS}
    bits = {kind: np.bitwise_count(gap).astype(np.int64) for kind, gap in gaps.items()}
    pairs = pd.DataFrame({"row": rows, "other": others, **bits, "residual": np.nan})
    return confirmed(pairs, photos.files_of(data_dir, photo_table))


def candidates(hashes: Hashes, distances: Mapping[str, int]) -> tuple[np.ndarray, np.ndarray]:
    """(K,) int64 rows and others, row below other: near by one of the hashes, and alike in 16 x 16 pixels."""
    shown = np.flatnonzero(hashes.small.std(axis=(1, 2)) >= FLAT)
    small = pixels.blurred(hashes.small[shown])
    found = [np.zeros((2, 0), np.int64)]
    for kind, distance in distances.items():
        for rows, others in near(getattr(hashes, kind)[shown], distance):
            kept = pixels.is_alike(small, rows, others)
            found.append(shown[np.stack([rows[kept], others[kept]])])
    rows, others = np.unique(np.concatenate(found, axis=1), axis=1)
    return rows, others


def confirmed(pairs: pd.DataFrame, paths: list[Path]) -> pd.DataFrame:
    """Those of the pairs whose pixels are one photo's, with their `residual`."""
    kept = [pairs[:0]]
    with files.progress(total=len(pairs), what="comparing photos", unit="pair") as line:
        for start in range(0, len(pairs), PAIRS_AT_ONCE):
            some = pairs[start : start + PAIRS_AT_ONCE]
            needed, positions = np.unique(some[["row", "other"]].to_numpy(), return_inverse=True)
            grey = pixels.read_grey([paths[row] for row in needed])
            first, second = positions.reshape(-1, 2).T
            figures = pixels.residuals(grey[first], grey[second])
            kept.append(some.assign(residual=figures["residual"])[pixels.is_copy(figures)])
            line.update(len(some))
    return pd.concat(kept[1:] or kept, ignore_index=True)


def duplicates(photo_table: pd.DataFrame, hashes: Hashes, pairs: pd.DataFrame, kind: str) -> pd.DataFrame:
    """Groups of copies by one kind of hash, a row a photo, columns `DUPLICATE_COLUMNS`.

    pairs: of `find`; what they join is a group. `hash` is that of its representative, the photo nearest to all others,
    the first: 16 hex digits, no other group's. `distance`: bits to it; `set`: train, eval (`label` empty) or external.
    """
    group_of = pd.Series(components(len(photo_table), pairs[["row", "other"]].to_numpy().T))
    group_of = group_of[np.unique(pairs[["row", "other"]])]  # of photos that are in a pair
    values, taken, found = getattr(hashes, kind), set(), []
    for rows in group_of.groupby(group_of).groups.values():
        # One row at a time: a group may be large.
        first = int(np.argmin([np.bitwise_count(values[rows] ^ value).sum() for value in values[rows]]))
        apart = np.bitwise_count(values[rows] ^ values[rows[first]])
        name = int(values[rows[first]])
        while name in taken:  # different photos can share a hash: the next number that names no group yet
            name = (name + 1) % 2**64
        taken.add(name)
        order = np.lexsort((rows, apart, np.arange(len(rows)) != first))
        found += [(rows[at], f"{name:016x}", apart[at]) for at in order]
    told = pd.DataFrame(found, columns=["row", "hash", "distance"])
    told = told.astype({"row": "int64", "hash": "str", "distance": "int64"})
    members = photo_table.iloc[told["row"]][["path", "person", "label", "split"]].reset_index(drop=True)
    return members.rename(columns={"split": "set"}).join(told)[DUPLICATE_COLUMNS]


def components(count: int, ends: np.ndarray) -> np.ndarray:
    """(count,) the number of the group of each of `count` things that (2, K) pairs of them join."""
    joined = coo_array((np.ones(ends.shape[1], bool), tuple(ends)), shape=(count, count))
    return connected_components(joined, directed=False)[1]


def leaks(photo_table: pd.DataFrame, pairs: pd.DataFrame, kind: str) -> pd.DataFrame:
    """Evaluation photos that are copies of training photos, columns `LEAK_COLUMNS`, by ImageID, the best match first.

    pairs: as `find` gives them; `distance`: bits by this kind of hash. Every training photo that is a copy has a row
    with its `path` and `label`: the reader should see disagreement.
    """
    is_eval = (photo_table["split"] == "eval").to_numpy()
    crossing = pairs[is_eval[pairs["row"]] != is_eval[pairs["other"]]]
    swapped = is_eval[crossing["row"]]
    evaluated = photo_table["path"].iloc[np.where(swapped, crossing["row"], crossing["other"])].to_numpy()
    trained = photo_table.iloc[np.where(swapped, crossing["other"], crossing["row"])]
    found = crossing.assign(
        ImageID=evaluated, path=trained["path"].to_numpy(), label=trained["label"].array, distance=crossing[kind]
    )
    return found.sort_values(["ImageID", "distance", "residual", "path"], ignore_index=True)[LEAK_COLUMNS]


def write(
    photo_table: pd.DataFrame,
    hashes: Hashes,
    pairs: pd.DataFrame,
    output_dir: files.AnyPath,
    distances: Mapping[str, int] = DISTANCES,
) -> dict[str, pd.DataFrame]:
    """Write `duplicates.<kind>` and `data_leak.<kind>` of both kinds of hash to `tables`; gives them by name.

    Of the pairs of `find` those count whose hashes of that kind are within its distance.
    """
    tables = {}
    for kind in KINDS:
        some = pairs[pairs[kind] <= distances.get(kind, -1)]  # none is that near: a kind not asked for has no rows
        tables[f"duplicates.{kind}"] = duplicates(photo_table, hashes, some, kind)
        tables[f"data_leak.{kind}"] = leaks(photo_table, some, kind)
    for name, table in tables.items():
        files.write_csv(table, Path(output_dir) / "tables" / f"{name}.csv")
    return tables


def read_duplicates(output_dir: files.AnyPath, kind: str) -> pd.DataFrame:
    """A table that `write` left, in the dtypes of `duplicates`. Raises FileNotFoundError that says what to run."""
    path = Path(output_dir) / "tables" / f"duplicates.{kind}.csv"
    if not path.exists():
        raise FileNotFoundError(f"no {files.shown_path(path)}: run 00_prepare_data first")
    # As text: a hash of digits alone, or with one e, would become a number.
    return files.read_csv(path, dict.fromkeys(DUPLICATE_COLUMNS, "str") | {"label": "Int64", "distance": "int64"})


def conflicts(duplicate_table: pd.DataFrame) -> pd.DataFrame:
    """Those groups of a duplicate table whose photos carry different labels; photos without one are left out."""
    labeled = duplicate_table.dropna(subset="label")
    return labeled[labeled.groupby("hash")["label"].transform("nunique") > 1].reset_index(drop=True)


def shared_pictures(photo_table: pd.DataFrame, duplicate_table: pd.DataFrame) -> pd.DataFrame:
    """Those rows of a duplicate table whose picture is on people of different age and the like: a placeholder.

    Two who share another picture as well are taken for one person with a wrong label.
    """
    fixed = [name for name in labels.names(of_person=True) if name in photo_table]
    told = photo_table.drop_duplicates("person").set_index("person")[fixed]
    known = duplicate_table[duplicate_table["set"] != "eval"]
    groups = known.join(told, on="person").groupby("hash")
    people = groups["person"].agg(lambda names: tuple(sorted(set(names))))
    is_one = (people.map(len) == 2) & people.duplicated(keep=False)
    differ = np.any([groups[name].nunique() > 1 for name in fixed], axis=0)
    return known[known["hash"].isin(people.index[differ & ~is_one])]


def without_shared(
    photo_table: pd.DataFrame, tables: Mapping[str, pd.DataFrame]
) -> tuple[list[pd.DataFrame], pd.DataFrame]:
    """The duplicate tables of `write` without groups that hold `shared_pictures`, and those as a problem table."""
    whole = [tables[f"duplicates.{kind}"] for kind in KINDS]
    shared = [shared_pictures(photo_table, table) for table in whole]
    findings = {}
    for _, group in (one for rows in shared for one in rows.groupby("hash")):
        people = sorted(set(group["person"]))
        what = f"one picture on {len(people)} people of different {' or '.join(labels.names(of_person=True))}"
        detail = f"{what}, such as {', '.join(people[:3])}: it unites nobody; leave it out, or correct their rows"
        findings |= {path: Finding(path, Problem.SHARED_PICTURE, detail) for path in group["path"]}
    kept = [table[~table["hash"].isin(rows["hash"])] for table, rows in zip(whole, shared, strict=True)]
    return kept, photos.problem_table(findings.values())


def unite(photo_table: pd.DataFrame, *duplicate_tables: pd.DataFrame) -> pd.Series:
    """For each person (index) of the labeled photos, external ones too, their group, named after its first member.

    People whose photos are copies by any of the tables (columns hash, person), or a chain of such, are in one group.
    """
    labeled = photo_table[photo_table["split"] != "eval"]
    people = np.unique(labeled["person"].to_numpy(dtype="object"))
    position = pd.Series(np.arange(len(people)), index=people)
    ends = [np.zeros((2, 0), np.int64)]
    for table in duplicate_tables:
        members = table[table["person"].isin(people)]
        first = members.groupby("hash")["person"].transform("first")  # whom all people of the group are joined to
        ends.append(np.stack([position[first], position[members["person"]]]))
    number = components(len(people), np.concatenate(ends, axis=1))
    first = pd.Series(people).groupby(number).transform("first")
    return pd.Series(first.to_numpy(), index=pd.Index(people, name="person"), name="group")


def captions(first: pd.DataFrame, second: pd.DataFrame) -> list[str]:
    """For each pair of rows of two photo tables, where both come from and what their labels say, two lines."""
    sides = [
        [f"{split}, {labels.describe(label)}" if pd.notna(label) else split for split, label in rows.to_numpy()]
        for rows in (first[["split", "label"]], second[["split", "label"]])
    ]
    return ["\n".join(pair) for pair in zip(*sides, strict=True)]


def side_by_side(data_dir: files.AnyPath, first: pd.DataFrame, second: pd.DataFrame) -> list[np.ndarray]:
    """A picture of each row of one photo table beside the same row of another, (H, W, 3) uint8, for galleries."""
    found = []
    for pair in zip(*(photos.thumbnails(data_dir, table) for table in (first, second)), strict=True):
        height = max(map(len, pair))
        padded = [np.pad(one, ((0, height - len(one)), (0, 4), (0, 0)), constant_values=255) for one in pair]
        found.append(np.hstack(padded)[:, :-4])
    return found

"""Photos that occur more than once: within the training photos, and on both sides of the evaluation.

Near hashes make a pair a candidate, its pixels decide (`likeness`). Copies are photos re-encoded, resized
or cropped by up to 2 % on each side; another photo of the same person is none.

Whether two photos are one: re-encoded, resized or cropped by a few hundredths, but otherwise the same.

Both looks at the pixels ask the same: is there a small shift and stretch along each axis (what a crop
is, once both photos are brought to one size) after which nothing is left but noise? Another photo of
the same person leaves a turned head, another mask or another light.
"""

import os
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pandas as pd
from PIL import Image
from scipy.ndimage import gaussian_filter
from scipy.sparse import coo_array
from scipy.sparse.csgraph import connected_components

from mask_lib.base import files, labels
from mask_lib.data import photos
from mask_lib.data.hashes import KINDS, Hashes, grey_photo, hexed, near

# Bits of 64 that a copy may differ in: the most that a crop of 2 % off each edge cost of hundreds of painted
# and real faces. By ahash most of what is as near is no copy; the pixels tell.
DISTANCES = {"ahash": 10, "phash": 14}
PAIR_COLUMNS = ["row", "other", *KINDS, "residual"]
DUPLICATE_COLUMNS = ["hash", "path", "person", "label", "set", "distance"]
LEAK_COLUMNS = ["ImageID", "path", "label", "distance"]
PAIRS_AT_ONCE = 256  # laid on each other in one go


def find(
    photo_table: pd.DataFrame,
    data_dir: str | os.PathLike[str],
    hashes: Hashes,
    distances: Mapping[str, int] = DISTANCES,
    confirm: bool = True,
    workers: int | None = None,
) -> pd.DataFrame:
    """All pairs of copies among the rows of the photo table, columns `PAIR_COLUMNS`.

    `row` < `other` are positions in the table, `ahash` and `phash` how many bits the hashes differ in,
    `residual` what the pixels differ in once one photo is laid on the other (grey levels). `distances`
    gives for each kind of hash the bits in which candidates may differ; 0 takes equal hashes only.
    Without `confirm` the pixels are not asked, and a distance above 0 floods: `residual` is empty.
    Photos of one colour are nobody's copies. Raises OSError that names an unreadable photo,
    ValueError for hashes of another table and distances that are none.
    """
    check(photo_table, hashes, distances)
    rows, others = candidates(hashes, distances, confirm)
    bits = {kind: bits_apart(getattr(hashes, kind), rows, others) for kind in KINDS}
    pairs = pd.DataFrame({"row": rows, "other": others, **bits, "residual": np.nan})
    return confirmed(pairs, photos.files_of(data_dir, photo_table), workers) if confirm else pairs


def check(photo_table: pd.DataFrame, hashes: Hashes, distances: Mapping[str, int]) -> None:
    """Raise ValueError for arguments of `find` that do not fit."""
    if len(hashes.ahash) != len(photo_table):
        raise ValueError(f"{len(hashes.ahash)} hashes for {len(photo_table)} photos: open them for this photo table")
    if set(distances) - set(KINDS) or not distances:
        raise ValueError(f"distances for {sorted(distances)}: give them for {' or '.join(KINDS)} or both")
    for kind, distance in distances.items():
        if not 0 <= distance <= 64:
            raise ValueError(f"{kind} distance = {distance}: it must lie between 0 and 64 bits")


def candidates(hashes: Hashes, distances: Mapping[str, int], alike: bool) -> tuple[np.ndarray, np.ndarray]:
    """(K,) int64 rows and others, row below other, near by one of the hashes and, if asked, at first sight alike."""
    shown = np.flatnonzero(~hashes.is_featureless)
    small = softened(hashes.small[shown])
    found = [np.zeros((2, 0), np.int64)]
    for kind, distance in distances.items():
        for rows, others in near(getattr(hashes, kind)[shown], distance):
            kept = is_alike(small, rows, others) if alike else slice(None)
            found.append(shown[np.stack([rows[kept], others[kept]])])
    rows, others = np.unique(np.concatenate(found, axis=1), axis=1)
    return rows, others


def bits_apart(values: np.ndarray, rows: np.ndarray, others: np.ndarray) -> np.ndarray:
    """(K,) int64 bits in which (N,) uint64 hashes differ."""
    return np.bitwise_count(values[rows] ^ values[others]).astype(np.int64)


def confirmed(pairs: pd.DataFrame, paths: list[Path], workers: int | None = None) -> pd.DataFrame:
    """Those of the pairs whose pixels are one photo's, with their `residual`."""
    kept = [pairs[:0]]
    with files.progress(total=len(pairs), what="comparing photos", unit="pair") as line:
        for start in range(0, len(pairs), PAIRS_AT_ONCE):
            some = pairs[start : start + PAIRS_AT_ONCE]
            needed, places = np.unique(some[["row", "other"]].to_numpy(), return_inverse=True)
            pictures = read_grey([paths[row] for row in needed], workers)
            first, second = places.reshape(-1, 2).T
            figures = residuals(pictures[first], pictures[second])
            kept.append(some.assign(residual=figures["residual"])[is_copy(figures)])
            line.update(len(some))
    return pd.concat(kept[1:] or kept, ignore_index=True)


def duplicates(
    photo_table: pd.DataFrame, hashes: Hashes, pairs: pd.DataFrame, kind: str, distance: int | None = None
) -> pd.DataFrame:
    """Groups of copies by one kind of hash, a row a photo, columns `DUPLICATE_COLUMNS`.

    pairs: as `find` gives them; those at most `distance` bits apart (default: `DISTANCES`) join their
    photos, and what hangs together is a group. `hash` is that of the group's representative, the photo
    nearest to all others, 16 hex digits and no other group's; `distance` counts the bits to it; `set`
    is train, eval or external, and `label` empty in eval. The representative comes first.
    """
    group_of = groups(len(photo_table), within(pairs, kind, distance))
    values, taken = getattr(hashes, kind), set()
    order, names, bits = [], [], []
    for rows in group_of.groupby(group_of).groups.values():
        representative, apart = nearest_to_all(values[rows])
        sequence = np.lexsort((rows, apart, np.arange(len(rows)) != representative))
        order += rows[sequence].tolist()
        bits += apart[sequence].tolist()
        names += [free_name(int(values[rows[representative]]), taken)] * len(rows)
    members = photo_table.iloc[order].rename(columns={"split": "set"}).reset_index(drop=True)
    members = members.assign(hash=pd.Series(hexed(names), dtype="str"), distance=pd.Series(bits, dtype="int64"))
    return members[DUPLICATE_COLUMNS]


def within(pairs: pd.DataFrame, kind: str, distance: int | None) -> pd.DataFrame:
    """The pairs whose hashes of one kind are at most `distance` bits apart, by default those of `DISTANCES`."""
    return pairs[pairs[kind] <= (DISTANCES[kind] if distance is None else distance)]


def groups(count: int, pairs: pd.DataFrame) -> pd.Series:
    """The group of each photo that is in a pair: index its row, value a number."""
    ends = pairs["row"].to_numpy(), pairs["other"].to_numpy()
    joined = coo_array((np.ones(len(pairs), bool), ends), shape=(count, count))
    _, number = connected_components(joined, directed=False)
    return pd.Series(number).loc[np.unique(np.concatenate(ends))]


def nearest_to_all(values: np.ndarray) -> tuple[int, np.ndarray]:
    """Of (K,) uint64 hashes the place of the one nearest to all others, and (K,) bits to it."""
    # One row at a time: a group may be large.
    sums = [int(np.bitwise_count(values ^ value).sum(dtype=np.int64)) for value in values]
    best = int(np.argmin(sums))
    return best, np.bitwise_count(values ^ values[best]).astype(np.int64)


def free_name(value: int, taken: set[int]) -> int:
    """The hash, or the next number that names no group yet: different photos can share a hash."""
    while value in taken:
        value = (value + 1) % 2**64
    taken.add(value)
    return value


def leaks(photo_table: pd.DataFrame, pairs: pd.DataFrame, kind: str, distance: int | None = None) -> pd.DataFrame:
    """Evaluation photos that are copies of training photos, columns `LEAK_COLUMNS`, by ImageID, the best match first.

    pairs: as `find` gives them; those at most `distance` bits apart by this kind of hash (default:
    `DISTANCES`). Every training photo that an evaluation photo is a copy of has a row: each is confirmed
    by its own pixels, and where they disagree on the label, the reader should see it. `path` and `label`
    are the training photo's.
    """
    pairs = within(pairs, kind, distance)
    is_eval = (photo_table["split"] == "eval").to_numpy()
    crossing = pairs[is_eval[pairs["row"]] != is_eval[pairs["other"]]]
    swapped = is_eval[crossing["row"]]
    judged = photo_table["path"].iloc[np.where(swapped, crossing["row"], crossing["other"])].to_numpy()
    known = photo_table.iloc[np.where(swapped, crossing["other"], crossing["row"])]
    found = crossing.assign(
        ImageID=judged, path=known["path"].to_numpy(), label=known["label"].array, distance=crossing[kind]
    )
    return found.sort_values(["ImageID", "distance", "residual", "path"], ignore_index=True)[LEAK_COLUMNS]


def read_duplicates(output_dir: str | os.PathLike[str], kind: str) -> pd.DataFrame:
    """A table that `write` left, in the dtypes of `duplicates`. Raises FileNotFoundError that says what to run."""
    path = Path(output_dir) / "tables" / f"duplicates.{kind}.csv"
    if not path.exists():
        raise FileNotFoundError(f"no {files.shown_path(path)}: run 00_prepare_data first")
    # As text: a hash of digits alone, or with one e, would become a number.
    table = pd.read_csv(path, dtype="str", keep_default_na=False)
    return table.assign(label=pd.to_numeric(table["label"]).astype("Int64"), distance=table["distance"].astype("int64"))


def conflicts(duplicate_table: pd.DataFrame) -> pd.DataFrame:
    """Those groups of a duplicate table whose photos carry different labels; photos without one are left out."""
    labeled = duplicate_table.dropna(subset="label")
    return labeled[labeled.groupby("hash")["label"].transform("nunique") > 1].reset_index(drop=True)


def unite(photo_table: pd.DataFrame, *duplicate_tables: pd.DataFrame) -> pd.Series:
    """For each person (index) of the labeled photos, external ones too, their group, named after its first member.

    People are in one group when any of their photos are copies of each other by any of the duplicate
    tables (columns hash, person), or when a chain of such pairs joins them.
    """
    labeled = photo_table if "split" not in photo_table else photo_table[photo_table["split"] != "eval"]
    people = np.unique(labeled["person"].to_numpy(dtype="object"))
    place = pd.Series(np.arange(len(people)), index=people)
    chains = [np.zeros((2, 0), np.int64)]
    for table in duplicate_tables:
        members = table[table["person"].isin(place.index)].sort_values("hash", kind="stable")
        is_same = members["hash"].to_numpy()[1:] == members["hash"].to_numpy()[:-1]
        rows = place[members["person"]].to_numpy()
        chains.append(np.stack([rows[:-1][is_same], rows[1:][is_same]]))
    ends = np.concatenate(chains, axis=1)
    joined = coo_array((np.ones(ends.shape[1], bool), tuple(ends)), shape=(len(people), len(people)))
    _, number = connected_components(joined, directed=False)
    first = pd.Series(people).groupby(number).transform("first")
    return pd.Series(first.to_numpy(), index=pd.Index(people, name="person"), name="group")


def captions(first: pd.DataFrame, second: pd.DataFrame) -> list[str]:
    """For each pair of rows of two photo tables, where both come from and what their labels say, two lines."""
    sides = (
        [
            f"{row.split}, {labels.describe(row.label)}" if pd.notna(row.label) else f"{row.split}"
            for row in table.itertuples()
        ]
        for table in (first, second)
    )
    return ["\n".join(pair) for pair in zip(*sides, strict=True)]


def side_by_side(
    data_dir: str | os.PathLike[str], first: pd.DataFrame, second: pd.DataFrame, side: int = 192
) -> list[np.ndarray]:
    """A picture of each row of one photo table beside the same row of another, (H, W, 3) uint8, for galleries.

    The tables have the columns path and split.
    """
    found = []
    for left, right in zip(*(photos.thumbnails(data_dir, table, side) for table in (first, second)), strict=True):
        picture = np.full((max(len(left), len(right)), left.shape[1] + 4 + right.shape[1], 3), 255, np.uint8)
        picture[: len(left), : left.shape[1]] = left
        picture[: len(right), left.shape[1] + 4 :] = right
        found.append(picture)
    return found


def write(
    photo_table: pd.DataFrame,
    hashes: Hashes,
    pairs: pd.DataFrame,
    output_dir: str | os.PathLike[str],
    distances: Mapping[str, int] = DISTANCES,
) -> dict[str, pd.DataFrame]:
    """Write both tables of both kinds of hash under `<output_dir>/tables`; gives them by name.

    The names are `duplicates.ahash`, `duplicates.phash`, `data_leak.ahash` and `data_leak.phash`.
    """
    tables = {}
    for kind in KINDS:
        distance = distances.get(kind, -1)  # no pair is that near: a kind that was not asked for has no rows
        tables[f"duplicates.{kind}"] = duplicates(photo_table, hashes, pairs, kind, distance)
        tables[f"data_leak.{kind}"] = leaks(photo_table, pairs, kind, distance)
    for name, table in tables.items():
        files.write_csv(table, Path(output_dir) / "tables" / f"{name}.csv")
    return tables


SIDE = 64  # pixels, of the photos that are laid on each other
MARGIN = 3  # pixels at each edge that are not compared: a crop of one photo shows nothing there
BLUR = 1.0  # pixels, of a Gaussian; finer detail is what an encoder takes away
STEPS = 5  # of the alignment; the third hardly moves a copy any more
FARTHEST = 0.06  # share of a side that the alignment may move an edge by
MOST_UNLIKE = 2.5  # grey levels left in 16 x 16 pixels to be looked at more closely; crops of 2 % leave up to 1.5
# The most that a copy shows. Crops of 2 % off each edge, halved and written with quality 60, leave a residual
# of up to 1.4; the most alike photos of one person that are none leave 2.0 (painted, and caught by the next
# lines) and 2.6 (real).
MOST_RESIDUAL = 2.0  # grey levels
MOST_RESIDUAL_SHARE = 0.08  # of the photo's own contrast, for dull photos
MOST_CROPPED = 0.03  # share of a side, off each edge
MOST_BRIGHTER = 1.5  # grey levels; encoders keep the mean to a few tenths
MOST_CONTRAST = 0.06  # share; the blur of a resize takes up to 0.04 away


def places(side: int) -> np.ndarray:
    """(side,) the middle of each pixel, -1 … 1 over the side."""
    return (np.arange(side) - (side - 1) / 2) / (side / 2)


def without_margin(pictures: np.ndarray, margin: int) -> np.ndarray:
    """(N, H, W) without the margin, flat: (N, K)."""
    return pictures[:, margin:-margin, margin:-margin].reshape(len(pictures), -1)


def softened(pictures: np.ndarray) -> np.ndarray:
    """(N, H, W) uint8 as float32, each blurred a little."""
    return gaussian_filter(pictures.astype(np.float32), (0, BLUR, BLUR), mode="nearest")


def movements(pictures: np.ndarray) -> np.ndarray:
    """(N, 4, H, W): how (N, H, W) change under a shift and a stretch along x, then along y."""
    side = pictures.shape[1]
    along_y, along_x = (one * (side / 2) for one in np.gradient(pictures, axis=(1, 2)))
    place = places(side).astype(pictures.dtype)
    return np.stack([along_x, along_x * place, along_y, along_y * place[:, None]], axis=1)


def explained(small: np.ndarray) -> np.ndarray:
    """(N, 196, 6) float32: an orthonormal basis of what small moves and changes of light make of a photo.

    small: (N, 16, 16) float32, softened. The idea is the tangent distance of Simard, LeCun and Denker, 1993.
    """
    light = np.stack([np.ones_like(small), small], axis=1)
    parts = np.concatenate([light, movements(small)], axis=1)  # (N, 6, 16, 16)
    flat = parts[:, :, 1:-1, 1:-1].reshape(len(small), 6, -1)
    return np.linalg.qr(flat.transpose(0, 2, 1))[0].astype(np.float32)


def is_alike(small: np.ndarray, rows: np.ndarray, others: np.ndarray) -> np.ndarray:
    """(K,) bool: pairs that may be copies by their (N, 16, 16) float32 softened pictures; quick, misses none.

    `rows` must be sorted; only theirs of the bases are held in memory.
    """
    if not len(rows):
        return np.zeros(0, bool)
    present, starts = np.unique(rows, return_index=True)
    found, flat = [], without_margin(small, 1)
    for basis, partners in zip(explained(small[present]), np.split(others, starts[1:]), strict=True):
        there = flat[partners]  # (k, 196)
        left = (there**2).sum(axis=1) - ((there @ basis) ** 2).sum(axis=1)
        found.append(left <= MOST_UNLIKE**2 * there.shape[1])
    return np.concatenate(found)


def sampling(shift: np.ndarray, stretch: np.ndarray) -> np.ndarray:
    """(N, 64, 64) float32 weights of the cubic resampling (Keys, 1981) of one axis, moved by (N,) and (N,)."""
    wanted = places(SIDE)[None] * (1 + stretch[:, None]) + shift[:, None]  # (N, 64)
    pixel = np.clip(wanted * (SIDE / 2) + (SIDE - 1) / 2, 0, SIDE - 1)
    away = np.abs(pixel[:, :, None] - np.arange(SIDE)).astype(np.float32)
    inner, outer = (1.5 * away - 2.5) * away**2 + 1, ((2.5 - 0.5 * away) * away - 4) * away + 2
    weights = np.where(away < 1, inner, np.where(away < 2, outer, 0))
    return weights / weights.sum(axis=2, keepdims=True)  # at the border some neighbours are missing


def residuals(first: np.ndarray, second: np.ndarray) -> dict[str, np.ndarray]:
    """What two softened photos, (N, 64, 64) float32 each, differ in once the first is laid on the second.

    Shift and stretch along each axis are found by Gauss-Newton steps, as Lucas and Kanade, 1981, do.
    Gives (N,) each: `residual` (root mean square, grey levels), `contrast` (the standard deviation),
    `cropped` (the farthest that an edge moved, a share of the side), `brighter` (difference of the
    means, grey levels) and `gain` (of contrast).
    """
    target = without_margin(second, MARGIN)
    moved = np.zeros((len(first), 4))
    light = np.stack([target, np.ones_like(target)], axis=1)
    for _ in range(STEPS):
        laid = lay(first, moved)
        wrong = without_margin(laid, MARGIN) - target
        slopes = movements(laid)[:, :, MARGIN:-MARGIN, MARGIN:-MARGIN].reshape(len(first), 4, -1)
        causes = np.concatenate([slopes, light], axis=1)  # (N, 6, K)
        normal = causes @ causes.transpose(0, 2, 1) + 1e-3 * np.eye(6)
        step = np.linalg.solve(normal, causes @ wrong[:, :, None])[:, :4, 0]
        moved = np.clip(moved - step, -FARTHEST, FARTHEST)
    return compared(without_margin(lay(first, moved), MARGIN), target) | {"cropped": farthest_edge(moved)}


def lay(pictures: np.ndarray, moved: np.ndarray) -> np.ndarray:
    """(N, 64, 64) pictures sampled anew, moved by (N, 4): shift and stretch along x, then along y."""
    across, down = sampling(moved[:, 0], moved[:, 1]), sampling(moved[:, 2], moved[:, 3])
    return down @ pictures @ across.transpose(0, 2, 1)


def farthest_edge(moved: np.ndarray) -> np.ndarray:
    """(N,) how far the edge that moved farthest did, a share of the side."""
    shift, stretch = np.abs(moved[:, ::2]), np.abs(moved[:, 1::2])
    return (shift + stretch).max(axis=1) / 2  # a place of 2 is a whole side


def compared(laid: np.ndarray, target: np.ndarray) -> dict[str, np.ndarray]:
    """The figures of `residuals` for flat photos (N, K) that lie on each other."""
    means = laid.mean(axis=1), target.mean(axis=1)
    laid, target = laid - means[0][:, None], target - means[1][:, None]
    gain = (laid * target).sum(axis=1) / np.maximum((target**2).sum(axis=1), 1e-6)
    wrong = laid - gain[:, None] * target
    return {
        "residual": np.sqrt((wrong**2).mean(axis=1)),
        "contrast": np.sqrt((target**2).mean(axis=1)),
        "brighter": np.abs(means[0] - means[1]),
        "gain": gain,
    }


def is_copy(figures: dict[str, np.ndarray]) -> np.ndarray:
    """(N,) bool: whether pairs with these `residuals` are one photo."""
    return (
        (figures["residual"] <= MOST_RESIDUAL)
        & (figures["residual"] <= MOST_RESIDUAL_SHARE * figures["contrast"])
        & (figures["cropped"] <= MOST_CROPPED)
        & (figures["brighter"] <= MOST_BRIGHTER)
        & (np.abs(figures["gain"] - 1) <= MOST_CONTRAST)
    )


def read_grey(paths: Sequence[Path], workers: int | None = None) -> np.ndarray:
    """(N, 64, 64) float32: photo files in grey, softened."""
    with ThreadPoolExecutor(workers) as pool:
        return softened(np.stack(list(pool.map(read_grey_one, paths))))


def read_grey_one(path: Path) -> np.ndarray:
    """(64, 64) uint8: one photo file in grey, stretched to a square."""
    return np.asarray(grey_photo(path, SIDE).resize((SIDE, SIDE), Image.Resampling.BILINEAR))

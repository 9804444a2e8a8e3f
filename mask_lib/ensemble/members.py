"""From probability files to a submission.

What the members of an ensemble said of labeled photos whose people they were not trained on.
"""

import dataclasses
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pandas as pd

from mask_lib.base import files, labels, scores
from mask_lib.data import clean_labels, splits
from mask_lib.training import run_folder
from mask_lib.training.run_folder import trained_folds

KEYS = {"test": "ImageID", "test_val": "path"}
COLUMNS = list(labels.PROBABILITY_COLUMNS)


def read_probabilities(path: Path, key: str) -> pd.DataFrame:
    """A checked probability file, its `key` column (ImageID or path) as text.

    Raises FileNotFoundError or ValueError that names the file and what is wrong in it.
    """
    try:
        table = pd.read_csv(path, dtype={key: str, **dict.fromkeys(COLUMNS, "float64")})
        scores.check_probabilities(table, key)
    except FileNotFoundError:
        raise FileNotFoundError(f"no {files.shown_path(path)}: run 06_inference for that run first") from None
    except ValueError as error:
        raise ValueError(f"{files.shown_path(path)}: {error}") from error
    return table


@dataclasses.dataclass(frozen=True)
class Members:
    """What is averaged: one table a member for each set, and the weights."""

    names: list[str]
    weights: list[float]
    tables: dict[str, list[pd.DataFrame]]  # test, with ImageID; test_val, with path and label
    own: list[bool] = dataclasses.field(default_factory=list)  # whether its files are this experiment's

    def mean(self, which: str) -> pd.DataFrame:
        """The weighted mean of the members' tables of a set, test or test_val."""
        return weighted_mean(self.tables[which], self.weights, KEYS[which])


def read_members(
    output_dir: Path,
    test_filenames: Sequence[str],
    test_val_filenames: Sequence[str],
    weights: Sequence[float],
    ids: Sequence[str] | None = None,
    labels_of: pd.Series | None = None,
) -> Members:
    """The members of an ensemble, their files checked.

    Empty lists stand for every file under `inferences/`, and for equal weights. Files that are not called
    `<run>.test.csv` and `<run>.test_val.csv` are paired by their places, see `member_names`. `ids` are those of
    info.csv: with them a test file must hold the same, in the same order, as 06_inference writes it; a
    file in another order was edited since. `labels_of` are today's labels by path: runs may have been
    trained before or without cleaning, and are judged alike; held-out photos that are not among them are
    left out. Raises ValueError that names the file, also one whose run has other weights by now (see
    `run_folder.refuse_stale_prediction`), or if the lists differ in length or in their runs' order,
    FileNotFoundError if there is nothing.
    """
    given = {"test": [*test_filenames], "test_val": [*test_val_filenames]}
    if not any(given.values()):
        given = _every_prediction(output_dir)
    runs = member_names(given)
    if not runs:
        raise FileNotFoundError(f"no {files.shown_path(output_dir)}/inferences/*.test.csv: run 06_inference first")
    if len(set(runs)) < len(runs) or "ensemble" in runs:
        raise ValueError(f"each member needs a name of its own, other than ensemble; these are {runs}")
    tables = {
        which: [read_probabilities(files.project_path(name), KEYS[which]) for name in names]
        for which, names in given.items()
    }
    for name in (*given["test"], *given["test_val"]):
        run_folder.refuse_stale_prediction(files.project_path(name))
    if labels_of is not None:
        tables["test_val"] = [with_labels(table, labels_of) for table in tables["test_val"]]
    if ids is not None:
        _check_orders(given["test"], tables["test"], "ImageID", ids, "info.csv")
    first, source = tables["test_val"][0], given["test_val"][0]
    _check_orders(given["test_val"], tables["test_val"], "path", first["path"], source)
    weights = [float(weight) for weight in weights] or [1.0] * len(runs)
    home = files.project_path(Path(output_dir) / "inferences").resolve()
    pairs = zip(given["test"], given["test_val"], strict=True)
    own = [_is_of_run(pair) and all(_folder_of(name) == home for name in pair) for pair in pairs]
    return Members(runs, weights, tables, own)


def with_labels(table: pd.DataFrame, labels_of: pd.Series) -> pd.DataFrame:
    """The rows of `table` whose path has a label in `labels_of` (index path), with that label."""
    kept = table[table["path"].isin(labels_of.index)].reset_index(drop=True)
    return kept.assign(label=labels_of[kept["path"]].to_numpy("int64"))


def _every_prediction(output_dir: Path) -> dict[str, list[str]]:
    """The files of each run under `inferences/`, by set."""
    found = sorted((Path(output_dir) / "inferences").glob("*.test.csv"))
    held_out = [path.with_name(f"{_run_of(path, 'test')}.test_val.csv") for path in found]
    return {"test": [str(path) for path in found], "test_val": [str(path) for path in held_out]}


def _check_orders(
    names: Sequence[str], tables: Sequence[pd.DataFrame], key: str, wanted: Sequence[str], source: str
) -> None:
    """Raise ValueError that names the first file that does not hold the `wanted` keys of `source` in their order."""
    for name, table in zip(names, tables, strict=True):
        try:
            same_order(table[key], wanted, Path(source).name)
        except ValueError as error:
            raise ValueError(f"{files.shown_path(name)}: {error}; run 06_inference for that run again") from error


def same_order(found: Sequence[str], wanted: Sequence[str], source: str) -> None:
    """Raise ValueError that names the first culprit unless keys are the `wanted` ones of `source`, in their order."""
    for what, some in (("lacks", set(wanted) - set(found)), ("holds what is not there:", set(found) - set(wanted))):
        if some:
            raise ValueError(f"compared with {source} it {what} {len(some)} photos, such as {sorted(some)[:3]}")
    for row, (ours, theirs) in enumerate(zip(found, wanted, strict=True)):
        if ours != theirs:
            raise ValueError(f"row {row} is {ours}, but {source} has {theirs} there")


def member_names(given: dict[str, list[str]]) -> list[str]:
    """A name a member, from its files' names by set: its run's, or that of a test file that bears none.

    `x/resnet.csv` is called resnet; where several are called so, `x/resnet`, `y/resnet`. Raises ValueError
    for lists of different lengths, and for files at one place that bear the names of different runs.
    """
    runs = {which: [_run_of(Path(name), which) for name in names] for which, names in given.items()}
    if len(given["test"]) != len(given["test_val"]):
        raise ValueError(_unlike(given))
    for own, held_out in zip(runs["test"], runs["test_val"], strict=True):
        if own and held_out and own != held_out:
            raise ValueError(_unlike(runs))
    first = [run or Path(name).stem for name, run in zip(given["test"], runs["test"], strict=True)]
    with_folder = [f"{_folder_of(name).name}/{short}" for name, short in zip(given["test"], first, strict=True)]
    return [long if first.count(short) > 1 else short for short, long in zip(first, with_folder, strict=True)]


def _unlike(names: dict[str, list[str]]) -> str:
    return f"test_filenames and test_val_filenames must name the same runs in the same order, not {names}"


def _run_of(path: Path, which: str) -> str:
    """The run in the name of a file that 06_inference wrote for a set, test or test_val; "" for other names."""
    return path.name.removesuffix(f".{which}.csv") if path.name.endswith(f".{which}.csv") else ""


def _is_of_run(pair: Sequence[str]) -> bool:
    """Whether a test and a test_val file bear a run's name: another file's stem may be that of a run by chance."""
    return all(_run_of(Path(name), which) for name, which in zip(pair, KEYS, strict=True))


def _folder_of(name: str) -> Path:
    return files.project_path(name).resolve().parent


def with_person(test_val: pd.DataFrame, split: pd.DataFrame) -> pd.DataFrame:
    """`test_val` with the column `person` from a split's table. Raises ValueError for a photo it lacks."""
    person = test_val["path"].map(split.set_index("path")["person"])
    if person.isna().any():
        raise ValueError(f"not in the split: {list(test_val['path'][person.isna()][:3])}; run 06_inference again")
    return test_val.assign(person=person)


def member_intervals(
    members: Members, whole: pd.DataFrame, voted: pd.DataFrame | None = None
) -> dict[str, pd.DataFrame]:
    """Scores on test_val of each member and of the ensemble; whole: its table, with `person`; voted: after a vote."""
    person = whole.set_index("path")["person"]
    named = dict(zip(members.names, members.tables["test_val"], strict=True))
    if len(named) > 1:
        named["ensemble"] = whole
    if voted is not None:
        named["after the vote"] = voted
    return {
        name: scores.bootstrap(*scores.from_probabilities(table), person[table["path"]].to_numpy())
        for name, table in named.items()
    }


def weighted_mean(tables: Sequence[pd.DataFrame], weights: Sequence[float], key: str) -> pd.DataFrame:
    """One table whose probabilities are the weighted mean of the others'; rows as in the first.

    Raises ValueError unless all tables hold the same keys, in any order, and each has a weight of 0
    or above, one of them above 0.
    """
    check_weights(weights, len(tables))
    first = tables[0]
    total = np.zeros((len(first), len(COLUMNS)))
    for table, weight in zip(tables, weights, strict=True):
        total += weight * _in_order_of(first, table, key)[COLUMNS].to_numpy()
    return first.assign(**dict(zip(COLUMNS, (total / sum(weights)).T, strict=True)))


def check_weights(weights: Sequence[float], members: int) -> None:
    """Raise ValueError unless there is one weight of 0 or above for each member, one of them above 0."""
    if members != len(weights) or not members:
        raise ValueError(f"{members} files but {len(weights)} weights: give one weight a file")
    if min(weights) < 0 or sum(weights) <= 0 or not np.isfinite(weights).all():
        raise ValueError(f"weights = {list(weights)}: each must be 0 or above, one of them above 0")


def _in_order_of(first: pd.DataFrame, table: pd.DataFrame, key: str) -> pd.DataFrame:
    different = set(first[key]) ^ set(table[key])
    if different:
        raise ValueError(f"the files hold different photos; {len(different)} are in one only: {sorted(different)[:3]}")
    if (
        "label" in first
        and not (table.set_index(key)["label"][first[key]].to_numpy() == first["label"].to_numpy()).all()
    ):
        raise ValueError("the files give different labels for the same photos: they come from different tables")
    return table.set_index(key).loc[first[key]]


def make_submission(probabilities: pd.DataFrame, ids: Sequence[str]) -> pd.DataFrame:
    """Columns `ImageID, ans` for `ids`, info.csv's; ans is the likeliest class. Checked.

    Raises ValueError unless the probabilities are sound and stand for those ids in their order.
    """
    scores.check_probabilities(probabilities, "ImageID")
    same_order(probabilities["ImageID"], ids, "info.csv")
    answers = probabilities[COLUMNS].to_numpy().argmax(axis=1)
    found = pd.DataFrame({"ImageID": list(ids), "ans": answers})
    check_submission(found, ids)
    return found


def check_submission(found: pd.DataFrame, ids: Sequence[str]) -> None:
    """Raise ValueError unless `found` holds info.csv's `ids`, in order, once each, with classes 0-17."""
    if list(found.columns) != ["ImageID", "ans"]:
        raise ValueError(f"a submission has the columns ImageID, ans; this one has {', '.join(found.columns)}")
    doubled = found["ImageID"][found["ImageID"].duplicated()]
    if len(doubled):
        raise ValueError(f"{len(doubled)} ids stand twice, such as {list(doubled[:3])}")
    if len(found) != len(ids):
        raise ValueError(f"{len(found)} rows, but info.csv has {len(ids)}")
    for row, (ours, theirs) in enumerate(zip(found["ImageID"], ids, strict=True)):
        if ours != theirs:
            raise ValueError(f"row {row} answers {ours}, but info.csv has {theirs} there")
    if not pd.api.types.is_integer_dtype(found["ans"]) or not found["ans"].between(0, labels.CLASS_COUNT - 1).all():
        raise ValueError("every ans must be a whole number from 0 to 17")


@dataclasses.dataclass(frozen=True)
class OutOfFold:
    """The members' probabilities of the same photos, and what is known of these."""

    names: list[str]
    photos: pd.DataFrame  # path, person, label
    probabilities: np.ndarray  # (M, N, 18) float64, members in the order of `names`, photos in that of `photos`
    fold_count: int = 1  # networks of the member with the fewest, whose mean answers the evaluation photos

    @property
    def truth(self) -> np.ndarray:
        """(N,) int64 labels."""
        return self.photos["label"].to_numpy(dtype=np.int64)

    @property
    def person(self) -> np.ndarray:
        """(N,) names of people."""
        return self.photos["person"].to_numpy()


def read_out_of_fold(output_dir: Path, names: Sequence[str]) -> OutOfFold:
    """The out-of-fold tables `runs/<run>/fold<k>/oof.csv` of the finished runs `names`, joined and aligned.

    Labels are today's cleaned ones, whatever a run was trained on, and photos dropped since are left
    out: all members are judged alike. `person` is the group of people who share copies.
    Raises FileNotFoundError for a run that is not finished,
    ValueError that names a run whose file is faulty, or whose photos differ from what most members have.
    """
    split = next(iter(clean_labels.read_clean_splits(output_dir).values()))
    given = next(iter(splits.read_splits(Path(output_dir)).values()))
    dropped = set(given["path"]) - set(split["path"])
    tables = {name: _joined_folds(Path(output_dir) / "runs" / name).set_index("path") for name in names}
    tables = {name: table[~table.index.isin(dropped)] for name, table in tables.items()}
    usual = _usual_photos(tables)
    photos = split[split["path"].isin(usual)][["path", "person", "label"]].reset_index(drop=True)
    if len(photos) < len(usual):
        strange = sorted(usual - set(photos["path"]))[:3]
        raise ValueError(f"runs {list(names)} hold photos that are not in the split, such as {strange}: train again")
    stack = np.stack([table.loc[photos["path"], COLUMNS].to_numpy(dtype=np.float64) for table in tables.values()])
    groups = splits.read_groups(Path(output_dir))
    if groups is not None:
        photos = photos.assign(person=photos["person"].map(groups).fillna(photos["person"]))
    fold_count = min(len(trained_folds(Path(output_dir) / "runs" / name)) for name in names)
    return OutOfFold(list(names), photos, stack, fold_count)


def is_finished(output_dir: Path, run: str) -> bool:
    """Whether a run of this experiment has come to its end."""
    return (Path(output_dir) / "runs" / run / "scores.json").exists()


def _joined_folds(folder: Path) -> pd.DataFrame:
    """A finished run's out-of-fold table over its folds: path, label, p00 … p17. Each fold's file is checked."""
    if not (folder / "scores.json").exists():
        raise FileNotFoundError(f"{files.shown_path(folder)} holds no finished run: run 03_one_model for it first")
    paths = [folder / f"fold{fold}" / "oof.csv" for fold in trained_folds(folder)]
    missing = [files.shown_path(path) for path in paths if not path.exists()]
    if missing:
        raise FileNotFoundError(f"no {', '.join(missing)}: run 03_one_model for {folder.name} again")
    tables = [read_probabilities(path, "path") for path in paths]
    joined = pd.concat(tables, ignore_index=True)
    doubled = joined["path"][joined["path"].duplicated()]
    if len(doubled):
        raise ValueError(f"{files.shown_path(folder)}: photos validated in two folds, such as {list(doubled[:3])}")
    return joined


def _usual_photos(tables: dict[str, pd.DataFrame]) -> set[str]:
    """The photos that all members hold. Raises ValueError that names who differs from most of them."""
    if not tables:
        raise ValueError("an ensemble needs at least one member")
    sets = {name: frozenset(table.index) for name, table in tables.items()}
    usual = max(sets.values(), key=list(sets.values()).count)
    for name, held in sets.items():
        if held != usual:
            raise ValueError(
                f"run {name} was validated on other photos than the {len(usual):,} of most members: it lacks "
                f"{len(usual - held)} and has {len(held - usual)} more, such as {sorted(usual ^ held)[:3]}; "
                "leave it out, or train it on the same photos and folds"
            )
    return set(usual)

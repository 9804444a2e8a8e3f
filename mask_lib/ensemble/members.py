"""The members of an ensemble: their probability files, their out-of-fold tables, and the submission made of them."""

import dataclasses
import itertools
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
import pandas as pd

from mask_lib.base import checks, files, labels, scores
from mask_lib.data.clean_labels import read_clean_splits
from mask_lib.data.splits import group_of, read_groups, read_splits
from mask_lib.training import run_folder

Pair = tuple[Path, Path]  # a member's files of the test and the test_val set


@dataclasses.dataclass(frozen=True)
class Members:
    """What the members say of the evaluation photos, and of people held out from all training."""

    names: list[str]
    tables: dict[str, list[pd.DataFrame]]  # test: ImageID; test_val: path, label, person; and p00 …; rows in one order
    own: list[bool]  # whether a member is a run of this experiment

    def stack(self, which: str) -> np.ndarray:
        """(M, N, C) float64 probabilities of a set, test or test_val."""
        return np.stack([probabilities_of(table) for table in self.tables[which]])


@dataclasses.dataclass(frozen=True)
class OutOfFold:
    """The members' probabilities of the same photos, each from the network that was not trained on the person."""

    names: list[str]
    photos: pd.DataFrame  # path, person, label
    probabilities: np.ndarray  # (M, N, C) float64, members in the order of `names`, photos in that of `photos`
    fold_count: int = 1  # networks of the member with the fewest, whose mean answers the evaluation photos

    @property
    def truth(self) -> np.ndarray:
        """(N,) int64 labels."""
        return self.photos["label"].to_numpy(dtype=np.int64)

    @property
    def person(self) -> np.ndarray:
        """(N,) names of people."""
        return self.photos["person"].to_numpy()


def probabilities_of(table: pd.DataFrame) -> np.ndarray:
    """(N, C) float64: the columns p00 … of a table."""
    return table[labels.probability_columns()].to_numpy(dtype=np.float64)


def with_probabilities(table: pd.DataFrame, probabilities: np.ndarray) -> pd.DataFrame:
    """The table with (N, C) probabilities as its columns p00 …, replaced or added."""
    return table.assign(**dict(zip(labels.probability_columns(), probabilities.T, strict=True)))


def read_probabilities(path: Path, key: str) -> pd.DataFrame:
    """A checked probability file, its `key` column (ImageID or path) as text. Errors name the file and the fault."""
    try:
        return scores.read_probabilities(path, key)
    except FileNotFoundError:
        raise FileNotFoundError(f"no {files.shown_path(path)}: run 06_inference for that run first") from None


def read_members(
    output_dir: Path,
    test_filenames: Sequence[str] = (),
    test_val_filenames: Sequence[str] = (),
    ids: Sequence[str] | None = None,
    split: pd.DataFrame | None = None,
) -> Members:
    """The members of an ensemble, their files checked.

    Empty lists mean every file under `inferences/`. The two lists are paired by their places; file names other than
    `<run>.test.csv` and `<run>.test_val.csv` will do. ids: those of info.csv, which a test file must hold in their
    order. split: today's `path, person, label`, which test_val photos take, since runs may have been trained before
    labels were cleaned or after; photos that are not in it any more are left out. Raises FileNotFoundError if there is
    nothing, ValueError that names a faulty file, one whose run has other weights by now (see
    `run_folder.refuse_stale_prediction`), or lists that differ in length or in the order of their runs.
    """
    pairs = _file_pairs(output_dir, test_filenames, test_val_filenames)
    names = member_names(pairs)
    if len(set(names)) < len(names) or "ensemble" in names:
        raise ValueError(f"each member needs a name of its own, other than ensemble; these are {names}")
    for path in itertools.chain(*pairs):
        run_folder.refuse_stale_prediction(path)
    tests, test_vals = zip(*pairs, strict=True)
    tables = {"test": [read_probabilities(path, "ImageID") for path in tests]}
    tables["test_val"] = [read_probabilities(path, "path") for path in test_vals]
    if split is not None:
        tables["test_val"] = [with_labels(table, split) for table in tables["test_val"]]
    wanted, source = (tables["test"][0]["ImageID"], tests[0].name) if ids is None else (ids, "info.csv")
    _check_orders(tests, [table["ImageID"] for table in tables["test"]], wanted, source)
    held_out = [table["path"] for table in tables["test_val"]]
    _check_orders(test_vals, held_out, held_out[0], test_vals[0].name)
    home = files.project_path(Path(output_dir) / "inferences").resolve()
    own = [all(_runs_of(pair)) and {path.resolve().parent for path in pair} == {home} for pair in pairs]
    return Members(names, tables, own)


def _file_pairs(output_dir: Path, test_filenames: Sequence[str], test_val_filenames: Sequence[str]) -> list[Pair]:
    """Each member's files; with two empty lists those of every run under `inferences/`."""
    if not test_filenames and not test_val_filenames:
        folder = Path(output_dir) / "inferences"
        test_filenames = sorted(folder.glob("[!.]*.test.csv"))
        for path in test_filenames:
            checks.safe_name(f"the run of {files.shown_path(path)}", path.name.removesuffix(".test.csv"))
        test_val_filenames = [path.with_suffix("").with_suffix(".test_val.csv") for path in test_filenames]
        if not test_filenames:
            raise FileNotFoundError(f"no {files.shown_path(folder)}/*.test.csv: run 06_inference first")
    tests, test_vals = (list(map(files.project_path, names)) for names in (test_filenames, test_val_filenames))
    pairs = list(zip(tests, test_vals, strict=False))
    differs = any(all(runs) and len(set(runs)) > 1 for runs in map(_runs_of, pairs))
    if len(tests) != len(test_vals) or differs:
        both = [[path.name for path in paths] for paths in (tests, test_vals)]
        raise ValueError(f"test_filenames and test_val_filenames must name the same runs in the same order, not {both}")
    return pairs


def member_names(pairs: Sequence[Pair]) -> list[str]:
    """A name a member: its run's, else its test file's; `resnet` of `x/resnet.csv`, if there are several `x/resnet`."""
    short = [_runs_of(pair)[0] or pair[0].stem for pair in pairs]
    long = [f"{test.parent.name}/{name}" for name, (test, _) in zip(short, pairs, strict=True)]
    return [whole if short.count(name) > 1 else name for name, whole in zip(short, long, strict=True)]


def _runs_of(pair: Pair) -> list[str]:
    """The runs in the names of a pair of files as 06_inference writes them; "" for a file of another name."""
    named = zip(pair, (".test.csv", ".test_val.csv"), strict=True)
    runs = [path.name.removesuffix(end) if path.name.endswith(end) else "" for path, end in named]
    return [run if checks.SAFE_NAME.fullmatch(run) else "" for run in runs]


def with_labels(table: pd.DataFrame, split: pd.DataFrame) -> pd.DataFrame:
    """The rows of `table` (`path`, …) that are in the split (`path, person, label`), with its labels and people."""
    known = split.set_index("path")
    kept = table[table["path"].isin(known.index)].reset_index(drop=True)
    found = known.loc[kept["path"]]
    return kept.assign(label=found["label"].to_numpy("int64"), person=found["person"].to_numpy())


def _check_orders(paths: Sequence[Path], keys: Sequence[pd.Series], wanted: Sequence[str], source: str) -> None:
    """Raise ValueError that names the first file that does not hold the `wanted` keys of `source` in their order."""
    for path, found in zip(paths, keys, strict=True):
        try:
            same_order(found, wanted, source)
        except ValueError as error:
            raise ValueError(f"{files.shown_path(path)}: {error}; run 06_inference for that run again") from error


def same_order(found: Sequence[str], wanted: Sequence[str], source: str) -> None:
    """Raise ValueError that names the first culprit unless `found` are the `wanted` keys of `source`, in order."""
    found, wanted = pd.Series([*found], dtype=object), pd.Series([*wanted], dtype=object)
    faults = {
        "holds several times": found[found.duplicated()],
        "lacks": wanted[~wanted.isin(found)],
        "holds what is not there:": found[~found.isin(wanted)],
    }
    for fault, some in faults.items():
        if len(some):
            raise ValueError(f"compared with {source} it {fault} {len(some)} photos, such as {sorted(some)[:3]}")
    is_other = found.to_numpy() != wanted.to_numpy()
    if is_other.any():
        row = int(is_other.argmax())
        raise ValueError(f"row {row} is {found[row]}, but {source} has {wanted[row]} there")


def read_out_of_fold(output_dir: Path, names: Sequence[str]) -> OutOfFold:
    """The out-of-fold tables of the finished runs `names`, aligned photo by photo.

    Labels are today's cleaned ones, whatever a run was trained on, and photos dropped since are left out: all members
    are scored alike. `person` is the group of people who share copies. Raises FileNotFoundError for a run that is not
    finished, ValueError that names a run whose table is faulty, or whose photos differ from what most members have.
    """
    if not names:
        raise ValueError("an ensemble needs at least one member")
    split, given = (next(iter(read(output_dir).values())) for read in (read_clean_splits, read_splits))
    person_of = dict(zip(given["path"], group_of(given["person"], read_groups(output_dir)), strict=True))
    folders = {name: run_folder.folder_of(output_dir, name) for name in names}
    tables = {name: _joined_folds(folder, person_of, split["path"]) for name, folder in folders.items()}
    photos = split.loc[split["path"].isin(_usual_photos(tables)), ["path", "person", "label"]].reset_index(drop=True)
    photos = photos.assign(person=photos["path"].map(person_of))
    stack = np.stack([probabilities_of(table.loc[photos["path"]]) for table in tables.values()])
    return OutOfFold([*names], photos, stack, min(len(run_folder.trained_folds(one)) for one in folders.values()))


def _joined_folds(folder: Path, person_of: Mapping[str, str], kept: pd.Series) -> pd.DataFrame:
    """A finished run's out-of-fold table, indexed by path, of the photos that are `kept`."""
    try:
        table = run_folder.out_of_fold(folder, person_of)
    except ValueError as error:
        raise ValueError(f"run {folder.name}: {error}") from error
    return table[table["path"].isin(kept)].set_index("path")


def _usual_photos(tables: Mapping[str, pd.DataFrame]) -> set[str]:
    """The photos that all members hold. Raises ValueError that names who differs from most of them."""
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


def make_submission(probabilities: pd.DataFrame, ids: Sequence[str]) -> pd.DataFrame:
    """`ImageID, ans`, the likeliest class. ValueError unless the table is sound and of info.csv's `ids` in order."""
    scores.check_probabilities(probabilities, "ImageID")
    answers = probabilities_of(probabilities).argmax(axis=1)
    found = pd.DataFrame({"ImageID": probabilities["ImageID"].to_numpy(), "ans": answers})
    check_submission(found, ids)
    return found


def check_submission(found: pd.DataFrame, ids: Sequence[str]) -> None:
    """Raise ValueError unless `found` holds info.csv's `ids`, in order, once each, with numbers of classes."""
    if list(found.columns) != ["ImageID", "ans"]:
        raise ValueError(f"a submission has the columns ImageID, ans; this one has {', '.join(found.columns)}")
    same_order(found["ImageID"], ids, "info.csv")
    last = labels.class_count() - 1
    if not pd.api.types.is_integer_dtype(found["ans"]) or not found["ans"].between(0, last).all():
        raise ValueError(f"every ans must be a whole number from 0 to {last}")

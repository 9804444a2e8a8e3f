"""The members of an ensemble: their probability files, their out-of-fold tables, and the submission made of them."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np
import pandas as pd

from mask_lib.base import checks, files, labels, scores
from mask_lib.data.clean_labels import read_clean_splits
from mask_lib.data.splits import group_of, read_groups, read_splits
from mask_lib.training import run_folder

Pair = tuple[Path, Path]  # a member's files of the test and the test_val set


class Members(NamedTuple):
    """What the members say of the evaluation photos, and of people held out from all training."""

    names: list[str]
    tables: dict[str, list[pd.DataFrame]]  # test: ImageID; test_val: path, label, person; and p00 …; rows in one order
    own: list[bool]  # whether a member is a run of this experiment

    def stack(self, which: str) -> np.ndarray:
        """(M, N, C) float64 probabilities of a set, test or test_val."""
        return np.stack([probabilities_of(table) for table in self.tables[which]])


class OutOfFold(NamedTuple):
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


def read_members(
    output_dir: Path,
    test_filenames: Sequence[str] = (),
    test_val_filenames: Sequence[str] = (),
    ids: Sequence[str] | None = None,
    split: pd.DataFrame | None = None,
) -> Members:
    """The members of an ensemble, their files checked.

    Empty lists mean every file under `inferences/`; else they are paired by place. ids: info.csv's, which test files
    hold in order. split: today's `path, person, label` of test_val; others go. Raises FileNotFoundError if there is
    nothing, ValueError that names a faulty or stale file, or lists of other length or order of runs.
    """
    pairs = _file_pairs(output_dir, test_filenames, test_val_filenames)
    names = member_names(pairs)
    if len(set(names)) < len(names) or "ensemble" in names:
        raise ValueError(f"each member needs a name of its own, other than ensemble; these are {names}")
    tests, test_vals = zip(*pairs, strict=True)
    for path in tests + test_vals:
        run_folder.refuse_stale_prediction(path)
        if not path.exists():
            raise FileNotFoundError(f"no {files.shown_path(path)}: run 06_inference for that run first")
    tables = {"test": [scores.read_probabilities(path, "ImageID") for path in tests]}
    tables["test_val"] = [scores.read_probabilities(path, "path") for path in test_vals]
    if split is not None:
        known = split[["path", "label", "person"]]
        tables["test_val"] = [table.drop(columns="label").merge(known, on="path") for table in tables["test_val"]]
    _check_orders(tests, tables["test"], "ImageID", ids)
    _check_orders(test_vals, tables["test_val"], "path", None)
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


def _check_orders(paths: Sequence[Path], tables: Sequence[pd.DataFrame], key: str, ids: Sequence[str] | None) -> None:
    """Raise ValueError that names the first file without info.csv's `ids`, else the first file's keys, in order."""
    wanted, source = (tables[0][key], paths[0].name) if ids is None else (ids, "info.csv")
    for path, table in zip(paths, tables, strict=True):
        try:
            same_order(table[key], wanted, source)
        except ValueError as error:
            raise ValueError(f"{files.shown_path(path)}: {error}; run 06_inference for that run again") from error


def same_order(found: Sequence[str], wanted: Sequence[str], source: str) -> None:
    """Raise ValueError that names the first culprit unless `found`, each once, are `source`'s `wanted`, in order."""
    found, wanted = (pd.Index([*some], dtype=object) for some in (found, wanted))
    for fault, some in (("lacks", wanted.difference(found)), ("holds what is not there:", found.difference(wanted))):
        if len(some):
            raise ValueError(f"compared with {source} it {fault} {len(some)} photos, such as {list(some[:3])}")
    if (is_other := found != wanted).any():
        row = int(is_other.argmax())
        raise ValueError(f"row {row} is {found[row]}, but {source} has {wanted[row]} there")


def read_out_of_fold(output_dir: Path, names: Sequence[str]) -> OutOfFold:
    """The out-of-fold tables of the finished runs `names`, aligned photo by photo.

    Labels are today's, without photos dropped since; `person` is the group of people who share copies. Raises
    FileNotFoundError for an unfinished run, ValueError that names one with a faulty table or other photos than most.
    """
    split, given = (next(iter(read(output_dir).values())) for read in (read_clean_splits, read_splits))
    person_of = dict(zip(given["path"], group_of(given["person"], read_groups(output_dir)), strict=True))
    folders = {name: run_folder.folder_of(output_dir, name) for name in names}
    tables = {}
    for name, folder in folders.items():
        try:
            table = run_folder.out_of_fold(folder, person_of)
        except ValueError as error:
            raise ValueError(f"run {name}: {error}") from error
        tables[name] = table[table["path"].isin(split["path"])].set_index("path")
    photos = split.loc[split["path"].isin(_usual_photos(tables)), ["path", "person", "label"]].reset_index(drop=True)
    photos = photos.assign(person=photos["path"].map(person_of))
    stack = np.stack([probabilities_of(table.loc[photos["path"]]) for table in tables.values()])
    return OutOfFold([*names], photos, stack, min(len(run_folder.trained_folds(one)) for one in folders.values()))


def _usual_photos(tables: Mapping[str, pd.DataFrame]) -> frozenset[str]:
    """The photos that all members hold. Raises ValueError that names who differs from most of them."""
    sets = {name: frozenset(table.index) for name, table in tables.items()}
    usual = max(sets.values(), key=list(sets.values()).count)
    for name, held in sets.items():
        if held != usual:
            differs = f"lacks {len(usual - held)} and has {len(held - usual)} more, such as {sorted(usual ^ held)[:3]}"
            raise ValueError(
                f"run {name} was validated on other photos than the {len(usual):,} of most members: it {differs}; "
                "leave it out, or train it on the same photos and folds"
            )
    return usual


def make_submission(probabilities: pd.DataFrame, ids: Sequence[str]) -> pd.DataFrame:
    """`ImageID, ans`, the likeliest class. ValueError unless the table is sound and of info.csv's `ids` in order."""
    scores.check_probabilities(probabilities, "ImageID")
    same_order(probabilities["ImageID"], ids, "info.csv")
    answers = probabilities_of(probabilities).argmax(axis=1)
    return pd.DataFrame({"ImageID": probabilities["ImageID"].to_numpy(), "ans": answers})

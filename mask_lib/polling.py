"""The vote of each person's evaluation photos on their gender and age, from the photos on disk."""

import dataclasses
from pathlib import Path

import pandas as pd

from mask_lib import features, folds, hashes, inference, photos, store, voting

ALWAYS = "always"


@dataclasses.dataclass(frozen=True)
class Poll:
    """An ensemble's tables after the vote, or as they were where nobody voted."""

    test: pd.DataFrame  # ImageID, p00 … p17
    test_val: pd.DataFrame  # path, label, p00 … p17, person
    out_of_fold: pd.DataFrame | None  # path, person, label, p00 … p17; what a score is expected from
    has_voted: bool
    reason: str  # whether photos voted and why, in a few sentences


def wanted(person_voting: bool | str | None) -> bool | str:
    """False: nobody votes; True: where the vote proves its worth; `ALWAYS`. Raises ValueError for anything else."""
    if not (person_voting is None or isinstance(person_voting, bool) or person_voting == ALWAYS):
        raise ValueError(
            f"person_voting = {person_voting!r}: write false, true (if it proves its worth) or {ALWAYS!r} (in any case)"
        )
    return person_voting or False


def poll(
    person_voting: bool | str | None,
    data_dir: Path,
    output_dir: Path,
    test: pd.DataFrame,
    test_val: pd.DataFrame,
    out_of_fold: pd.DataFrame | None,
    frame: store.Frame,
    seed: int = 0,
) -> Poll:
    """Let photos that seem to show one person vote, if `person_voting` asks for it; tables as `Poll` has them.

    out_of_fold: of the same networks on training photos; from these is learned who looks like whom and
    what the vote gains, so without them (None) nobody votes. With True the vote is held only where its gain
    in macro F1 there is above 0 for sure. test_val's people are looked for among themselves: as they are
    fewer than the evaluation set's, that goes a little better than it will there. Evaluation photos that
    could not be read have no vote and stay as they are.
    """
    asked = wanted(person_voting)
    if not asked or out_of_fold is None:
        why = ": that takes out-of-fold tables of every member" if asked else ""
        return Poll(test, test_val, out_of_fold, False, f"Nobody voted{why}.")
    groups = folds.read_groups(output_dir)
    known = out_of_fold if groups is None else out_of_fold.assign(person=out_of_fold["person"].map(groups))
    evaluated = photos.evaluated(output_dir)
    train = _in_order(photos.labeled(output_dir), [*known["path"], *test_val["path"]])
    arrays = described(data_dir, output_dir, train, frame)
    learned = voting.learn([one[: len(known)] for one in arrays], known, len(evaluated), seed=seed)
    report = voting.report(known, learned, seed=seed)
    reason = voting.in_words(report)
    if not (report.is_advised or asked == ALWAYS):
        return Poll(test, test_val, out_of_fold, False, f"{reason} Nobody voted.")
    seen = test[test["ImageID"].isin(evaluated["path"])]
    looks = described(data_dir, output_dir, _in_order(evaluated, list(seen["ImageID"])), frame)
    whole = test.set_index("ImageID")
    whole.loc[seen["ImageID"], voting.COLUMNS] = _voted(looks, seen, "ImageID", learned)[voting.COLUMNS].to_numpy()
    held_out = _voted([one[len(known) :] for one in arrays], test_val, "path", learned) if len(test_val) else test_val
    after = voting.vote(out_of_fold, learned.groups, key="path")
    said = f"{reason} Photos of a person voted{'' if report.is_advised else f': person_voting is {ALWAYS!r}'}."
    return Poll(whole.reset_index()[list(test.columns)], held_out, after, True, said)


def described(data_dir: Path, output_dir: Path, table: pd.DataFrame, frame: store.Frame) -> list:
    """What the photos of a table look like, rows as in `table`: (N, D) arrays of a backbone, and small photos."""
    opened = inference.open_photos(data_dir, output_dir, table, frame)
    small = hashes.open_hashes(Path(output_dir) / "hashes", data_dir, table).small
    rows = opened.rows(list(table["path"]))
    return [*(one[rows] for one in features.stage_features(opened, Path(output_dir) / "features")), small]


def _in_order(table: pd.DataFrame, paths: list[str]) -> pd.DataFrame:
    """The rows of a photo table that `paths` name, in their order."""
    return table.set_index("path").loc[paths].rename_axis("path").reset_index()


def _voted(looks: list, table: pd.DataFrame, key: str, learned: voting.Learned) -> pd.DataFrame:
    """`table` after the vote of the people found among its photos; looks: arrays with rows as in `table`."""
    people = voting.find_people(looks, table.rename(columns={key: "ImageID"}), learned)
    return voting.vote(table, people.rename(columns={"ImageID": key}), key)

"""The vote of each person's evaluation photos on their gender and age, from the photos on disk."""

from pathlib import Path

import pandas as pd

from mask_lib import features, folds, hashes, inference, photos, store, voting


def described(data_dir: Path, output_dir: Path, table: pd.DataFrame, frame: store.Frame) -> list:
    """What the photos of a table look like, rows as in `table`: (N, D) arrays of a backbone, and small photos."""
    opened = inference.open_photos(data_dir, output_dir, table, frame)
    small = hashes.open_hashes(Path(output_dir) / "hashes", data_dir, table).small
    rows = opened.rows(list(table["path"]))
    return [*(one[rows] for one in features.stage_features(opened, Path(output_dir) / "features")), small]


def poll(
    data_dir: Path, output_dir: Path, test: pd.DataFrame, out_of_fold: pd.DataFrame, frame: store.Frame, seed: int = 0
) -> tuple[pd.DataFrame, str]:
    """`test` (ImageID, p00 … p17) as its people's photos vote, and in words how sure that is; see `voting`.

    out_of_fold: `path, person, label, p00 … p17` of the same networks on training photos. Photos that
    could not be read have no vote and stay as they are.
    """
    groups = folds.read_groups(output_dir)
    known = out_of_fold if groups is None else out_of_fold.assign(person=out_of_fold["person"].map(groups))
    train = photos.labeled(output_dir).set_index("path").loc[known["path"]].reset_index()
    evaluated = photos.evaluated(output_dir)
    learned = voting.learn(described(data_dir, output_dir, train, frame), known, len(evaluated), seed=seed)
    seen = test[test["ImageID"].isin(evaluated["path"])]
    asked = evaluated.set_index("path").loc[seen["ImageID"]].rename_axis("path").reset_index()
    people = voting.find_people(described(data_dir, output_dir, asked, frame), seen, learned)
    voted = voting.vote(seen, people)
    columns = voting.COLUMNS
    found = test.set_index("ImageID")
    found.loc[voted["ImageID"], columns] = voted[columns].to_numpy()
    return found.reset_index()[list(test.columns)], voting.in_words(voting.report(known, learned, seed=seed))

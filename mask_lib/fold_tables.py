"""The members' tables blended, each temperature applied where it was found: to one network's probabilities.

A temperature is fitted to out-of-fold probabilities, which come from one network a photo. A member's
table is the mean of its folds' networks, which is less sure already; tempered as a whole, it would be
corrected for what the mean has taken away.
"""

from pathlib import Path

import numpy as np
import pandas as pd

from mask_lib.blending import Recipe
from mask_lib.ensemble import COLUMNS, KEYS, Members
from mask_lib.out_of_fold import is_finished, trained_folds

TOLERANCE = 1e-6  # by which a member's table may differ from the mean of its folds' own


def blended(recipe: Recipe, output_dir: Path, members: Members, which: str) -> pd.DataFrame:
    """The recipe's table of a set, test or test_val; rows as in the first member's.

    Members whose folds' own probabilities are not there, or no longer fit, are tempered as a whole. What a
    network says is its mean over test-time views, which no file keeps apart.
    """
    tables, found = members.tables[which], []
    temperatures = recipe.temperatures or (1.0,) * len(tables)
    for name, own, table, temperature in zip(members.names, members.own, tables, temperatures, strict=True):
        needed = own and temperature != 1
        found.append(of_networks(output_dir, name, which, table) if needed else None)
    return recipe.blend_tables(tables, KEYS[which], found)


def of_networks(output_dir: Path, run: str, which: str, table: pd.DataFrame) -> np.ndarray | None:
    """(K, N, 18) probabilities of a run's K networks, rows as in its `table` of a set.

    None unless 06_inference has left them all, and their mean is the table: they may be deleted at any time.
    """
    home = Path(output_dir) / "inferences" / "models" / run
    if not is_finished(output_dir, run):
        return None
    found = [sorted(home.glob(f"fold{fold}.{which}.*.csv")) for fold in trained_folds(Path(output_dir) / "runs" / run)]
    if any(len(paths) != 1 for paths in found):
        return None
    networks = np.stack([_read(paths[0], table[KEYS[which]]) for paths in found])
    is_their_mean = np.allclose(networks.mean(axis=0), table[COLUMNS].to_numpy(), rtol=0, atol=TOLERANCE)
    return networks if is_their_mean else None


def _read(path: Path, keys: pd.Series) -> np.ndarray:
    """(N, 18) of a fold's file in the order of `keys`; those it lacks could not be read and get the mean of all."""
    table = pd.read_csv(path, dtype={"path": str}).set_index("path")[COLUMNS]
    return table.reindex(keys).fillna(table.mean()).to_numpy(dtype=np.float64)

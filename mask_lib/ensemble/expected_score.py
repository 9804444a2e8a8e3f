"""What a submission should score on people nobody has trained on, with an interval for the score itself, not a mean.

Chance enters twice, in who was there to learn the estimate from and in who is in the evaluation set: both are drawn,
person by person. What makes out-of-fold scores wrong for an evaluation set is corrected: see docs/scores.md.
"""

from collections.abc import Collection
from pathlib import Path
from typing import NamedTuple

import numpy as np
import pandas as pd

from mask_lib.base import files, labels, scores
from mask_lib.base.scores import Score
from mask_lib.ensemble import calibration
from mask_lib.ensemble.members import probabilities_of, with_probabilities
from mask_lib.ensemble.person_groups import photos_a_person
from mask_lib.relabel import corrections, suspects

FILE = "expected.json"  # beside the submission that it is about
DRAWS = 2000
DRAWS_AT_ONCE = 200  # bounds memory: draws x people x 8 bytes
LEVEL = 0.95
# The share of errors that averaging the networks of all folds takes away, and its standard deviation, before
# test_val is asked. On six painted sets, three networks each, macro F1 rose from 0.64 to 0.67, accuracy from
# 0.71 to 0.74: a tenth of the errors; with more photos there is less to gain.
AVERAGING, ONE_NETWORK = (0.08, 0.06), (0.0, 0.03)
FEW = 5  # people of a class, below which its share of macro F1 is little more than a guess
SURE = 0.9  # of a label being wrong, from which on it is doubted
Tallies = tuple[np.ndarray, np.ndarray]  # (P, T) each, see `scores.person_tallies` and `_tallies`


class Expected(NamedTuple):
    """The expected scores on the evaluation set: `table` is indexed by metric, with value, low and high."""

    table: pd.DataFrame
    drawn: pd.DataFrame  # a row a draw, a column a metric
    known: dict[str, float]  # macro F1 where labels are known: `out of fold`, and `test_val` if there is any
    people: int  # whose photos the estimate comes from
    evaluation_people: int
    doubtful: int  # photos whose label was doubted
    thin: list[str]  # classes of which fewer than `FEW` people are known, described

    @property
    def score(self) -> Score:
        """Macro F1."""
        return Score(**self.table.loc["macro_f1"])

    def summary(self) -> str:
        """The one line that belongs under a submission."""
        doubt = f", {self.doubtful:,} doubtful labels taken for wrong in half of the draws" if self.doubtful else ""
        few = f" Fewer than {FEW} people are known of {len(self.thin)} classes: it may err by more."
        return (
            f"On {self.evaluation_people:,} unseen people this submission should score a macro F1 of {self.score} "
            f"and an accuracy of {Score(**self.table.loc['accuracy'])}: 95% intervals for the score itself, "
            f"estimated from {self.people:,} people{doubt}.{few if self.thin else ''}"
        )


def write_expected(found: Expected | None, folder: Path) -> list[Path]:
    """Write `FILE`, the metrics and what they come from, and give its path in a list; for None remove an older one."""
    path = Path(folder) / FILE
    if found is None:
        path.unlink(missing_ok=True)
        return []
    about = {name: getattr(found, name) for name in ("people", "evaluation_people", "doubtful", "thin")}
    return [files.write_json({"metrics": found.table.to_dict("index"), **about}, path)]


def estimate(
    out_of_fold: pd.DataFrame,
    evaluation_photos: int,
    test_val: pd.DataFrame | None = None,
    doubtful: Collection[str] = (),
    seed: int = 0,
    draws: int = DRAWS,
    fold_count: int = 5,
) -> Expected:
    """The expected scores of a submission on an evaluation set of so many photos, as many a person as out of fold.

    out_of_fold: `path, person, label, p00 …` of `blending.Choice.out_of_fold`; test_val: the same of the held-out
    people, by `fold_count` networks; doubtful: paths. Each draw weights the people (Rubin's Bayesian bootstrap), then
    scores a set of people drawn by that. Raises ValueError as `scores.bootstrap` does.
    """
    tallies = _tallies(out_of_fold, doubtful)
    known = {"out of fold": tallies[0]}
    people = max(1, round(evaluation_photos / photos_a_person(out_of_fold["person"])))
    generator = np.random.default_rng(seed)
    drawn = _centred(tallies, people, draws, generator)
    less = AVERAGING if fold_count > 1 else ONE_NETWORK
    if test_val is not None and len(test_val):
        known["test_val"] = held_out = _tallies(test_val, ())[0]
        beside = _centred((tallies[0], np.zeros_like(tallies[0])), len(held_out), draws, generator)
        less = _corrected(less, scores.metrics_of(held_out.sum(axis=0)[None])[0], beside)
    drawn = np.clip(drawn + generator.normal(*less, size=drawn.shape) * (1 - drawn), 0, 1)
    table, ends = pd.DataFrame(drawn, columns=list(scores.metric_names())), [(1 - LEVEL) / 2, (1 + LEVEL) / 2]
    people_of = out_of_fold.groupby("label")["person"].nunique().reindex(range(labels.class_count()), fill_value=0)
    return Expected(
        table=pd.concat([table.mean(), *map(table.quantile, ends)], axis=1, keys=["value", "low", "high"]),
        drawn=table,
        known={name: float(scores.metrics_of(one.sum(axis=0)[None])[0, 0]) for name, one in known.items()},
        people=len(tallies[0]),
        evaluation_people=people,
        doubtful=int(out_of_fold["path"].isin(doubtful).sum()),
        thin=[labels.describe(label) for label in people_of.index[people_of < FEW]],
    )


def _tallies(table: pd.DataFrame, doubtful: Collection[str]) -> Tallies:
    """As labeled, and what the tallies change by if every doubted label is the predicted one."""
    truth, predicted = scores.from_probabilities(table)
    person = table["person"].to_numpy()
    corrected = np.where(table["path"].isin(doubtful), predicted, truth)
    as_labeled = scores.person_tallies(truth, predicted, person)
    return as_labeled, scores.person_tallies(corrected, predicted, person) - as_labeled


def _corrected(less: tuple[float, float], seen: np.ndarray, beside: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """(M,) means and deviations of the share of errors taken away, once held-out people scored (M,) `seen`.

    beside: (draws, M) of what as many people should score if nothing is taken away. What was believed before and what
    they say are two normal estimates of one share, weighted by their certainty.
    """
    mean, deviation = less
    errors = np.maximum(1 - beside.mean(axis=0), 1e-6)
    trust = deviation**2 / (deviation**2 + beside.var(axis=0) / errors**2)
    share = (seen - beside.mean(axis=0)) / errors
    return mean + trust * (share - mean), deviation * np.sqrt(1 - trust)


def _centred(tallies: Tallies, people: int, draws: int, generator: np.random.Generator) -> np.ndarray:
    """(draws, M) metrics of evaluation sets of `people` people, each from another likely population.

    A drawn population loses rare people, a set drawn from it again: mean macro F1 is moved to that of one drawing.
    """
    drawn, once = (_drawn(tallies, people, draws, generator, uncertain) for uncertain in (True, False))
    return drawn + once.mean(axis=0) - drawn.mean(axis=0)


def _drawn(tallies: Tallies, people: int, draws: int, generator: np.random.Generator, uncertain: bool) -> np.ndarray:
    """(draws, M) metrics of sets of `people` people; `uncertain`: each from a population weighted at random."""
    blocks, (as_labeled, as_doubted) = [], tallies
    for begin in range(0, draws, DRAWS_AT_ONCE):
        shape = min(DRAWS_AT_ONCE, draws - begin), len(as_labeled)  # (D, P)
        chances = generator.dirichlet(np.ones(shape[1]), size=shape[0]) if uncertain else np.full(shape, 1 / shape[1])
        times = generator.multinomial(people, chances).astype(np.float64)
        is_clean = generator.integers(0, 2, size=(shape[0], 1))  # whether the set's labels are without the wrong ones
        blocks.append(scores.metrics_of(times @ as_labeled + is_clean * (times @ as_doubted)))
    return np.concatenate(blocks)


def doubtful_photos(out_of_fold: pd.DataFrame, output_dir: Path) -> set[str]:
    """Paths nobody decided on, whose label is likelier than `SURE` to be wrong; of `path, person, label, p00 …`."""
    probabilities, truth = probabilities_of(out_of_fold), out_of_fold["label"].to_numpy()
    believed = calibration.tempered(probabilities, calibration.fit_temperature(probabilities, truth))
    table = out_of_fold[["path", "person", "label"]]
    ranked = suspects.rank(table, with_probabilities(table, believed)).merge(table[["path", "person"]], on="path")
    ranked = ranked[ranked["current"] != ranked["suggested"]]
    # Only the first of a person's photos has the full score of a doubt that all of them share.
    strongest = ranked.groupby(["person", "field"])["score"].transform("max")
    is_shared = ranked["field"].isin(labels.names(of_person=True))
    reviewed = corrections.opinions_by_photo(corrections.read_logs(output_dir))  # by path, whatever the opinion
    return set(ranked["path"][ranked["score"].where(~is_shared, strongest) > SURE]) - set(reviewed)

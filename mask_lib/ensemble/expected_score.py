"""What a submission should score on people nobody has trained on, with an interval that can be held to account.

The interval is one for the score itself, not for a mean: chance enters twice, in who was there to learn
the estimate from and in who is in the evaluation set. Both are drawn, person by person.

Three things make out-of-fold scores wrong for an evaluation set, and each is corrected:

- Macro F1 of a small set is low by nature, since rare classes are missed: sets of its size are drawn.
- An out-of-fold photo was predicted by one network a member, an evaluation photo by the mean of all folds', which
  errs less: a share of the errors is taken away (`AVERAGING`), as far as held-out people do not say otherwise.
- Some of the labels that it is measured by are wrong, and nobody knows whether the evaluation labels are as
  noisy: in half of the draws the doubted labels are taken for wrong.
"""

import dataclasses
from pathlib import Path

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


@dataclasses.dataclass(frozen=True)
class Expected:
    """The expected scores on the evaluation set: `table` is indexed by metric, with value, low and high."""

    table: pd.DataFrame
    drawn: pd.DataFrame  # a row a draw, a column a metric
    known: dict[str, float]  # macro F1 where labels are known: `out of fold`, and `test_val` if there is any
    people: int  # whose photos the estimate comes from
    evaluation_people: int
    doubtful: int  # photos whose label was doubted
    thin: list[str]  # classes of which fewer than `FEW` people are known, described
    without_photo: int = 0  # answers that the estimate is not for

    @property
    def score(self) -> Score:
        """Macro F1."""
        return Score(**self.table.loc["macro_f1"])

    def summary(self) -> str:
        """The one line that belongs under a submission."""
        doubt = f", {self.doubtful:,} doubtful labels taken for wrong in half of the draws" if self.doubtful else ""
        thin = (
            f" Fewer than {FEW} people are known of {len(self.thin)} classes: it may err by more." if self.thin else ""
        )
        blind = f" The {self.without_photo:,} answers without a photo are left out." if self.without_photo else ""
        return (
            f"On {self.evaluation_people:,} unseen people this submission should score a macro F1 of {self.score} "
            f"and an accuracy of {Score(**self.table.loc['accuracy'])}: 95% intervals for the score itself, "
            f"estimated from {self.people:,} people{doubt}.{thin}{blind}"
        )


def write_expected(found: Expected | None, folder: Path) -> list[Path]:
    """Write `FILE` into a submission's folder; None, where no score can be promised, removes an older one.

    It holds `metrics` by name with value, low and high, and what they come from. Returns its path in a list, or [].
    """
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
    doubtful: set[str] | None = None,
    seed: int = 0,
    draws: int = DRAWS,
    fold_count: int = 5,
    without_photo: int = 0,
) -> Expected:
    """The expected scores of a submission on an evaluation set of so many photos, as many a person as out of fold.

    out_of_fold: `path, person, label, p00 …` of the recipe that the submission is made by, nested
    (`blending.Choice.out_of_fold`), labels as cleaned; test_val: the same of the held-out people, by the mean over
    `fold_count` networks a member, as the evaluation photos are; doubtful: paths whose label may be wrong, see
    `doubtful_photos`; without_photo: how many answers of the submission have no photo, beside `evaluation_photos`:
    nothing is promised for them. Each draw weights the people at random (Rubin's Bayesian bootstrap: what else the
    population might be), then draws an evaluation set of people by those weights and scores it. The evaluation
    set is thus taken to have the class make-up of the labeled people.
    Raises ValueError for an empty table, as `scores.bootstrap` does, and for no evaluation photo.
    """
    if evaluation_photos < 1:
        raise ValueError(f"evaluation_photos = {evaluation_photos}: an evaluation set has at least one photo")
    tallies = _tallies(out_of_fold, doubtful or set())
    held_out = _tallies(test_val, set())[0] if test_val is not None and len(test_val) else None
    people = max(1, round(evaluation_photos / photos_a_person(out_of_fold["person"])))
    generator = np.random.default_rng(seed)
    drawn = _centred(tallies, people, draws, generator)
    less = AVERAGING if fold_count > 1 else ONE_NETWORK
    if held_out is not None:
        beside = _centred((tallies[0], np.zeros_like(tallies[0])), len(held_out), draws, generator)
        less = _corrected(less, _metrics(held_out), beside)
    drawn = np.clip(drawn + generator.normal(*less, size=drawn.shape) * (1 - drawn), 0, 1)
    table, ends = pd.DataFrame(drawn, columns=list(scores.metric_names())), [(1 - LEVEL) / 2, (1 + LEVEL) / 2]
    known = {"out of fold": tallies[0], "test_val": held_out}
    return Expected(
        table=pd.concat([table.mean(), *map(table.quantile, ends)], axis=1, keys=["value", "low", "high"]),
        drawn=table,
        known={name: float(_metrics(some)[0]) for name, some in known.items() if some is not None},
        people=len(tallies[0]),
        evaluation_people=people,
        doubtful=int(out_of_fold["path"].isin(doubtful or set()).sum()),
        thin=_thin_classes(out_of_fold),
        without_photo=without_photo,
    )


def _thin_classes(table: pd.DataFrame) -> list[str]:
    """The classes that fewer than `FEW` people have, described."""
    people = table.groupby("label")["person"].nunique().reindex(range(labels.class_count()), fill_value=0)
    return [labels.describe(label) for label in people.index[people < FEW]]


def _tallies(table: pd.DataFrame, doubtful: set[str]) -> Tallies:
    """As labeled, and what the tallies change by if every doubted label is the predicted one."""
    truth, predicted = scores.from_probabilities(table)
    person = table["person"].to_numpy()
    corrected = np.where(table["path"].isin(doubtful), predicted, truth)
    as_labeled = scores.person_tallies(truth, predicted, person)
    return as_labeled, scores.person_tallies(corrected, predicted, person) - as_labeled


def _metrics(tallies: np.ndarray) -> np.ndarray:
    """(M,) metrics of all people together."""
    return scores.metrics_of(tallies.sum(axis=0, keepdims=True))[0]


def _corrected(less: tuple[float, float], seen: np.ndarray, beside: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """(M,) means and deviations of the share of errors taken away, once held-out people scored `seen`.

    beside: (draws, M) of what as many people should score if nothing is taken away. What was believed before
    and what the held-out people say are two normal estimates of one share, weighted by their certainty: a dozen
    people say little.
    """
    mean, deviation = less
    errors = np.maximum(1 - beside.mean(axis=0), 1e-6)
    trust = deviation**2 / (deviation**2 + beside.var(axis=0) / errors**2)
    share = (seen - beside.mean(axis=0)) / errors
    return mean + trust * (share - mean), deviation * np.sqrt(1 - trust)


def _centred(tallies: Tallies, people: int, draws: int, generator: np.random.Generator) -> np.ndarray:
    """(draws, M) metrics of evaluation sets of `people` people, each from another likely population.

    A draw of a population loses rare people, and the draw of a set from it loses them again, so that the draws'
    macro F1 is too low on average. They spread as they must but are moved to what one drawing gives.
    """
    drawn = _drawn(tallies, people, draws, generator, uncertain=True)
    once = _drawn(tallies, people, draws, generator, uncertain=False)
    return drawn + once.mean(axis=0) - drawn.mean(axis=0)


def _drawn(tallies: Tallies, people: int, draws: int, generator: np.random.Generator, uncertain: bool) -> np.ndarray:
    """(draws, M) metrics of sets of `people` people; `uncertain`: each from a population weighted at random."""
    blocks, (as_labeled, as_doubted) = [], tallies
    for begin in range(0, draws, DRAWS_AT_ONCE):
        shape = min(DRAWS_AT_ONCE, draws - begin), len(as_labeled)
        even = np.full(shape, 1 / len(as_labeled))
        chances = generator.dirichlet(np.ones(shape[1]), size=shape[0]) if uncertain else even  # (D, P)
        times = generator.multinomial(people, chances).astype(np.float64)
        is_clean = generator.integers(0, 2, size=(shape[0], 1))  # whether the set's labels are without the wrong ones
        blocks.append(scores.metrics_of(times @ as_labeled + is_clean * (times @ as_doubted)))
    return np.concatenate(blocks)


def reviewed_photos(output_dir: Path) -> set[str]:
    """Paths of photos that a person decided on, whatever the decision."""
    return set(corrections.opinions_by_photo(corrections.read_logs(output_dir)))


def doubtful_photos(out_of_fold: pd.DataFrame, reviewed: set[str] | None = None) -> set[str]:
    """Paths of photos whose label is more likely than `SURE` to be wrong, but for those a person has `reviewed`.

    out_of_fold: `path, person, label, p00 …`. The ranking is that of label cleaning (`suspects.rank`, which
    takes a person's photos together), here with calibrated probabilities: a network that is wrong while
    it is sure of more than nine in ten casts doubt on the label.
    """
    probabilities, truth = probabilities_of(out_of_fold), out_of_fold["label"].to_numpy()
    believed = calibration.tempered(probabilities, calibration.fit_temperature(probabilities, truth))
    table = out_of_fold[["path", "person", "label"]]
    ranked = suspects.rank(table, with_probabilities(table, believed)).merge(table[["path", "person"]], on="path")
    ranked = ranked[ranked["current"] != ranked["suggested"]]
    # Only the first of a person's photos has the full score of a doubt that all of them share.
    strongest = ranked.groupby(["person", "field"])["score"].transform("max")
    is_shared = ranked["field"].isin(labels.names(of_person=True))
    return set(ranked["path"][ranked["score"].where(~is_shared, strongest) > SURE]) - (reviewed or set())

"""How much each member counts, whether that is really better than equal weights, and what each member adds.

A recipe found on photos looks too good on those photos. So recipes are compared nested: found on some people,
scored on the others. Members are (M, N, C) float64 probabilities of the same N photos.
"""

import dataclasses
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pandas as pd

from mask_lib.base import labels, results, scores
from mask_lib.base.scores import Score
from mask_lib.data import splits
from mask_lib.ensemble import calibration, inference
from mask_lib.ensemble.members import Members, OutOfFold, probabilities_of, read_out_of_fold, with_probabilities
from mask_lib.training import comparison, runs
from mask_lib.training.run_folder import folder_of, is_finished

ROUNDS = 25  # of greedy selection; with replacement, so that weights come in steps of 1/25 at finest
PARTS = 5  # of people, for nesting
LEVEL = 0.95  # of every interval; recipes that could replace equal weights share its 5%
DRAWS = 1000
SHARES = (0.2, 0.4, 0.6, 0.8, 1.0)
PREMIUM = 0.01  # of accuracy out of fold, for less loss on looks never seen


@dataclasses.dataclass(frozen=True)
class Recipe:
    """How members become one: averaged by weights that sum to 1, the mean then tempered."""

    weights: tuple[float, ...]
    temperature: float = 1.0  # changes how sure answers are, never which class is the likeliest
    photo_weights: tuple[float, ...] = ()  # for the attributes that are the photo's own, where those have others

    def blend(self, members: np.ndarray) -> np.ndarray:
        """(N, C) probabilities of (M, N, C). ValueError for another number of members."""
        mean = np.tensordot(self.weights, members, axes=1)
        if self.photo_weights:
            mean = labels.with_photo_attributes(mean, np.tensordot(self.photo_weights, members, axes=1))
        return calibration.tempered(mean, self.temperature)

    def blend_tables(self, members: Members, which: str) -> pd.DataFrame:
        """`blend` of a set, test or test_val, with the other columns of the first member's table."""
        return with_probabilities(members.tables[which][0], self.blend(members.stack(which)))

    def without(self, member: int) -> "Recipe":
        """The recipe for the members but one, the others' weights raised to fill its place."""
        rest, photo = (tuple(np.delete(some, member)) for some in (self.weights, self.photo_weights or self.weights))
        plain = given_recipe(rest if any(rest) else [], len(rest))
        photo = given_recipe(photo, len(rest)).weights if self.photo_weights and any(photo) else ()
        return dataclasses.replace(plain, temperature=self.temperature, photo_weights=photo)

    def summary(self, names: Sequence[str]) -> str:
        """`deep (60%), wide (40%); mask: deep (10%), wide (90%), at a temperature of 1.20`."""
        said = [
            ", ".join(f"{name} ({weight:.0%})" for name, weight in zip(names, weights, strict=True) if weight)
            for weights in filter(None, (self.weights, self.photo_weights))
        ]
        hotter = f", at a temperature of {self.temperature:.2f}" if self.temperature != 1 else ""
        return f"; {' and '.join(labels.names(of_person=False))}: ".join(said) + hotter


def given_recipe(weights: Sequence[float], members: int) -> Recipe:
    """The recipe of given weights, or of equal ones for none. ValueError unless each member has one, one above 0."""
    weights = list(weights) or [1.0] * members
    if len(weights) != members:
        raise ValueError(f"{members} files but {len(weights)} weights: give one weight a file")
    if min(weights) < 0 or sum(weights) <= 0 or not np.isfinite(weights).all():
        raise ValueError(f"weights = {weights}: each must be 0 or above, one of them above 0")
    return Recipe(tuple(weight / sum(weights) for weight in weights))


def greedy_weights(members: np.ndarray, truth: np.ndarray, rounds: int = ROUNDS) -> np.ndarray:
    """(M,) weights by the best round of greedy selection (Caruana et al. 2004) for macro F1; log loss breaks ties."""
    total, counts, bags = np.zeros(members.shape[1:]), np.zeros(len(members)), []
    for number in range(1, rounds + 1):
        scored = [
            (round(macro_f1(truth, mean.argmax(axis=1)), 9), -calibration.log_losses(mean, truth).mean())
            for mean in ((total + one) / number for one in members)
        ]
        member = max(range(len(members)), key=scored.__getitem__)
        total = total + members[member]
        counts[member] += 1
        bags.append((scored[member][0], counts / number))
    return max(bags, key=lambda bag: bag[0])[1]


def macro_f1(truth: np.ndarray, predicted: np.ndarray) -> float:
    """As `scores.summarise` gives it, without its checks: greedy selection asks for it thousands of times."""
    classes = labels.class_count()
    hits = np.bincount(truth[truth == predicted], minlength=classes)
    either = np.bincount(truth, minlength=classes) + np.bincount(predicted, minlength=classes)
    return float(np.divide(2 * hits, either, out=np.zeros(classes), where=either > 0).mean())


def fit(members: np.ndarray, truth: np.ndarray, greedy=False, tempering=False, photo_weights=()) -> Recipe:
    """A recipe found on (M, N, C) members and (N,) labels: equal or greedy weights, then the mean's temperature."""
    weights = greedy_weights(members, truth).tolist() if greedy else given_recipe([], len(members)).weights
    recipe = Recipe(tuple(weights), photo_weights=photo_weights)
    temperature = calibration.fit_temperature(recipe.blend(members), truth) if tempering else 1.0
    return dataclasses.replace(recipe, temperature=temperature)


def nested_probabilities(members: np.ndarray, truth: np.ndarray, parts: np.ndarray, **how) -> np.ndarray:
    """(N, C) probabilities of each part by the recipe that `fit` finds on the other parts."""
    found = np.empty(members.shape[1:])
    for part in np.unique(parts):
        asked = parts == part
        found[asked] = fit(members[:, ~asked], truth[~asked], **how).blend(members[:, asked])
    return found


class Choice(NamedTuple):
    """The recipe that is taken, what it was compared with, and why."""

    recipe: Recipe
    table: pd.DataFrame  # see `choose_recipe`; empty for weights that were given
    reason: str
    out_of_fold: pd.DataFrame | None  # path, person, label, p00 …: of each person by a recipe found without them


def decide(
    output_dir: Path, members: Members, weights: Sequence[float], seed: int = 0
) -> tuple[OutOfFold | None, Choice]:
    """The members' out-of-fold probabilities and the recipe: the given `weights`, or if there are none the chosen one.

    Without a table, and equal weights if none are given, for members that are no finished runs of this experiment:
    they cannot be scored. Packed results bring the recipe of all their runs. Raises ValueError as `given_recipe` does.
    """
    recipe, packed = given_recipe(weights, len(members.names)), results.read(output_dir)
    names = zip(members.names, members.own, strict=True)  # a file from elsewhere may bear a run's name
    unknown = [name for name, own in names if packed or not (own and is_finished(folder_of(output_dir, name)))]
    came_with = [one["run"] for one in packed["recipe"]["members"]] if packed else []
    if not weights and all(members.own) and sorted(came_with) == sorted(members.names):
        recipe = packed_recipe(packed["recipe"], members.names)
        return None, Choice(recipe, pd.DataFrame(), "The recipe is the one that the results came with.", None)
    if unknown:
        kept = "the weights are as given" if weights else "equal weights are taken"
        reason = f"{', '.join(unknown)} cannot be scored, having no out-of-fold tables here: {kept}."
        return None, Choice(recipe, pd.DataFrame(), reason, None)
    found = read_out_of_fold(output_dir, members.names)
    if not weights:
        return found, choose_recipe(found, seed, on_looks(output_dir, found.names))
    # Nothing is fitted, so nothing needs nesting.
    blended = with_probabilities(found.photos, recipe.blend(found.probabilities))
    return found, Choice(recipe, pd.DataFrame(), "The weights are as given.", blended)


def packed_recipe(found: Mapping[str, Any], names: Sequence[str]) -> Recipe:
    """The recipe that recipe.json or results.json keeps, for its runs in the order of `names`."""
    runs = [one["run"] for one in found["members"]]
    order, blend = [runs.index(name) for name in names], found["blend"]
    listed = {name: tuple(one[row] for row in order if one) for name, one in blend.items() if isinstance(one, list)}
    return Recipe(**{**blend, **listed})


def on_looks(output_dir: Path, names: Sequence[str]) -> dict[str, pd.DataFrame]:
    """`inference.unseen_looks` of each finished run that has it, by name."""
    tables = {name: inference.unseen_looks(output_dir, name) for name in names}
    return {name: table for name, table in tables.items() if table is not None}


def blended_on_looks(tables: Mapping[str, pd.DataFrame], names: Sequence[str], recipe: Recipe) -> pd.DataFrame | None:
    """The table of the members' blend; None unless each has one, trained without the same looks of the same fold."""
    keys = [table[["path", "label", "look"]] for table in tables.values()]
    if not keys or set(tables) != set(names) or not all(map(keys[0].equals, keys)):
        return None
    members = np.stack([probabilities_of(tables[name]) for name in names])
    return with_probabilities(tables[names[0]], recipe.blend(members))


def look_table(output_dir: Path, names: Sequence[str], recipe: Recipe) -> pd.DataFrame:
    """`comparison.look_table` of the members that were asked about looks never seen, and of their blend if all were."""
    tables = on_looks(output_dir, names)
    blend = blended_on_looks(tables, names, recipe)
    return comparison.look_table(tables | ({} if blend is None or len(names) < 2 else {"ensemble": blend}))


def choose_recipe(found: OutOfFold, seed: int = 0, looks: Mapping[str, pd.DataFrame] | None = None) -> Choice:
    """Equal weights, unless greedy weights, or a temperature, prove really better on people they have not seen.

    That is, the paired interval by person of the difference, in macro F1 or in log loss, lies above 0: at 97.5%, since
    two rivals have more luck than one (Bonferroni), at 95% for a single member. looks: of `on_looks`. `table` has a row
    for each way to weigh members: method, macro_f1, low, high, log_loss, difference (of macro F1), difference_low,
    difference_high, p, weights (found on all people), chosen. ValueError when there are fewer people than parts.
    """
    members, truth, ways = found.probabilities, found.truth, [False, True][: len(found.names)]  # greedy or not
    parts = found.photos["person"].map(splits.spread_people(found.photos, PARTS, seed)).to_numpy()
    nested = {greedy: nested_probabilities(members, truth, parts, greedy=greedy) for greedy in ways}
    level = 1 - (1 - LEVEL) / len(ways)  # the rivals are greedy weights, where there are any, and the temperature
    rows = [_row(found, nested, greedy, level, seed) for greedy in ways]
    greedy = bool(rows[-1]["difference_low"] > 0)
    photo_weights, why = weights_on_looks(found, fit(members, truth, greedy), looks or {})
    how = {"greedy": greedy, "photo_weights": photo_weights}
    plain, tempered = (nested_probabilities(members, truth, parts, tempering=is_on, **how) for is_on in (False, True))
    gain = log_loss_gain(found, plain, tempered, seed, level)
    is_tempered = gain.low > 0
    return Choice(
        fit(members, truth, tempering=is_tempered, **how),
        pd.DataFrame(rows).assign(chosen=[way == greedy for way in ways]),
        _choice_summary(rows, greedy, gain) + why,
        with_probabilities(found.photos, tempered if is_tempered else plain),
    )


def weights_on_looks(
    found: OutOfFold, recipe: Recipe, looks: Mapping[str, pd.DataFrame]
) -> tuple[tuple[float, ...], str]:
    """Weights for the photo's attributes that are right more often than those of `recipe` on looks never seen, and why;
    () if none are. They give one member some of `SHARES` more, and cost at most `PREMIUM` of accuracy out of fold; of
    equally accurate ones those with the lowest log losses.
    """
    if blended_on_looks(looks, found.names, recipe) is None:
        return (), ""
    given, told = np.array(recipe.weights), {}
    rivals = [share * own + (1 - share) * given for share in SHARES for own in np.eye(len(given))]
    for weights in [(), *(tuple(one.tolist()) for one in rivals)]:
        rival = dataclasses.replace(recipe, photo_weights=weights)
        known = with_probabilities(found.photos, rival.blend(found.probabilities))
        unseen = blended_on_looks(looks, found.names, rival)
        (accuracy, loss), (new_accuracy, new_loss) = map(_photo_scores, (known, unseen[unseen["look"] != ""]))
        told[weights] = accuracy, new_accuracy, loss + new_loss
    affordable = [one for one in told if told[one][0] >= told[()][0] - PREMIUM]
    best = min(affordable, key=lambda one: (-told[one][1], told[one][2]))
    (known_before, before, _), (known_after, after, _) = told[()], told[best]
    if after <= before:
        return (), ""
    own = " and ".join(labels.names(of_person=False))
    known = f"from {known_before:.1%} to {known_after:.1%} out of fold"
    said = f"from {before:.1%} to {after:.1%} on looks never seen, and {known}"
    return best, f" Weights of its own for {own} take its accuracy {said}."


def _photo_scores(table: pd.DataFrame) -> tuple[float, float]:
    """The mean accuracy and the mean log loss of the attributes that are the photo's own."""
    found, own = scores.summarise(*scores.from_probabilities(table)), labels.names(of_person=False)
    parts, truth = labels.marginals(probabilities_of(table)), labels.decode_all(table["label"].to_numpy())
    losses = [calibration.log_losses(parts[name], truth[name]).mean() for name in own]
    return float(np.mean([found[name] for name in own])), float(np.mean(losses))


def _row(found: OutOfFold, nested: dict[bool, np.ndarray], greedy: bool, level: float, seed: int) -> dict:
    """A row of the table of `choose_recipe`, from (N, C) nested probabilities by whether weights are greedy."""
    equal, predicted = nested[False].argmax(axis=1), nested[greedy].argmax(axis=1)
    own = scores.bootstrap(found.truth, predicted, found.person, DRAWS, seed, LEVEL)
    gain = scores.paired_bootstrap(found.truth, equal, predicted, found.person, DRAWS, seed, level)
    return {
        "method": "greedy" if greedy else "equal",
        **own.loc["macro_f1"].rename({"value": "macro_f1"}),
        "log_loss": float(calibration.log_losses(nested[greedy], found.truth).mean()),
        **gain.loc["macro_f1"].rename({"low": "difference_low", "high": "difference_high"}),
        "weights": [round(weight, 3) for weight in fit(found.probabilities, found.truth, greedy).weights],
    }


def _choice_summary(rows: list[dict], greedy: bool, gain: Score) -> str:
    """Which weights are taken, whether a temperature is, and why, in two sentences."""
    moved = "macro F1 moves by {difference:+.4f} ({difference_low:+.4f} to {difference_high:+.4f})".format(**rows[-1])
    if len(rows) == 1:
        weights = "There is one member, so there are no weights to find."
    elif greedy:
        weights = f"Greedy weights are taken: on people they were not found on, {moved}."
    else:
        weights = f"Equal weights are kept: greedy weights are not really better on people they have not seen, {moved}."
    taken, fall = "taken" if gain.low > 0 else "left out", f"{gain.value:.4f} ({gain.low:+.4f} to {gain.high:+.4f})"
    return f"{weights} A temperature is {taken}: log loss falls by {fall}."


def log_loss_gain(found: OutOfFold, before: np.ndarray, after: np.ndarray, seed: int = 0, level=LEVEL) -> Score:
    """By how much (N, C) `after` has the lower mean log loss, with an interval that draws people."""
    gain = calibration.log_losses(before, found.truth) - calibration.log_losses(after, found.truth)
    sums = pd.DataFrame({"gain": gain, "photos": 1.0}).groupby(found.person).sum().to_numpy()  # (P, 2)
    times = np.random.default_rng(seed).multinomial(len(sums), np.full(len(sums), 1 / len(sums)), size=DRAWS)
    drawn = times @ sums
    low, high = np.quantile(drawn[:, 0] / drawn[:, 1], [(1 - level) / 2, (1 + level) / 2])
    return Score(float(gain.mean()), float(low), float(high))


def intervals(
    names: Sequence[str], members: np.ndarray, blended: pd.DataFrame, voted: pd.DataFrame | None = None
) -> dict[str, pd.DataFrame]:
    """`runs.intervals` of each of (M, N, C) members, of their blend if they are several, and after a vote, by name.

    blended, voted: `path, person, label, p00 …`, rows as in `members`.
    """
    tables = {name: with_probabilities(blended, one) for name, one in zip(names, members, strict=True)}
    tables |= {"ensemble": blended} if len(names) > 1 else {}
    tables |= {} if voted is None else {"after the vote": voted}
    return {name: runs.intervals(table) for name, table in tables.items()}


def agreement(found: OutOfFold) -> pd.DataFrame:
    """(M, M) share of photos to which two members give the same answer, named both ways."""
    answers = found.probabilities.argmax(axis=2)  # (M, N)
    return pd.DataFrame((answers[:, None] == answers).mean(axis=2), index=found.names, columns=found.names)


def contributions(found: OutOfFold, recipe: Recipe, seed: int = 0) -> pd.DataFrame:
    """One row of several members: member, weight, what macro F1 it adds: difference, low, high, p."""
    predicted = recipe.blend(found.probabilities).argmax(axis=1)
    rows = []
    for member, name in enumerate(found.names):
        rest = recipe.without(member).blend(np.delete(found.probabilities, member, axis=0)).argmax(axis=1)
        gain = scores.paired_bootstrap(found.truth, rest, predicted, found.person, DRAWS, seed, LEVEL).loc["macro_f1"]
        rows.append({"member": name, "weight": recipe.weights[member], **gain.to_dict()})
    return pd.DataFrame(rows)

"""Photos that seem to show one person vote on the person's attributes, where that proves its worth."""

import dataclasses
from pathlib import Path

import numpy as np
import pandas as pd
from safetensors.numpy import load_file, save_file

from mask_lib.base import files, labels, results, scores
from mask_lib.data import hashes, photos, store
from mask_lib.ensemble.calibration import LEAST
from mask_lib.ensemble.members import probabilities_of, with_probabilities
from mask_lib.ensemble.person_groups import PRECISION, PersonFinder, Projection, learn_people, photos_a_person
from mask_lib.models import features, looks
from mask_lib.training import dataset

ALWAYS = "always"


@dataclasses.dataclass(frozen=True)
class VoteReport:
    """How well people were found among training photos, and what the vote changes there."""

    finder: PersonFinder
    grouped: float  # share of the photos that are not alone
    before: float  # macro F1
    after: float  # macro F1
    gain: pd.DataFrame  # of after over before, as `scores.paired_bootstrap` gives it

    @property
    def is_advised(self) -> bool:
        """Whether macro F1 rises for sure: the interval of its gain lies above 0."""
        return bool(self.gain.loc["macro_f1", "low"] > 0)


@dataclasses.dataclass(frozen=True)
class VoteResult:
    """An ensemble's tables after the vote, or as they were where nobody voted."""

    test: pd.DataFrame  # ImageID, p00 …
    test_val: pd.DataFrame  # path, label, person, p00 …
    out_of_fold: pd.DataFrame | None  # path, person, label, p00 …; what a score is expected from
    has_voted: bool
    reason: str  # whether photos voted and why, in a few sentences
    finder: PersonFinder | None = None  # of those who voted
    frame: store.Frame | None = None  # that it saw


def hold_vote(
    person_voting: bool | str | None,
    data_dir: Path,
    output_dir: Path,
    test: pd.DataFrame,
    test_val: pd.DataFrame,
    out_of_fold: pd.DataFrame | None,
    frame: store.Frame,
    seed: int = 0,
) -> VoteResult:
    """Let photos that seem to show one person vote, if `person_voting` asks for it; tables as `VoteResult` has them.

    person_voting: False or None, nobody; True, where the gain in macro F1 on training photos is above 0 for sure;
    `ALWAYS`, in any case. out_of_fold: of the same networks on training photos, from which is learned who resembles
    whom and what the vote gains; without them (None) nobody votes. test_val's people are looked for among themselves:
    as they are fewer than the evaluation set's, that goes a little better than it will there. What held-out looks
    (`looks.find`) show of a person teaches nothing until it is settled who votes. Evaluation photos that
    could not be read stay as they are. frame: what the frozen backbone sees. Raises ValueError as `why_nobody_votes`.
    """
    packed = results.read(output_dir)
    if packed and packed["recipe"]["has_voted"] and person_voting is None:
        reason, how = "Photos of a person voted, as in the results.", read_finder(Path(output_dir) / results.VOTE)
        return VoteResult(*both_voted(*how, data_dir, output_dir, test, test_val), None, True, reason, *how)
    reason = why_nobody_votes(person_voting, out_of_fold)
    if reason:
        return VoteResult(test, test_val, out_of_fold, False, reason)
    evaluated, labeled = photos.read_evaluated(output_dir), photos.read_labeled(output_dir)
    arrays = photo_features(data_dir, output_dir, labeled, list(out_of_fold["path"]), frame)
    held_out = looks.read_held_out(output_dir) if looks.path_of(output_dir).exists() else ()
    finder = learn_people(arrays, out_of_fold, len(evaluated), held_out, seed)
    report = vote_report(out_of_fold, finder, seed=seed)
    if not (report.is_advised or person_voting == ALWAYS):
        return VoteResult(test, test_val, out_of_fold, False, f"{voting_summary(report)} Nobody voted.")
    forced = "" if report.is_advised else f": person_voting is {ALWAYS!r}"
    reason = f"{voting_summary(report)} Photos of a person voted{forced}."
    both = both_voted(finder, frame, data_dir, output_dir, test, test_val)
    return VoteResult(*both, vote(out_of_fold, finder.group), True, reason, finder, frame)


def both_voted(
    finder: PersonFinder,
    frame: store.Frame,
    data_dir: Path,
    output_dir: Path,
    test: pd.DataFrame,
    held_out: pd.DataFrame,
) -> tuple[pd.DataFrame, pd.DataFrame]:
    """The tables of the evaluation photos, those that could be read, and of test_val after the vote."""
    evaluated, voted = photos.read_evaluated(output_dir), probabilities_of(test)
    is_read = test["ImageID"].isin(evaluated["path"]).to_numpy()
    seen = photo_features(data_dir, output_dir, evaluated, list(test["ImageID"][is_read]), frame)
    voted[is_read] = probabilities_of(vote(test[is_read], finder.find_people(seen, test[is_read])))
    if len(held_out):
        seen = photo_features(data_dir, output_dir, photos.read_labeled(output_dir), list(held_out["path"]), frame)
        held_out = vote(held_out, finder.find_people(seen, held_out))
    return with_probabilities(test, voted), held_out


def write_finder(finder: PersonFinder, frame: store.Frame, path: Path) -> None:
    """Keep what finds people, and nothing of those it was learned from, in a .safetensors file."""
    kept = {**vars(finder.projection), "limits": finder.limits, "threshold": finder.threshold}
    kept["frame"] = [frame.width, frame.height]
    with files.replacing(path) as temporary:
        save_file({name: np.ascontiguousarray(value) for name, value in kept.items()}, temporary)


def read_finder(path: Path) -> tuple[PersonFinder, store.Frame]:
    """What `write_finder` kept, without what was found among the photos it was learned from."""
    kept, unknown = load_file(path), (np.empty(0, np.int64), float("nan"), float("nan"))
    people = Projection(kept["mean"], kept["axes"]), kept["limits"], float(kept["threshold"].item())
    return PersonFinder(*people, *unknown), store.Frame(*kept["frame"].tolist())


def why_nobody_votes(person_voting: bool | str | None, out_of_fold: pd.DataFrame | None) -> str:
    """Why no vote can be held, in a sentence; "" where one can. Raises ValueError for another `person_voting`."""
    if not (person_voting is None or isinstance(person_voting, bool) or person_voting == ALWAYS):
        wanted = f"false, true (if it proves its worth) or {ALWAYS!r} (in any case)"
        raise ValueError(f"person_voting = {person_voting!r}: write {wanted}")
    if not person_voting:
        return "Nobody voted."
    if out_of_fold is None:
        return "Nobody voted: that takes out-of-fold tables of every member."
    if not labels.names(of_person=True):
        return "Nobody voted: no attribute is the same on all photos of a person."
    if photos_a_person(out_of_fold["person"]) < 2:
        return "Nobody voted: people have one photo each."
    return ""


def photo_features(
    data_dir: Path, output_dir: Path, table: pd.DataFrame, paths: list[str], frame: store.Frame
) -> list[np.ndarray]:
    """What describes the photos `paths` of a photo table, rows in their order: a backbone's stages, small photos."""
    asked = table.set_index("path").loc[paths].rename_axis("path").reset_index()
    opened = dataset.open_photos(data_dir, output_dir, asked, frame)
    small = hashes.open_hashes(Path(output_dir) / "hashes", data_dir, asked).small
    rows = opened.rows(paths)
    return [*(one[rows] for one in features.stage_features(opened, Path(output_dir) / "features")), small]


def vote(table: pd.DataFrame, group: np.ndarray) -> pd.DataFrame:
    """`table` (p00 …) with the person's attributes of each group voted upon; group: (N,), rows as in `table`.

    A photo's own attributes stay, and so does every probability of photos that are alone. The votes are averaged as
    logarithms, so that a photo that is sure counts for more. In groups of two or more the attributes become
    independent, as a head for each makes them; rows sum to 1. Raises ValueError for another number of groups.
    """
    if len(group) != len(table):
        raise ValueError(f"the groups are of other photos: {len(group)} and {len(table)} rows")
    found = probabilities_of(table)
    parts = labels.marginals(found / found.sum(axis=1, keepdims=True))
    for name in labels.names(of_person=True):
        logs = pd.DataFrame(np.log(np.maximum(parts[name], LEAST)))
        means = np.exp(logs.groupby(group).transform("mean").to_numpy())
        parts[name] = means / means.sum(axis=1, keepdims=True)
    return with_probabilities(table, np.where(has_company(group)[:, None], labels.joint(parts), found))


def has_company(group: np.ndarray) -> np.ndarray:
    """(N,) bool: whether another photo has the same of (N,) groups."""
    return pd.Series(group).duplicated(keep=False).to_numpy()


def vote_report(out_of_fold: pd.DataFrame, finder: PersonFinder, draws: int = 1000, seed: int = 0) -> VoteReport:
    """How sure the groups are, and macro F1 before and after the vote, on the photos given to `learn_people`.

    Each was grouped by what other people taught; only the threshold, one number, has seen them all.
    """
    truth, before = scores.from_probabilities(out_of_fold)
    _, after = scores.from_probabilities(vote(out_of_fold, finder.group))
    gain = scores.paired_bootstrap(truth, before, after, out_of_fold["person"].to_numpy(), draws=draws, seed=seed)
    macro_f1 = [scores.summarise(truth, answers)["macro_f1"] for answers in (before, after)]
    return VoteReport(finder, float(has_company(finder.group).mean()), *macro_f1, gain)


def voting_summary(report: VoteReport) -> str:
    """What a report says, in a few sentences, with the advice to vote or not."""
    finder, gain = report.finder, report.gain.loc["macro_f1"]
    if not report.grouped:
        return f"No similarity joins photos with a pair precision of {PRECISION:.0%}: nobody votes, leave it off."
    advice = "Voting is worth switching on" if report.is_advised else "That may be chance: leave voting off"
    return (
        f"On training people not learned from, {finder.precision:.1%} of the pairs of photos that were joined show one "
        f"person, and {finder.recall:.0%} of the pairs that do were joined; {report.grouped:.0%} of the photos have "
        f"company. Voting takes macro F1 from {report.before:.3f} to {report.after:.3f}, a difference of "
        f"{gain['difference']:+.3f} ({gain['low']:+.3f} to {gain['high']:+.3f}). {advice}."
    )

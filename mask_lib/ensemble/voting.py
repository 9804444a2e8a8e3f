"""Photos that seem to show one person vote on the person's attributes, where that proves its worth."""

from pathlib import Path
from typing import NamedTuple

import numpy as np
import pandas as pd
from safetensors.numpy import load_file, save_file

from mask_lib.base import files, labels, results, scores
from mask_lib.data import hashes, photos
from mask_lib.data.store import Frame
from mask_lib.ensemble.calibration import LEAST
from mask_lib.ensemble.members import probabilities_of, with_probabilities
from mask_lib.ensemble.person_groups import PRECISION, PersonFinder, learn_people, photos_a_person
from mask_lib.models import features, looks
from mask_lib.training import dataset

ALWAYS = "always"
Tables = tuple[pd.DataFrame, pd.DataFrame, pd.DataFrame | None]  # the first three of a `VoteResult`


class VoteResult(NamedTuple):
    """An ensemble's tables after the vote, or as they were where nobody voted."""

    test: pd.DataFrame  # ImageID, p00 …
    test_val: pd.DataFrame  # path, label, person, p00 …
    out_of_fold: pd.DataFrame | None  # path, person, label, p00 …; what a score is expected from
    has_voted: bool
    reason: str  # whether photos voted and why, in a few sentences
    found_by: tuple[PersonFinder, Frame] | None = None  # who found those who voted, and what it saw


def hold_vote(
    person_voting: bool | str | None, data_dir: Path, output_dir: Path, tables: Tables, frame: Frame, seed: int = 0
) -> VoteResult:
    """Let photos that seem to show one person vote, if `person_voting` asks for it.

    person_voting: False or None, nobody; True, where the gain in macro F1 on training photos is above 0 for sure;
    `ALWAYS`, in any case. tables: the first three of a `VoteResult`; from the third is learned who resembles whom and
    what the vote gains. Photos of held-out looks (`looks.find`) teach nothing until it is settled who votes; photos
    that could not be read stay as they are. frame: what the frozen backbone sees. ValueError as `why_nobody_votes`.
    """
    (test, test_val, out_of_fold), packed = tables, results.read(output_dir)
    if packed and packed["recipe"]["has_voted"] and person_voting is None:
        reason, found_by = "Photos of a person voted, as in the results.", read_finder(Path(output_dir) / results.VOTE)
        return VoteResult(*both_voted(*found_by, data_dir, output_dir, test, test_val), None, True, reason, found_by)
    if reason := why_nobody_votes(person_voting, out_of_fold):
        return VoteResult(*tables, False, reason)
    arrays = photo_features(data_dir, output_dir, photos.read_labeled(output_dir), list(out_of_fold["path"]), frame)
    held_out = looks.read_held_out(output_dir) if looks.path_of(output_dir).exists() else ()
    finder = learn_people(arrays, out_of_fold, len(photos.read_evaluated(output_dir)), held_out, seed)
    is_advised, report = vote_report(out_of_fold, finder, seed=seed)
    if not (is_advised or person_voting == ALWAYS):
        return VoteResult(*tables, False, f"{report} Nobody voted.")
    forced = "" if is_advised else f": person_voting is {ALWAYS!r}"
    reason = f"{report} Photos of a person voted{forced}."
    both = both_voted(finder, frame, data_dir, output_dir, test, test_val)
    return VoteResult(*both, vote(out_of_fold, finder.group), True, reason, (finder, frame))


def both_voted(
    finder: PersonFinder, frame: Frame, data_dir: Path, output_dir: Path, test: pd.DataFrame, held_out: pd.DataFrame
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


def write_finder(finder: PersonFinder, frame: Frame, path: Path) -> None:
    """Keep what finds people, and nothing of those it was learned from, in a .safetensors file."""
    kept = {"mean": finder.mean, "axes": finder.axes, "limits": finder.limits, "threshold": finder.threshold}
    kept["frame"] = [frame.width, frame.height]
    with files.replacing(path) as temporary:
        save_file({name: np.ascontiguousarray(value) for name, value in kept.items()}, temporary)


def read_finder(path: Path) -> tuple[PersonFinder, Frame]:
    """What `write_finder` kept, without what was found among the photos it was learned from."""
    kept = load_file(path)
    finder = PersonFinder(kept["mean"], kept["axes"], kept["limits"], kept["threshold"].item())
    return finder, Frame(*kept["frame"].tolist())


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
    data_dir: Path, output_dir: Path, table: pd.DataFrame, paths: list[str], frame: Frame
) -> list[np.ndarray]:
    """What describes the photos `paths` of a photo table, rows in their order: a backbone's stages, small photos."""
    asked = table.set_index("path").loc[paths].rename_axis("path").reset_index()
    opened = dataset.open_photos(data_dir, output_dir, asked, frame)
    small = hashes.open_hashes(Path(output_dir) / "hashes", data_dir, asked).small
    return [*features.stage_features(opened, Path(output_dir) / "features"), small]


def vote(table: pd.DataFrame, group: np.ndarray) -> pd.DataFrame:
    """`table` (p00 …) with the person's attributes of each group voted upon; group: (N,), rows as in `table`.

    A photo's own attributes stay, and so do photos that are alone. Votes are averaged as logarithms: a photo that is
    sure counts for more. In groups the attributes become independent, and rows sum to 1.
    """
    found = probabilities_of(table)
    parts = labels.marginals(found / found.sum(axis=1, keepdims=True))
    for name in labels.names(of_person=True):
        logs = pd.DataFrame(np.log(np.maximum(parts[name], LEAST)))
        means = np.exp(logs.groupby(group).transform("mean").to_numpy())
        parts[name] = means / means.sum(axis=1, keepdims=True)
    has_company = pd.Series(group).duplicated(keep=False).to_numpy()
    return with_probabilities(table, np.where(has_company[:, None], labels.joint(parts), found))


def vote_report(out_of_fold: pd.DataFrame, finder: PersonFinder, seed: int = 0) -> tuple[bool, str]:
    """Whether a vote of the photos given to `learn_people` gains macro F1 for sure, and what it does, in sentences."""
    grouped = pd.Series(finder.group).duplicated(keep=False).mean()
    if not grouped:
        none = f"No similarity joins photos with a pair precision of {PRECISION:.0%}"
        return False, f"{none}: nobody votes, leave it off."
    voted = vote(out_of_fold, finder.group)
    gain = scores.compare(out_of_fold, voted, seed).loc["macro_f1"]
    old, new = (scores.summarise(*scores.from_probabilities(one))["macro_f1"] for one in (out_of_fold, voted))
    is_advised = bool(gain["low"] > 0)
    advice = "Voting is worth switching on" if is_advised else "That may be chance: leave voting off"
    return is_advised, (
        f"On training people not learned from, {finder.precision:.1%} of the pairs of photos that were joined show one "
        f"person, and {finder.recall:.0%} of the pairs that do were joined; {grouped:.0%} of the photos have company. "
        f"Voting takes macro F1 from {old:.3f} to {new:.3f}, a difference of {gain['difference']:+.3f} "
        f"({gain['low']:+.3f} to {gain['high']:+.3f}). {advice}."
    )

"""What a search found, as tables: its trials, the best of them, and what its operations had to do with it."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from optuna.trial import FrozenTrial, TrialState

from mask_lib import files, policies
from mask_lib.journal import SLOT

POLICY, SECONDS, MACRO_F1 = "policy", "seconds", "macro_f1"  # attributes of a trial
COLUMNS = ["trial", "state", "value", "macro_f1", "epochs", "seconds", "policy"]
COMPLETE, PRUNED = "complete", "pruned"


def table(finished: list[FrozenTrial]) -> pd.DataFrame:
    """One row a finished trial, columns `COLUMNS`; trial 0 is no augmentation.

    value is what the search maximises; a pruned trial has none. policy is JSON text. Raises ValueError
    for a trial whose policy is none, as in a journal that was tampered with.
    """
    return pd.DataFrame([_row(trial) for trial in finished], columns=COLUMNS)


def _row(trial: FrozenTrial) -> dict[str, Any]:
    number, attributes = trial.user_attrs[SLOT], trial.user_attrs
    try:
        policy = policies.Policy.from_plain(attributes.get(POLICY))
    except ValueError as error:
        raise ValueError(f"trial {number} of the search's journal holds no policy: {error}") from None
    return {
        "trial": number,
        "state": COMPLETE if trial.state == TrialState.COMPLETE else PRUNED,
        "value": trial.value if trial.state == TrialState.COMPLETE else np.nan,
        "macro_f1": attributes.get(MACRO_F1, np.nan),
        "epochs": len(trial.intermediate_values),
        "seconds": attributes.get(SECONDS, np.nan),
        "policy": json.dumps(policy.plain()),
    }


def read(folder: Path) -> pd.DataFrame:
    """The trials as a search wrote them below `folder`. Raises FileNotFoundError that says what to run first."""
    path = Path(folder) / "trials.csv"
    if not path.exists():
        raise FileNotFoundError(f"there is no {files.shown_path(path)}: run 02_search_augmentation first")
    return pd.read_csv(path)


def best(trials: pd.DataFrame, count: int) -> list[policies.Policy]:
    """The policies of the `count` trials with the highest value, the best first; no augmentation is none of them.

    Raises ValueError if no policy was scored to the end.
    """
    scored = trials[(trials["state"] == COMPLETE) & (trials["trial"] > 0)]
    if scored.empty:
        raise ValueError("no policy was scored to the end")
    ranked = scored.sort_values(["value", "trial"], ascending=[False, True]).head(count)
    return [policies.Policy.from_plain(json.loads(text)) for text in ranked["policy"]]


def importance(trials: pd.DataFrame) -> pd.DataFrame:
    """Which operations the score of a policy goes with: columns `operation`, `correlation`, `policies`.

    correlation: Spearman's, over the scored policies, between the value and how much a policy uses the
    operation (`use`); 0 where all use it alike. policies: how many use it at all. With few trials it
    is a hint; it is no effect, since nothing was held fixed.
    """
    scored = trials[(trials["state"] == COMPLETE) & (trials["trial"] > 0)]
    uses = pd.DataFrame([use(policies.Policy.from_plain(json.loads(text))) for text in scored["policy"]]).fillna(0.0)
    ranks = scored["value"].rank().to_numpy()
    found = pd.DataFrame(
        {
            "operation": list(uses.columns),
            "correlation": [_correlation(uses[name].rank().to_numpy(), ranks) for name in uses],
            "policies": [int((uses[name] > 0).sum()) for name in uses],
        }
    )
    return found.sort_values(["correlation", "operation"], ascending=[False, True], ignore_index=True)


def _correlation(left: np.ndarray, right: np.ndarray) -> float:
    """Pearson's; 0 where one side does not vary, or for fewer than two values."""
    varies = len(left) > 1 and np.ptp(left) > 0 and np.ptp(right) > 0
    return float(np.corrcoef(left, right)[0, 1]) if varies else 0.0


def use(policy: policies.Policy) -> dict[str, float]:
    """How much of each operation a photo meets on the mean: probability times magnitude, 1 where it has none."""
    found: dict[str, float] = {}
    for steps in policy.sub_policies:
        for step in steps:
            magnitude = 1.0 if step.magnitude is None else step.magnitude
            share = step.probability * magnitude / len(policy.sub_policies)
            found[step.operation] = found.get(step.operation, 0.0) + share
    return found

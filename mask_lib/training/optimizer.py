"""The optimizer of a run, its learning rate at each moment, and what stands still while the rest learns."""

import contextlib
import math
from collections.abc import Iterator, Mapping, Sequence

import torch
from timm.models import group_parameters
from timm.optim import param_groups_layer_decay, param_groups_weight_decay
from torch import nn

from mask_lib.base.config import Run
from mask_lib.models import networks


def build_optimizer(network: nn.Module, run: Run) -> torch.optim.Optimizer:
    """SGD or AdamW over the network's `parameter_groups`; `lr` starts at 0."""
    groups = parameter_groups(network, run)
    fused = next(network.parameters()).device.type == "cuda"  # one call for all weights
    if run.optimizer == "sgd":
        return torch.optim.SGD(groups, lr=0.0, momentum=run.momentum, fused=fused)
    return torch.optim.AdamW(groups, lr=0.0, betas=(run.momentum, 0.999), fused=fused)


def parameter_groups(network: nn.Module, run: Run) -> list[dict]:
    """Optimizer groups of equal `weight_decay` and equal `peak`, the highest learning rate.

    As timm groups them, biases, normalisation weights and what a network's `no_weight_decay()` lists are not decayed,
    and with a `layer_decay` below 1 each layer learns that many times as fast as the one after it (ELECTRA, Clark et
    al. 2020). The last layer learns `head_learning_rate_scale` times faster.
    """
    own = set(map(id, parameters_but_head(network)))
    names = network.no_weight_decay() if hasattr(network, "no_weight_decay") else ()
    if run.layer_decay < 1:
        found = param_groups_layer_decay(network, run.weight_decay, names, layer_decay=run.layer_decay)
    else:
        found = param_groups_weight_decay(network, run.weight_decay, no_weight_decay_list=names)
    groups: dict[tuple[float, float], list[nn.Parameter]] = {}  # few and large, since each costs the GPU a call
    for group in found:
        for parameter in group["params"]:
            scale = 1.0 if id(parameter) in own else run.head_learning_rate_scale
            peak = run.learning_rate * group.get("lr_scale", 1.0) * scale
            groups.setdefault((peak, group["weight_decay"]), []).append(parameter)
    return [{"params": members, "peak": peak, "weight_decay": decay} for (peak, decay), members in groups.items()]


@contextlib.contextmanager
def frozen(network: nn.Module, run: Run, epoch: int) -> Iterator[None]:
    """After `network.train()`: what stands still in an epoch does not learn, and no running statistic of it moves.

    That is all but the last layer in the first `frozen_epochs`, and later the first `frozen_stages`. ValueError for so
    many stages that nothing but the last layer would ever learn, and for a network whose stages timm does not know.
    """
    still = parameters_but_head(network) if epoch < run.frozen_epochs else parameters_of_stages(network, run)
    known = set(map(id, still))
    # Dropout and the like go on.
    with_statistics = (one for one in network.modules() if known and hasattr(one, "running_mean"))
    head = {id(one) for layer in networks.last_layers(network) for one in layer.modules()}
    held = [one for one in with_statistics if id(one) not in head and all(id(p) in known for p in one.parameters())]
    normalisations = nn.ModuleList(held).eval()
    learning = nn.ParameterList(one for one in still if one.requires_grad).requires_grad_(False)
    try:
        yield
    finally:
        normalisations.train()
        learning.requires_grad_(True)


def parameters_but_head(network: nn.Module) -> list[nn.Parameter]:
    """All parameters but those of the last layer."""
    head = {id(one) for layer in networks.last_layers(network) for one in layer.parameters()}
    return [one for one in network.parameters() if id(one) not in head]


def parameters_of_stages(network: nn.Module, run: Run) -> list[nn.Parameter]:
    """Those of the first `frozen_stages`, counted as timm groups layers: the stem, then each stage of blocks."""
    if not run.frozen_stages:
        return []
    if not hasattr(network, "group_matcher"):
        unknown = f"timm knows no stages of {run.architecture}: set it to 0"
        raise ValueError(f"frozen_stages = {run.frozen_stages}: {unknown}")
    named = list(network.named_parameters())
    stage_of = group_parameters(network, network.group_matcher(coarse=True), reverse=True)
    own = set(map(id, parameters_but_head(network)))
    stages = sorted({stage_of[name] for name, one in named if id(one) in own})
    if run.frozen_stages >= len(stages):
        most = f"{run.architecture} has {len(stages) - 1} before its last: at most that"
        raise ValueError(f"frozen_stages = {run.frozen_stages}: {most}")
    return [one for name, one in named if id(one) in own and stage_of[name] in stages[: run.frozen_stages]]


PLATEAU_FACTOR = 0.1  # of the learning rate, after each plateau
ONE_CYCLE_RISE = 0.3  # share of the epochs in which one cycle goes up, unless warmup_epochs says how many do
ONE_CYCLE_END = 1e-4  # share of the peak that is left at its end: nearly nothing (Smith & Topin 2018)
History = Sequence[Mapping[str, float]]  # a row an epoch, among others with val_macro_f1


def learning_rate_factor(run: Run, progress: float, history: History = ()) -> float:
    """The share of the peak learning rate at `progress`, in epochs since the start; plateau reads the `history`."""
    rising = rising_epochs(run)
    if progress < rising:
        return (progress + 1e-3) / (rising + 1e-3)
    share = (progress - rising) / max(run.epochs - rising, 1e-9)
    falling = 0.5 * (1 + math.cos(math.pi * share))
    if run.schedule == "cosine":
        return falling
    if run.schedule == "one_cycle":
        return ONE_CYCLE_END + (1 - ONE_CYCLE_END) * falling
    if run.schedule == "step":
        return 0.1 ** int(progress / run.step_epochs if run.step_epochs else share * 3)
    if run.schedule == "plateau":
        return PLATEAU_FACTOR ** sum(idle > 0 and idle % run.plateau_epochs == 0 for idle in idle_epochs(run, history))
    return 1.0


def rising_epochs(run: Run) -> float:
    """For how many epochs the learning rate rises to its peak; a warm-up is one cycle's rise, not one before it."""
    return run.warmup_epochs or (ONE_CYCLE_RISE * run.epochs if run.schedule == "one_cycle" else 0.0)


def stopped_early(run: Run, history: History) -> bool:
    """Whether a run ended because its macro F1 had not risen for `early_stop_epochs` epochs."""
    return run.early_stop_epochs > 0 and any(idle >= run.early_stop_epochs for idle in idle_epochs(run, history))


def idle_epochs(run: Run, history: History) -> list[int]:
    """After each epoch, for how many epochs the macro F1 on the validation fold has not been better than before.

    0 until the learning rate has risen and the backbone has thawed: before that a standstill means nothing.
    """
    begun = max(run.frozen_epochs, math.ceil(rising_epochs(run)))
    best, idle = -math.inf, [0]
    for epoch, row in enumerate(history, start=1):
        better = row["val_macro_f1"] > best
        best = max(best, row["val_macro_f1"])
        idle.append(0 if better or epoch <= begun else idle[-1] + 1)
    return idle[1:]

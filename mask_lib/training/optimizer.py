"""The optimizer of a run, its learning rate at each moment, and a backbone that stands still while its head learns."""

import contextlib
import math
from collections.abc import Iterator, Mapping, Sequence

import torch
from timm.optim import param_groups_layer_decay, param_groups_weight_decay
from torch import nn

from mask_lib.base.config import Run
from mask_lib.models import networks


def build_optimizer(network: nn.Module, run: Run) -> torch.optim.Optimizer:
    """SGD or AdamW over the network's parameter groups, each with its `peak` learning rate; `lr` starts at 0."""
    scale, decay = run.head_learning_rate_scale, run.weight_decay
    groups = parameter_groups(network, run.learning_rate, scale, decay, run.layer_decay)
    fused = next(network.parameters()).device.type == "cuda"  # one call for all weights
    if run.optimizer == "sgd":
        return torch.optim.SGD(groups, lr=0.0, momentum=run.momentum, fused=fused)
    return torch.optim.AdamW(groups, lr=0.0, betas=(run.momentum, 0.999), fused=fused)


def parameter_groups(
    network: nn.Module, learning_rate: float, head_scale: float, weight_decay: float, layer_decay: float = 1.0
) -> list[dict]:
    """Optimizer groups of equal `weight_decay` and equal `peak`, the highest learning rate.

    As timm groups them, biases, normalisation weights and what a network's `no_weight_decay()` lists are not
    decayed, and with a `layer_decay` below 1 each layer learns that many times as fast as the one after it (Clark
    et al. 2020, ELECTRA). The last layer learns `head_scale` times faster.
    """
    head = {id(parameter) for layer in networks.last_layers(network) for parameter in layer.parameters()}
    names = network.no_weight_decay() if hasattr(network, "no_weight_decay") else ()
    if layer_decay < 1:
        found = param_groups_layer_decay(network, weight_decay, names, layer_decay=layer_decay)
    else:
        found = param_groups_weight_decay(network, weight_decay, no_weight_decay_list=names)
    groups: dict[tuple[float, float], list[nn.Parameter]] = {}  # few and large, since each costs the GPU a call
    for group in found:
        for parameter in group["params"]:
            peak = learning_rate * group.get("lr_scale", 1.0) * (head_scale if id(parameter) in head else 1.0)
            groups.setdefault((peak, group["weight_decay"]), []).append(parameter)
    return [{"params": members, "peak": peak, "weight_decay": decay} for (peak, decay), members in groups.items()]


@contextlib.contextmanager
def frozen_backbone(network: nn.Module, frozen: bool = True) -> Iterator[None]:
    """After `network.train()`: only the last layer learns, if `frozen`, and no running statistic but its own moves."""
    head = {id(one) for layer in networks.last_layers(network) for one in [*layer.parameters(), *layer.modules()]}
    parameters = [one for one in network.parameters() if frozen and one.requires_grad and id(one) not in head]
    # Dropout and the like go on.
    with_statistics = [one for one in network.modules() if frozen and hasattr(one, "running_mean")]
    normalisations = nn.ModuleList(one for one in with_statistics if id(one) not in head).eval()
    for parameter in parameters:
        parameter.requires_grad_(False)
    try:
        yield
    finally:
        normalisations.train()
        for parameter in parameters:
            parameter.requires_grad_(True)


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

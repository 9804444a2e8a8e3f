"""The optimizer of a run, how fast each layer learns, and a backbone that stands still while its last layer learns.

How fast training learns at each moment, and when it stops: functions of the run and its history alone.
"""

import contextlib
import math
from collections.abc import Iterator, Mapping, Sequence

import torch
from timm.optim import param_groups_layer_decay
from torch import nn

from mask_lib.base import config
from mask_lib.models import networks


def build_optimizer(network: nn.Module, run: config.Run) -> torch.optim.Optimizer:
    """SGD or AdamW over the network's parameter groups, each with its `peak` learning rate; `lr` starts at 0."""
    groups = parameter_groups(
        network, run.learning_rate, run.head_learning_rate_scale, run.weight_decay, run.layer_decay
    )
    if run.optimizer == "sgd":
        return torch.optim.SGD(groups, lr=0.0, momentum=run.momentum)
    return torch.optim.AdamW(groups, lr=0.0, betas=(run.momentum, 0.999))


def parameter_groups(
    network: nn.Module, learning_rate: float, head_scale: float, weight_decay: float, layer_decay: float = 1.0
) -> list[dict]:
    """Optimizer groups: backbone and last layer, each with and without weight decay.

    Biases and normalisation weights, which have one dimension, are never decayed. Each group holds
    `peak`, its highest learning rate. With a `layer_decay` below 1 there are such groups for each layer
    as timm numbers them (a block of a transformer, of a ResNet …), and each learns that many times as
    fast as the one after it (Clark et al. 2020, ELECTRA); the last layer as fast as without.
    """
    head = {id(parameter) for layer in networks.last_layers(network) for parameter in layer.parameters()}
    scales = _layer_scales(network, layer_decay)
    groups: dict[tuple[bool, float, bool], list[nn.Parameter]] = {}
    for parameter in network.parameters():
        if parameter.requires_grad:
            key = (id(parameter) in head, scales.get(id(parameter), 1.0), parameter.ndim > 1)
            groups.setdefault(key, []).append(parameter)
    return [
        {"params": members, "peak": learning_rate * scale * (head_scale if in_head else 1.0), "lr": 0.0}
        | {"weight_decay": weight_decay if decays else 0.0}
        for (in_head, scale, decays), members in groups.items()
    ]


def _layer_scales(network: nn.Module, layer_decay: float) -> dict[int, float]:
    """By a parameter's id the share of the learning rate that its depth leaves it; empty for no decay."""
    if layer_decay == 1:
        return {}
    groups = param_groups_layer_decay(network, layer_decay=layer_decay)
    return {id(parameter): group["lr_scale"] for group in groups for parameter in group["params"]}


@contextlib.contextmanager
def frozen_backbone(network: nn.Module, frozen: bool = True) -> Iterator[None]:
    """Within it only the last layer learns, if `frozen`: no other parameter and no running statistic moves.

    Enter it after `network.train()`. Parameters that never learn, such as fixed position embeddings, are
    left as they are.
    """
    layers = networks.last_layers(network)
    head = {id(part) for layer in layers for part in [*layer.parameters(), *layer.modules()]}
    parameters = [one for one in network.parameters() if frozen and one.requires_grad and id(one) not in head]
    # Batch and instance normalisation: whatever else a network does differently in training, such as
    # dropout, it goes on doing.
    normalisations = [
        one for one in network.modules() if frozen and hasattr(one, "running_mean") and id(one) not in head
    ]
    for parameter in parameters:
        parameter.requires_grad_(False)
    for module in normalisations:
        module.eval()
    try:
        yield
    finally:
        for parameter in parameters:
            parameter.requires_grad_(True)
        for module in normalisations:
            module.train()


PLATEAU_FACTOR = 0.1  # of the learning rate, after each plateau
ONE_CYCLE_RISE = 0.3  # share of the epochs in which one cycle goes up, unless warmup_epochs says how many do
ONE_CYCLE_END = 1e-4  # share of the peak that is left at its end: nearly nothing (Smith & Topin 2018)
History = Sequence[Mapping[str, float]]  # a row an epoch, among others with val_macro_f1


def learning_rate_factor(run: config.Run, progress: float, history: History = ()) -> float:
    """The share of the peak learning rate at `progress`, in epochs since the start.

    history: the epochs before, which only the schedule plateau asks for. It is part of a checkpoint, so
    a run that goes on has the same factor as one that was never interrupted.
    """
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
        return 0.1 ** int(share * 3)
    if run.schedule == "plateau":
        return PLATEAU_FACTOR ** sum(idle > 0 and idle % run.plateau_epochs == 0 for idle in idle_epochs(run, history))
    return 1.0


def rising_epochs(run: config.Run) -> float:
    """For how many epochs the learning rate rises to its peak; a warm-up is one cycle's rise, not one before it."""
    return run.warmup_epochs or (ONE_CYCLE_RISE * run.epochs if run.schedule == "one_cycle" else 0.0)


def stopped_early(run: config.Run, history: History) -> bool:
    """Whether a run ended because its macro F1 had not risen for `early_stop_epochs` epochs."""
    return run.early_stop_epochs > 0 and any(idle >= run.early_stop_epochs for idle in idle_epochs(run, history))


def idle_epochs(run: config.Run, history: History) -> list[int]:
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

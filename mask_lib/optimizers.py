"""The optimizer of a run, how fast each layer learns, and a backbone that stands still while its last layer learns."""

import contextlib
from collections.abc import Iterator

import torch
from timm.optim import param_groups_layer_decay
from torch import nn

from mask_lib import config, heads


def build(network: nn.Module, run: config.Run) -> torch.optim.Optimizer:
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
    head = {id(parameter) for layer in heads.last_layers(network) for parameter in layer.parameters()}
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
    layers = heads.last_layers(network)
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

"""The optimizer of a run, and a backbone that stands still while its new last layer learns."""

import contextlib
from collections.abc import Iterator

import torch
from torch import nn

from mask_lib import config, heads, models


def build(network: nn.Module, run: config.Run) -> torch.optim.Optimizer:
    """SGD or AdamW over the network's parameter groups, each with its `peak` learning rate; `lr` starts at 0."""
    groups = models.parameter_groups(
        network, run.learning_rate, run.head_learning_rate_scale, run.weight_decay, run.layer_decay
    )
    if run.optimizer == "sgd":
        return torch.optim.SGD(groups, lr=0.0, momentum=run.momentum)
    return torch.optim.AdamW(groups, lr=0.0, betas=(run.momentum, 0.999))


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

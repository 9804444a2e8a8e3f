"""Where a network looks: Grad-CAM (Selvaraju et al. 2017), by captum.

For convolution networks, and for vision transformers whose last block still sees a grid of patches.
"""

import contextlib
from collections.abc import Callable, Iterator, Sequence

import numpy as np
import torch
from torch import nn

from mask_lib.base import labels
from mask_lib.models import build, networks

EXPLAIN_BATCH = 16  # photos; gradients take more room than predictions


def by_head(
    network: nn.Module | Sequence[networks.FrozenNetwork],
    preprocessing: build.Preprocessing,
    photo: np.ndarray,
    label: int,
) -> dict[str, np.ndarray]:
    """(H, W) float32 `heatmaps` of one (H, W, C) uint8 photo for a class: of each attribute's value, by its name, by
    that attribute's head; of a network with one head the class's own, by the name "class".

    Of frozen networks, of one backbone, whose heads see means and deviations, the last stage's means are followed.
    """
    frozen = network if isinstance(network, Sequence) else []
    heads = [head for one in frozen for head in one.heads] or networks.last_layers(network)[:1]
    if not isinstance(heads[0], networks.AttributeHeads):
        return {"class": heatmaps(network, preprocessing, photo[None], [label])[0]}
    places = np.cumsum((0, *labels.shape()[:-1])) + labels.decode(label)  # among the values of all attributes

    def logits(batch: torch.Tensor) -> torch.Tensor:
        found: list[torch.Tensor] = []
        with contextlib.ExitStack() as hooks:
            for one in (one for head in heads for one in head.heads.values()):
                hooks.enter_context(one.register_forward_hook(lambda _module, _inputs, output: found.append(output)))
            networks.of_one_backbone(frozen, batch) if frozen else network(batch)
        return torch.cat(found, dim=1).unflatten(1, (len(heads), -1)).mean(dim=1)  # (B, values of all attributes)

    repeated, seen = np.repeat(photo[None], len(places), axis=0), frozen[0] if frozen else network
    return dict(zip(labels.names(), heatmaps(seen, preprocessing, repeated, places, logits), strict=True))


def heatmaps(
    network: nn.Module,
    preprocessing: build.Preprocessing,
    photos_uint8: np.ndarray,
    classes: np.ndarray,
    logits: Callable[[torch.Tensor], torch.Tensor] | None = None,
) -> np.ndarray:
    """(N, H, W) float32 in [0, 1]: how much each place of a photo speaks for its class, 1 where most does.

    photos_uint8: (N, H, W, C), of the size and channels that `preprocessing` tells; classes: (N,) class numbers, or
    places in what `logits` gives, (N, K) by a call of the network.
    Where nothing speaks for it, zeros. Raises UnsupportedError if maps are not laid out in places, as Swin's.
    """
    from captum.attr import LayerAttribution, LayerGradCam  # here, for it takes most of a second to load

    network.eval()
    device, found = next(network.parameters()).device, [np.empty((0, *photos_uint8.shape[1:3]), dtype=np.float32)]
    for start in range(0, len(photos_uint8), EXPLAIN_BATCH):
        block = slice(start, start + EXPLAIN_BATCH)
        pixels = torch.from_numpy(np.array(photos_uint8[block])).to(device).permute(0, 3, 1, 2)
        batch = preprocessing.prepared(pixels.float() / 255)
        target = torch.as_tensor(np.asarray(classes)[block], dtype=torch.int64, device=device)
        with maps_layer(network, batch[:1]) as layer:
            cam = LayerGradCam(logits or network, layer).attribute(batch, target, relu_attributions=True)
        cam = cam.detach().float()  # (B, 1, h, w)
        whole = LayerAttribution.interpolate(cam, batch.shape[2:], "bilinear")[:, 0]  # (B, H, W)
        highest = whole.amax(dim=(1, 2), keepdim=True)
        found.append((whole / highest.clamp_min(torch.finfo(whole.dtype).tiny)).clamp(0, 1).cpu().numpy())
    return np.concatenate(found)


@contextlib.contextmanager
def maps_layer(network: nn.Module, photo: torch.Tensor) -> Iterator[nn.Module]:
    """The layer whose (B, C, h, w) outputs are the last that still tell places apart; photo: (1, C, H, W), prepared.

    For a vision transformer it is put before the last block, after which only the class token counts: while the
    context is open the patches go through it as (B, D, rows, columns).
    """
    whole, network = network, getattr(network, "backbone", network)  # of a frozen one
    if not (hasattr(network, "num_prefix_tokens") and hasattr(network, "blocks")):
        yield _last_maps(whole, photo)
        return
    (rows, columns), before, layer = network.patch_embed.grid_size, network.num_prefix_tokens, nn.Identity()

    def through_layer(_block: nn.Module, inputs: tuple) -> tuple:
        tokens = inputs[0]  # (B, prefix + patches, D)
        if tokens.shape[1] != before + rows * columns:
            name, patches = type(network).__name__, tokens.shape[1] - before
            raise networks.UnsupportedError(f"{name} has {patches} patches, not {rows} x {columns}")
        maps = layer(tokens[:, before:].transpose(1, 2).unflatten(2, (rows, columns)))
        return (torch.cat([tokens[:, :before], maps.flatten(2).transpose(1, 2)], dim=1), *inputs[1:])

    with network.blocks[-1].register_forward_pre_hook(through_layer):
        yield layer


def _last_maps(network: nn.Module, photo: torch.Tensor) -> nn.Module:
    """Of the modules before the classifier the one that finishes last with maps of more than one place."""
    inner = getattr(network, "backbone", network)  # of a frozen one
    name, layout = type(inner).__name__, getattr(inner, "output_fmt", "NCHW")
    if layout != "NCHW":
        raise networks.UnsupportedError(f"{name} lays its maps out as {layout}: Grad-CAM here needs NCHW")
    last = networks.last_layers(network) if hasattr(network, "get_classifier") else ()
    of_head = {part for layer in last for part in layer.modules()}
    finished: list[nn.Module] = []

    def note(module: nn.Module, _inputs: tuple, output: object) -> None:
        is_map = isinstance(output, torch.Tensor) and output.ndim == 4 and output.shape[2:].numel() > 1
        if is_map and module not in of_head:
            finished.append(module)

    with nn.modules.module.register_module_forward_hook(note), torch.no_grad():
        network(photo)
    if not finished:
        raise networks.UnsupportedError(f"{name} has no layer that tells places of a photo of this size apart")
    return finished[-1]

"""Where a network looks: Grad-CAM (Selvaraju et al. 2017), by captum, over photos and over a run's worst mistakes.

For convolution networks, and for vision transformers whose last block still sees a grid of patches.
"""

import contextlib
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pandas as pd
import torch
from captum.attr import LayerAttribution, LayerGradCam
from matplotlib.figure import Figure
from torch import nn

from mask_lib.base import scores
from mask_lib.data import photos, store
from mask_lib.models import build, devices, networks, predict
from mask_lib.models.checkpoint import read_checkpoint
from mask_lib.plots import galleries
from mask_lib.training import run_folder
from mask_lib.training.run_folder import FinishedRun

EXPLAIN_BATCH = 16  # photos; gradients take more room than predictions


class UnsupportedNetworkError(ValueError):
    """A network without maps in which places of the photo could be told apart."""


def heatmaps(
    network: nn.Module, preprocessing: build.Preprocessing, photos_uint8: np.ndarray, classes: np.ndarray
) -> np.ndarray:
    """(N, H, W) float32 in [0, 1]: how much each place of a photo speaks for its class, 1 where most does.

    photos_uint8: (N, H, W, C), of the size and channels that `preprocessing` tells; classes: (N,) class numbers.
    A photo in which nothing speaks for its class has a map of zeros. The network is left in eval mode. Raises
    UnsupportedNetworkError for one whose maps are not laid out in places, such as Swin's.
    """
    network.eval()
    device, found = next(network.parameters()).device, [np.empty((0, *photos_uint8.shape[1:3]), dtype=np.float32)]
    for block in store.blocks(len(photos_uint8), EXPLAIN_BATCH):
        pixels = torch.from_numpy(np.array(photos_uint8[block])).to(device).permute(0, 3, 1, 2)
        batch = preprocessing.prepared(pixels.float() / 255)
        target = torch.as_tensor(np.asarray(classes)[block], dtype=torch.int64, device=device)
        with places_layer(network, batch[:1]) as layer:
            cam = LayerGradCam(network, layer).attribute(batch, target, relu_attributions=True)  # (B, 1, h, w)
        whole = LayerAttribution.interpolate(cam.detach().float(), batch.shape[2:], "bilinear")[:, 0]  # (B, H, W)
        highest = whole.amax(dim=(1, 2), keepdim=True)
        found.append((whole / highest.clamp_min(torch.finfo(whole.dtype).tiny)).clamp(0, 1).cpu().numpy())
    return np.concatenate(found)


@contextlib.contextmanager
def places_layer(network: nn.Module, photo: torch.Tensor) -> Iterator[nn.Module]:
    """The layer whose (B, C, h, w) outputs are the last that still tell places apart.

    photo: (1, C, H, W), prepared, to be sent through once. For a vision transformer it is one put before the
    last block, for as long as the context is open: after it only the class token counts.
    """
    if hasattr(network, "num_prefix_tokens") and hasattr(network, "blocks"):
        with _tokens_as_maps(network) as layer:
            yield layer
        return
    if getattr(network, "output_fmt", "NCHW") != "NCHW":
        raise UnsupportedNetworkError(
            f"{type(network).__name__} lays its maps out as {network.output_fmt}: Grad-CAM here needs a convolution "
            "network or a plain vision transformer"
        )
    yield _last_maps(network, photo)


def _last_maps(network: nn.Module, photo: torch.Tensor) -> nn.Module:
    """Of the modules before the classifier the one that finishes last with maps of more than one place."""
    last = networks.last_layers(network) if hasattr(network, "get_classifier") else ()
    of_head = {part for layer in last for part in layer.modules()}
    finished: list[nn.Module] = []

    def note(module: nn.Module, _inputs: tuple, output: object) -> None:
        if isinstance(output, torch.Tensor) and output.ndim == 4 and output.shape[2:].numel() > 1:
            finished.append(module)

    hooks = [module.register_forward_hook(note) for module in network.modules() if module not in of_head]
    try:
        with torch.no_grad():
            network(photo)
    finally:
        for hook in hooks:
            hook.remove()
    if not finished:
        raise UnsupportedNetworkError(
            f"{type(network).__name__} has no layer that tells places of a photo of this size apart"
        )
    return finished[-1]


@contextlib.contextmanager
def _tokens_as_maps(network: nn.Module) -> Iterator[nn.Module]:
    """A layer before a vision transformer's last block, through which its patches go as (B, D, rows, columns)."""
    rows, columns = network.patch_embed.grid_size
    before, layer = network.num_prefix_tokens, nn.Identity()

    def through(_block: nn.Module, inputs: tuple) -> tuple:
        tokens = inputs[0]  # (B, prefix + patches, D)
        if tokens.shape[1] != before + rows * columns:
            raise UnsupportedNetworkError(
                f"{type(network).__name__} has {tokens.shape[1] - before} patches, not {rows} x {columns}"
            )
        maps = layer(tokens[:, before:].transpose(1, 2).unflatten(2, (rows, columns)))
        return (torch.cat([tokens[:, :before], maps.flatten(2).transpose(1, 2)], dim=1), *inputs[1:])

    hook = network.blocks[-1].register_forward_pre_hook(through)
    try:
        yield layer
    finally:
        hook.remove()


# A run's worst mistakes.


def mistakes(data_dir: Path, run: FinishedRun, count: int) -> tuple[pd.DataFrame, np.ndarray, np.ndarray]:
    """The `count` worst out-of-fold mistakes of a run, and why: table, photos and maps of what was predicted.

    The table is `scores.worst_mistakes`; photos (N, H, W, C) uint8 and maps (N, H, W) float32 go with its rows.
    Each photo is explained by the network of the fold that validated it, which had never seen its person.
    Raises UnsupportedNetworkError, OSError for a photo or a checkpoint that is not there any more.
    """
    worst = scores.worst_mistakes(run.out_of_fold, count).reset_index(drop=True)
    predicted = scores.from_probabilities(worst)[1]
    frame = store.Frame.of_run(run.settings)
    paths = photos.files_of(data_dir, worst.assign(split="train"))
    images = np.array([store.decode(path, frame) for path in paths], dtype=np.uint8).reshape(-1, *frame.shape)
    maps = np.zeros(images.shape[:3], dtype=np.float32)
    picked = run_folder.picked_names(run.folder)
    for fold, rows in worst.groupby("fold").indices.items():
        name = picked.get(fold, run.settings.checkpoint_choice)
        checkpoint = read_checkpoint(run.folder / f"fold{fold}" / "checkpoint" / f"{name}.safetensors")
        loaded = predict.load_network(*checkpoint, devices.pick_device())
        maps[rows] = heatmaps(loaded.network, loaded.preprocessing, images[rows], predicted[rows])
    return worst, images, maps


def gallery(run: FinishedRun, count: int) -> Figure | str:
    """`mistakes` on the run's own data set under their heat maps, or why they cannot be shown, in a sentence.

    `count` 0: switched off.
    """
    if count <= 0:
        return "explained_mistakes is 0: nothing is explained."
    try:
        worst, images, maps = mistakes(run.photo_folder(), run, count)
    except (UnsupportedNetworkError, OSError) as error:
        return f"The mistakes of {run.name} cannot be explained: {error}."
    truth, predicted = scores.from_probabilities(run.out_of_fold)
    return galleries.mistakes(galleries.overlaid(images, maps), worst, of=int((truth != predicted).sum()), columns=6)

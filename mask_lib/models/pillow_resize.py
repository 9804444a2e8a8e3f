"""What `store.fit` makes of a photo, to the bit, as products of matrices: for torch, and so for ONNX.

Pillow resamples along one axis with coefficients in fixed point, rounds to whole levels, then along the other
(Resample.c, Reduce.c, ImageOps.py of Pillow 13). Whole numbers below 2^53 are exact in float64. Sizes are tensors, (2,)
of the vertical and the horizontal axis, so that they stay open in an exported graph.
"""

import functools

import torch

from mask_lib.data import store

ONE = 2.0**22  # a coefficient of 1
GREY = (19595, 38470, 7471)  # of 2^16: red, green and blue in a grey level
GAP = 2  # `reducing_gap`: a photo is first made smaller by whole factors, to no less than so many times the frame
whole = functools.partial(torch.tensor, dtype=torch.float64)


def fit(photo: torch.Tensor, frame: store.Frame) -> torch.Tensor:
    """(H, W, 3) uint8, of four channels (H, W, 4) → (C, height, width) float64, whole levels 0 … 255."""
    levels = photo.permute(2, 0, 1).double()
    if frame.channels == 1:
        levels = torch.floor(((levels * whole(GREY).view(3, 1, 1)).sum(dim=0, keepdim=True) + 2**15) / 2**16)
    sizes = torch.stack([torch.arange(length, dtype=torch.float64)[-1] + 1 for length in photo.shape[:2]])
    wanted = made = whole((frame.height, frame.width))
    starts = before = torch.zeros_like(wanted)
    ratio, shape = wanted[1] / wanted[0], sizes[1] / sizes[0]
    is_long = torch.stack([shape < ratio, shape > ratio])  # the height, or the width, for the frame
    ends = sizes
    if frame.resize == "stretch":
        levels, ends = reduced(levels, sizes, frame)
        sizes = torch.ceil(ends)
    elif frame.resize == "crop":
        seen = torch.where(is_long, torch.stack([sizes[1] / ratio, ratio * sizes[0]]), sizes)
        starts = (sizes - seen) * 0.5
        ends = starts + seen
    else:
        less = torch.round(sizes / sizes.flip(0) * wanted.flip(0))
        made = torch.where(is_long.flip(0), less, wanted)
        before = torch.round((wanted - made) * 0.5)
    lengths = zip(levels.shape[1:], (frame.height, frame.width), strict=True)
    axes = zip(sizes, starts.float(), ends.float(), made, before, lengths, strict=True)  # float32, as Pillow takes them
    down, across = (coefficients(*axis) for axis in axes)
    lost, lower, narrower = sizes - made, rounded(down @ levels), rounded(levels @ across.T)
    # Since Pillow 13 a photo that loses far more height than width is made lower first.
    is_down_first = (lost[0] > 0) & (lost[0] > 2 * lost[1])
    return torch.where(is_down_first, rounded(lower @ across.T), rounded(down @ narrower))


def reduced(levels: torch.Tensor, sizes: torch.Tensor, frame: store.Frame) -> tuple[torch.Tensor, torch.Tensor]:
    """(C, H, W) made smaller by whole factors, with zeros after it, and how many pixels it has then, not rounded up."""
    factors, sums = torch.floor(sizes / whole((frame.height, frame.width)) / GAP).clamp_min(1), []
    for length, wanted, factor in zip(levels.shape[1:], (frame.height, frame.width), factors, strict=True):
        # Above a factor of 1 less than 3 times the frame is left, and at 1 less than 4 times.
        made = torch.arange(torch.sym_min(length, 2 * GAP * wanted), dtype=torch.float64)[:, None]
        at = torch.arange(length, dtype=torch.float64)
        sums.append(((at >= made * factor) & (at < (made + 1) * factor)).double())
    photos = (sums[0].sum(dim=1)[:, None] * sums[1].sum(dim=1)).clamp_min(1)  # pixels that become one
    share = torch.floor((2.0**24 / photos.float()).double())  # Pillow divides by multiplying, in single precision
    return torch.floor((sums[0] @ levels @ sums[1].T + torch.floor(photos / 2)) * share / 2**24), sizes / factors


def rounded(sums: torch.Tensor) -> torch.Tensor:
    """Sums of levels times coefficients as whole levels."""
    return torch.floor((sums + ONE / 2) / ONE).clamp(0, 255)


def coefficients(size, start, end, made, before, lengths: tuple[int, int]) -> torch.Tensor:
    """(length after, length before) float64, whole: how much each pixel counts, by a triangle about its place.

    Of an axis of `size` pixels what is from `start` to `end` becomes `made` pixels after `before` black ones.
    """
    scale = (end - start).double() / made
    row = torch.arange(lengths[1], dtype=torch.float64)[:, None] - before
    centre, reach = start.double() + (row + 0.5) * scale, scale.clamp_min(1)
    least, most = torch.trunc(centre - reach + 0.5), torch.trunc(centre + reach + 0.5)
    at = torch.arange(lengths[0], dtype=torch.float64)
    weights = (1 - ((at - centre + 0.5) * (1 / reach)).abs()).clamp_min(0)
    weights = torch.where((at >= least) & (at < most) & (at < size), weights, 0.0)
    found = torch.floor(weights / weights.sum(dim=1, keepdim=True).clamp_min(1e-30) * ONE + 0.5)
    return torch.where((row >= 0) & (row < made), found, 0.0)

"""What `store.fit` makes of a photo, to the bit, as products of matrices: for torch, and so for ONNX.

Pillow resamples along one axis with coefficients in fixed point, rounds to whole levels, then along the other
(Resample.c, Reduce.c, ImageOps.py of Pillow 13). Whole numbers below 2^53 are exact in float64. Sizes are tensors,
() float64, so that they stay open in an exported graph. What a JPEG decoder makes smaller while it decodes is not here.
"""

import torch

from mask_lib.data import store

ONE = 2.0**22  # a coefficient of 1
GREY = (19595.0, 38470.0, 7471.0)  # of 2^16: red, green and blue in a grey level
GAP = 2.0  # `reducing_gap`: a photo is first made smaller by whole factors, to no less than so many times the frame
Pair = tuple[torch.Tensor, torch.Tensor]  # of the vertical and the horizontal axis


def fit(photo: torch.Tensor, frame: store.Frame) -> torch.Tensor:
    """(H, W, 3) uint8, of four channels (H, W, 4) → (C, height, width) float64, whole levels 0 … 255."""
    levels = photo.permute(2, 0, 1).double()
    if frame.channels == 1:
        weights = torch.tensor(GREY, dtype=torch.float64).view(3, 1, 1)
        levels = torch.floor(((levels * weights).sum(dim=0, keepdim=True) + 2**15) / 2**16)
    sizes = tuple(torch.arange(length, dtype=torch.float64)[-1] + 1 for length in photo.shape[:2])
    wanted = tuple(torch.tensor(float(one), dtype=torch.float64) for one in (frame.height, frame.width))
    zeros, seen, made = (torch.zeros_like(wanted[0]),) * 2, sizes, wanted
    if frame.resize == "stretch":
        levels, seen, sizes = reduced(levels, sizes, (frame.height, frame.width))
        return resampled(levels, sizes, (zeros, seen), made, zeros, frame)
    is_wide, is_tall = sizes[1] / sizes[0] > wanted[1] / wanted[0], sizes[1] / sizes[0] < wanted[1] / wanted[0]
    if frame.resize == "crop":
        ratio = wanted[1] / wanted[0]
        seen = torch.where(is_tall, sizes[1] / ratio, sizes[0]), torch.where(is_wide, ratio * sizes[0], sizes[1])
        starts = tuple((size - part) * 0.5 for size, part in zip(sizes, seen, strict=True))
        ends = tuple(start + part for start, part in zip(starts, seen, strict=True))
        return resampled(levels, sizes, (starts, ends), made, zeros, frame)
    less = torch.round(sizes[0] / sizes[1] * wanted[1]), torch.round(sizes[1] / sizes[0] * wanted[0])
    made = torch.where(is_wide, less[0], wanted[0]), torch.where(is_tall, less[1], wanted[1])
    before = tuple(torch.round((all_ - part) * 0.5) for all_, part in zip(wanted, made, strict=True))
    return resampled(levels, sizes, (zeros, sizes), made, before, frame)


def reduced(levels: torch.Tensor, sizes: Pair, wanted: tuple[int, int]) -> tuple[torch.Tensor, Pair, Pair]:
    """(C, H, W) made smaller by whole factors, rows and columns of zeros after it; its sizes, exact and rounded up."""
    factors = [torch.floor(size / one / GAP).clamp_min(1) for size, one in zip(sizes, wanted, strict=True)]
    sums = []
    for length, one, factor in zip(levels.shape[1:], wanted, factors, strict=True):
        # Above a factor of 1 less than 3 times the frame is left, and at 1 less than 4 times.
        made = torch.arange(torch.sym_min(length, int(2 * GAP) * one), dtype=torch.float64)[:, None]
        at = torch.arange(length, dtype=torch.float64)
        sums.append(((at >= made * factor) & (at < (made + 1) * factor)).double())
    photos = (sums[0].sum(dim=1)[:, None] * sums[1].sum(dim=1)).clamp_min(1)  # pixels that become one
    share = torch.floor((2.0**24 / photos.float()).double())  # Pillow divides by multiplying, in single precision
    found = torch.floor((sums[0] @ levels @ sums[1].T + torch.floor(photos / 2)) * share / 2**24)
    exact = tuple(size / factor for size, factor in zip(sizes, factors, strict=True))
    return found, exact, tuple(map(torch.ceil, exact))


def resampled(
    levels: torch.Tensor, sizes: Pair, seen: tuple[Pair, Pair], made: Pair, before: Pair, frame: store.Frame
) -> torch.Tensor:
    """(C, H, W) → (C, height, width): what is `seen`, from and to, becomes `made` pixels after `before` black ones."""
    lengths = zip(levels.shape[1:], (frame.height, frame.width), strict=True)
    axes = zip(sizes, *seen, made, before, lengths, strict=True)
    down, across = (coefficients(*axis) for axis in axes)
    # Since Pillow 13 a photo that loses far more height than width is made lower first.
    lost = [size - one for size, one in zip(sizes, made, strict=True)]
    is_down_first = (lost[0] > 0) & (lost[0] > 2 * lost[1])
    lower, narrower = rounded(down @ levels), rounded(levels @ across.T)
    return torch.where(is_down_first, rounded(lower @ across.T), rounded(down @ narrower))


def rounded(sums: torch.Tensor) -> torch.Tensor:
    """Sums of levels times coefficients as whole levels."""
    return torch.floor((sums + ONE / 2) / ONE).clamp(0, 255)


def coefficients(
    size: torch.Tensor,
    start: torch.Tensor,
    end: torch.Tensor,
    made: torch.Tensor,
    before: torch.Tensor,
    lengths: tuple[int, int],
) -> torch.Tensor:
    """(length after, length before) float64, whole: how much each pixel counts, a triangle about its place."""
    start, end = start.float(), end.float()  # as Pillow takes them
    scale = (end - start).double() / made
    row = torch.arange(lengths[1], dtype=torch.float64)[:, None] - before
    centre, reach = start.double() + (row + 0.5) * scale, scale.clamp_min(1)
    least, most = torch.trunc(centre - reach + 0.5), torch.trunc(centre + reach + 0.5)
    at = torch.arange(lengths[0], dtype=torch.float64)
    weights = (1 - ((at - centre + 0.5) * (1 / reach)).abs()).clamp_min(0)
    weights = torch.where((at >= least) & (at < most) & (at < size), weights, 0.0)
    found = torch.floor(weights / weights.sum(dim=1, keepdim=True).clamp_min(1e-30) * ONE + 0.5)
    return torch.where((row >= 0) & (row < made), found, 0.0)

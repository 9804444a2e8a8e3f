"""Colours, light and sharpness of photos changed on the device they lie on, each by parameters of its own.

Every function here takes (n, C, H, W) float32 in [0, 1], which it may overwrite, and what n photos drew, and returns
the same shape in [0, 1]. Colours follow torchvision's and Pillow's rules. A function of `TONES` changes a level alike
wherever it is; instead of a photo it may be given its 256 levels, with counts, (n, C, H, W) int64: how many pixels each
of them stands for.
"""

import math
from collections.abc import Callable

import torch
from torch.nn import functional

from mask_lib.augment.geometric import Drawn

GREY_WEIGHTS = (0.2989, 0.587, 0.114)  # of red, green and blue: ITU-R 601, as torchvision and Pillow have them
LINE_POINTS = 17  # of a motion blur's line


def spread(numbers: torch.Tensor, photos: torch.Tensor) -> torch.Tensor:
    """(n,) numbers on the photos' device, as (n, 1, 1, 1)."""
    return numbers.to(photos.device).view(-1, 1, 1, 1)


def grey(photos: torch.Tensor) -> torch.Tensor:
    """(n, 1, H, W): the brightness of red, green and blue; of other channels their mean."""
    if photos.shape[1] != 3:
        return photos.mean(dim=1, keepdim=True)
    red, green, blue = (photos[:, channel, None] for channel in range(3))
    return (red * GREY_WEIGHTS[0]).add_(green, alpha=GREY_WEIGHTS[1]).add_(blue, alpha=GREY_WEIGHTS[2])


def brightness(photos: torch.Tensor, drawn: Drawn, counts: torch.Tensor | None = None) -> torch.Tensor:
    """(B, C, H, W) float32 times 1 + value, in place."""
    return photos.mul_(spread(1 + drawn.values, photos)).clamp_(0, 1)


def contrast(photos: torch.Tensor, drawn: Drawn, counts: torch.Tensor | None = None) -> torch.Tensor:
    """(B, C, H, W) float32 away from or towards each photo's mean grey by 1 + value, in place."""
    if counts is None:
        means = photos.mean(dim=(2, 3), keepdim=True)
    else:
        means = (photos * counts).sum(dim=(2, 3), keepdim=True) / counts.sum(dim=(2, 3), keepdim=True)
    factor = spread(1 + drawn.values, photos)
    return photos.mul_(factor).add_(grey(means) * (1 - factor)).clamp_(0, 1)


def saturation(photos: torch.Tensor, drawn: Drawn) -> torch.Tensor:
    """(B, 3, H, W) float32 away from or towards grey by 1 + value, in place."""
    return photos.lerp_(grey(photos), spread(-drawn.values, photos)).clamp_(0, 1)


def gamma(photos: torch.Tensor, drawn: Drawn, counts: torch.Tensor | None = None) -> torch.Tensor:
    """(B, C, H, W) float32 to the power of e^value, in place."""
    return photos.pow_(spread(torch.exp(drawn.values), photos)).clamp_(0, 1)


def invert(photos: torch.Tensor, drawn: Drawn, counts: torch.Tensor | None = None) -> torch.Tensor:
    """(B, C, H, W) float32 as 1 less what it was, in place."""
    return photos.neg_().add_(1)


def sharpness(photos: torch.Tensor, drawn: Drawn) -> torch.Tensor:
    """Away from or towards a mean of 3 x 3 pixels in which the middle counts five times; the rim stays."""
    if min(photos.shape[2:]) < 3:
        return photos
    inside = photos[:, :, 1:-1, 1:-1]
    factor = spread(1 + drawn.values, photos)
    rows = photos[:, :, :-2] + photos[:, :, 1:-1] + photos[:, :, 2:]
    smooth = (rows[..., :-2] + rows[..., 1:-1]).add_(rows[..., 2:]).add_(inside, alpha=4)
    inside.mul_(factor).add_(smooth.mul_((1 - factor) / 13)).clamp_(0, 1)
    return photos


def posterize(photos: torch.Tensor, drawn: Drawn, counts: torch.Tensor | None = None) -> torch.Tensor:
    """Keep the highest bits of 8, two at least."""
    step = spread(2 ** (8 - drawn.values.round()), photos)
    return photos.mul_(255).round_().div_(step).floor_().mul_(step / 255)


def solarize(photos: torch.Tensor, drawn: Drawn, counts: torch.Tensor | None = None) -> torch.Tensor:
    """(B, C, H, W) float32 inverted where it is at least the value."""
    # x, or |x - 1| where it is bright: in place, without a slow choice between the two.
    bright = torch.ge(photos, spread(drawn.values, photos), out=torch.empty_like(photos))
    return photos.sub_(bright).abs_()


def autocontrast(photos: torch.Tensor, drawn: Drawn, counts: torch.Tensor | None = None) -> torch.Tensor:
    """Each channel from its darkest to its brightest stretched to the whole range; one of a single grey stays."""
    darkest, brightest = (photos, photos) if counts is None else (photos.where(counts > 0, end) for end in (1.0, 0.0))
    low, high = darkest.amin(dim=(2, 3), keepdim=True), brightest.amax(dim=(2, 3), keepdim=True)
    flat = high == low
    width = torch.where(flat, 1.0, high - low)
    return photos.sub_(torch.where(flat, 0.0, low)).div_(width).clamp_(0, 1)


def equalize(photos: torch.Tensor, drawn: Drawn, counts: torch.Tensor | None = None) -> torch.Tensor:
    """Each channel's 256 grey levels made equally frequent, by Pillow's rule."""
    level = photos.mul_(255).round_().long().flatten(2)  # (n, C, H * W)
    occurs = torch.ones(1, dtype=torch.long, device=photos.device).expand_as(level) if counts is None else counts
    of_level = torch.zeros(*level.shape[:2], 256, dtype=torch.long, device=photos.device)
    of_level.scatter_add_(2, level, occurs.flatten(2))
    brightest = ((of_level > 0) * torch.arange(256, device=photos.device)).amax(dim=2, keepdim=True)
    step = (of_level.sum(dim=2, keepdim=True) - of_level.gather(2, brightest)) // 255
    below = of_level.cumsum(2) - of_level
    table = ((below + step // 2) // step.clamp(min=1)).clamp(max=255)
    table = torch.where(step == 0, torch.arange(256, device=photos.device), table)
    return (table.float() / 255).gather(2, level).view(photos.shape)


def blur(photos: torch.Tensor, drawn: Drawn) -> torch.Tensor:
    """By a Gaussian, as wide as three deviations, down and then across."""
    side = min(photos.shape[2:])
    deviation = (drawn.values * side).clamp(min=1e-3)  # pixels
    radius = min(math.ceil(3 * deviation.max().item()), side - 1)
    distance = torch.arange(-radius, radius + 1)
    kernel = functional.softmax(-((distance / deviation[:, None]) ** 2) / 2, dim=1)  # (n, K)
    return filtered(filtered(photos, kernel[:, :, None]), kernel[:, None])


def motion_blur(photos: torch.Tensor, drawn: Drawn) -> torch.Tensor:
    """Along a line of a direction of its own: the mean of points on it, each shared by the pixels around it."""
    side = min(photos.shape[2:])
    length, direction = drawn.values * side, math.pi * drawn.extra[:, 0]  # pixels, radians
    radius = min(math.ceil(length.max().item() / 2), side - 1)
    along = torch.linspace(-0.5, 0.5, LINE_POINTS) * length[:, None]  # (n, P)
    pixels = torch.arange(-radius, radius + 1)
    near = [
        (1 - (pixels - (along * part(direction)[:, None])[..., None]).abs()).clamp(min=0)  # (n, P, K)
        for part in (torch.sin, torch.cos)
    ]
    return filtered(photos, torch.einsum("npi,npj->nij", *near) / LINE_POINTS)


def filtered(photos: torch.Tensor, kernels: torch.Tensor) -> torch.Tensor:
    """Each of (n, C, H, W) photos by its own of (n, K, L) kernels; beyond the edge it is mirrored."""
    count, channels, height, width = photos.shape
    down, across = kernels.shape[1] // 2, kernels.shape[2] // 2
    planes = functional.pad(photos, (across, across, down, down), mode="reflect").reshape(
        1, count * channels, height + 2 * down, width + 2 * across
    )
    weights = kernels.to(photos.device).repeat_interleave(channels, dim=0)[:, None]
    return functional.conv2d(planes, weights, groups=count * channels).view(photos.shape).clamp_(0, 1)


def erase(photos: torch.Tensor, drawn: Drawn) -> torch.Tensor:
    """Grey out one rectangle of this area."""
    log_aspect = (2 * drawn.extra[:, 0] - 1) * math.log(2)
    mask = rectangles(drawn.values, log_aspect, drawn.extra[:, 1], drawn.extra[:, 2], photos.shape[2:])
    return torch.where(mask[:, None].to(photos.device), 0.5, photos)


def rectangles(
    area: torch.Tensor, log_aspect: torch.Tensor, down: torch.Tensor, across: torch.Tensor, size: tuple[int, int]
) -> torch.Tensor:
    """(n, H, W) bool: a rectangle of this share of the photo, height over width, and place from 0 to 1; each (n,)."""
    height, width = size
    tall, wide = torch.sqrt(area) * torch.exp(log_aspect / 2), torch.sqrt(area) * torch.exp(-log_aspect / 2)
    top, left = down * (1 - tall), across * (1 - wide)
    rows, columns = (torch.arange(height) + 0.5) / height, (torch.arange(width) + 0.5) / width
    in_rows = (rows >= top[:, None]) & (rows < (top + tall)[:, None])  # (n, H)
    in_columns = (columns >= left[:, None]) & (columns < (left + wide)[:, None])  # (n, W)
    return in_rows[:, :, None] & in_columns[:, None]


TONES: dict[str, Callable[..., torch.Tensor]] = {
    "brightness": brightness,
    "contrast": contrast,
    "gamma": gamma,
    "posterize": posterize,
    "solarize": solarize,
    "autocontrast": autocontrast,
    "equalize": equalize,
    "invert": invert,
}
COUNTING = frozenset({"contrast", "autocontrast", "equalize"})  # ask how often a level occurs

"""Colours, light, sharpness, blur and erasing of photos, each by its own parameters.

Every operation takes (n, C, H, W) float32 in [0, 1], which it may overwrite, (n,) values in its unit with their signs,
and (n, P) numbers uniform in [0, 1); it gives the same shape. Colours follow torchvision's and Pillow's rules.
"""

import math

import torch
from torch.nn import functional
from torchvision.transforms.v2.functional import equalize_image, rgb_to_grayscale

from mask_lib.augment.policy import OPERATIONS

LINE_POINTS = 17  # of a motion blur's line
NOISE = {"motion_blur": 1, "erase": 3}  # uniform numbers of a photo


def _column(numbers: torch.Tensor) -> torch.Tensor:
    return numbers.view(-1, 1, 1, 1)


def _grey(photos: torch.Tensor) -> torch.Tensor:
    """(n, 1, H, W): the luma of red, green and blue by ITU-R 601; of other channels their mean."""
    return rgb_to_grayscale(photos) if photos.shape[1] == 3 else photos.mean(dim=1, keepdim=True)


def brightness(photos: torch.Tensor, values: torch.Tensor, uniform: torch.Tensor) -> torch.Tensor:
    """Times 1 + value."""
    return photos.mul_(_column(1 + values)).clamp_(0, 1)


def contrast(photos: torch.Tensor, values: torch.Tensor, uniform: torch.Tensor) -> torch.Tensor:
    """Away from or towards each photo's mean grey by 1 + value."""
    mean = _grey(photos.mean(dim=(2, 3), keepdim=True))
    return photos.mul_(_column(1 + values)).sub_(mean * _column(values)).clamp_(0, 1)


def saturation(photos: torch.Tensor, values: torch.Tensor, uniform: torch.Tensor) -> torch.Tensor:
    """Away from or towards the grey of each pixel by 1 + value."""
    return photos.lerp_(_grey(photos), _column(-values)).clamp_(0, 1)


def gamma(photos: torch.Tensor, values: torch.Tensor, uniform: torch.Tensor) -> torch.Tensor:
    """To the power of e^value."""
    return photos.pow_(_column(values.exp())).clamp_(0, 1)


def invert(photos: torch.Tensor, values: torch.Tensor, uniform: torch.Tensor) -> torch.Tensor:
    """(n, C, H, W) float32 in [0, 1] as 1 less what it was."""
    return photos.neg_().add_(1)


def sharpness(photos: torch.Tensor, values: torch.Tensor, uniform: torch.Tensor) -> torch.Tensor:
    """Away from or towards a mean of 3 x 3 pixels in which the middle counts five times; the rim stays."""
    if min(photos.shape[2:]) < 3:
        return photos
    inside = photos[:, :, 1:-1, 1:-1]
    rows = photos[:, :, :-2] + photos[:, :, 1:-1] + photos[:, :, 2:]
    smooth = (rows[..., :-2] + rows[..., 1:-1]).add_(rows[..., 2:]).add_(inside, alpha=4).div_(13)
    inside.lerp_(smooth, _column(-values)).clamp_(0, 1)
    return photos


def posterize(photos: torch.Tensor, values: torch.Tensor, uniform: torch.Tensor) -> torch.Tensor:
    """Keep the highest bits of 8, two at least."""
    step = _column(2 ** (8 - values.round()))
    return photos.mul_(255).round_().div_(step).floor_().mul_(step / 255)


def solarize(photos: torch.Tensor, values: torch.Tensor, uniform: torch.Tensor) -> torch.Tensor:
    """Inverted where it is at least the value."""
    return photos.sub_((photos >= _column(values)).float()).abs_()  # x, or |x - 1| where it is bright


def autocontrast(photos: torch.Tensor, values: torch.Tensor, uniform: torch.Tensor) -> torch.Tensor:
    """Each channel from its darkest to its brightest stretched to the whole range; one of a single grey stays."""
    low, high = photos.amin(dim=(2, 3), keepdim=True), photos.amax(dim=(2, 3), keepdim=True)
    flat = high == low
    return photos.sub_(low.where(~flat, 0.0)).div_((high - low).where(~flat, 1.0)).clamp_(0, 1)


def equalize(photos: torch.Tensor, values: torch.Tensor, uniform: torch.Tensor) -> torch.Tensor:
    """Each channel's 256 grey levels made equally frequent, by Pillow's rule."""
    planes = photos.mul_(255).round_().byte().flatten(0, 1)[:, None]  # torchvision takes one channel or three
    return equalize_image(planes).view(photos.shape).float() / 255


def blur(photos: torch.Tensor, values: torch.Tensor, uniform: torch.Tensor) -> torch.Tensor:
    """By a Gaussian, as wide as three of the largest deviations that there are, down and then across."""
    side = min(photos.shape[2:])
    deviation = (values * side).clamp(min=1e-3)  # pixels
    radius = min(math.ceil(3 * OPERATIONS["blur"].high * side), side - 1)
    distance = torch.arange(-radius, radius + 1, device=photos.device)
    kernel = functional.softmax(-((distance / deviation[:, None]) ** 2) / 2, dim=1)  # (n, K)
    return _filtered(_filtered(photos, kernel[:, :, None]), kernel[:, None])


def motion_blur(photos: torch.Tensor, values: torch.Tensor, uniform: torch.Tensor) -> torch.Tensor:
    """Along a line of a direction of its own: the mean of points on it, each shared by the pixels around it."""
    side = min(photos.shape[2:])
    length, direction = values * side, math.pi * uniform[:, 0]  # pixels, radians
    radius = min(math.ceil(OPERATIONS["motion_blur"].high * side / 2), side - 1)
    along = torch.linspace(-0.5, 0.5, LINE_POINTS, device=photos.device) * length[:, None]  # (n, P)
    pixels = torch.arange(-radius, radius + 1, device=photos.device)
    near_rows, near_columns = (
        (1 - (pixels - (along * part[:, None])[..., None]).abs()).clamp(min=0)  # (n, P, K)
        for part in (direction.sin(), direction.cos())
    )
    return _filtered(photos, near_rows.mT @ near_columns / LINE_POINTS)


def _filtered(photos: torch.Tensor, kernels: torch.Tensor) -> torch.Tensor:
    """Each of (n, C, H, W) photos by its own of (n, K, L) kernels; beyond the edge it is mirrored."""
    down, across = kernels.shape[1] // 2, kernels.shape[2] // 2
    planes = functional.pad(photos, (across, across, down, down), mode="reflect").flatten(0, 1)[None]
    weights = kernels.repeat_interleave(photos.shape[1], dim=0)[:, None]
    return functional.conv2d(planes, weights, groups=len(weights)).view(photos.shape).clamp_(0, 1)


def erase(photos: torch.Tensor, values: torch.Tensor, uniform: torch.Tensor) -> torch.Tensor:
    """Grey out one rectangle of this area, from half as high as wide to twice (random erasing, Zhong et al. 2020)."""
    side, stretch = values.sqrt(), (uniform[:, 0] - 0.5).mul(math.log(2)).exp()
    in_rows = _inside(side * stretch, uniform[:, 1], photos.shape[2])
    in_columns = _inside(side / stretch, uniform[:, 2], photos.shape[3])
    return photos.masked_fill_(in_rows[:, None, :, None] & in_columns[:, None, None, :], 0.5)


def _inside(length: torch.Tensor, place: torch.Tensor, pixels: int) -> torch.Tensor:
    """(n, pixels) bool: which lie within a stretch of a length and place from 0 to 1, each (n,)."""
    centres, start = (torch.arange(pixels, device=length.device) + 0.5) / pixels, place * (1 - length)
    return (centres >= start[:, None]) & (centres < (start + length)[:, None])

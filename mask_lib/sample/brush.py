"""Curves and brush lines: the few shapes that every part of a portrait is drawn with.

A head is drawn in its own units: the origin lies between the eyes, x grows to the right, y downwards, the face is about
2 wide, its chin at y = 1.42 and the top of the skull at y = -1.38.
"""

from collections.abc import Sequence
from functools import lru_cache

import numpy as np
from PIL import Image, ImageDraw, ImageFilter

Colour = tuple[float, float, float]
Points = Sequence[Sequence[float]] | np.ndarray
Pair = tuple[float, float]
BOTH = 0  # as the side of a shape: it and its mirror image
FINE, BLUNT = (0.15, 0.15), (1.0, 1.0)  # the ends of a brush line: shares of its full width
SOFT_STEP = 8  # soft shadows are drawn this much smaller: nobody sees it, and it is 64 times less work


def mix(first: Sequence[float], second: Sequence[float], share: float) -> Colour:
    """The colour `share` of the way from the first to the second."""
    return tuple(a + (b - a) * share for a, b in zip(first, second, strict=True))


def spline(points: Sequence[Sequence[float]], closed: bool = False, steps: int = 6) -> np.ndarray:
    """(M, 2) points of the Catmull-Rom curve through (N, 2) control points."""
    knots = np.asarray(points, dtype=float)
    ends = (knots[-1:], knots[:2]) if closed else (2 * knots[:1] - knots[1:2], 2 * knots[-1:] - knots[-2:-1])
    knots = np.concatenate((ends[0], knots, ends[1]))
    a, b, c, d = (knots[i : len(knots) - 3 + i, None] for i in range(4))
    t = np.linspace(0, 1, steps, endpoint=False)[:, None]
    curve = (b + 0.5 * t * (c - a + t * (2 * a - 5 * b + 4 * c - d + t * (3 * (b - c) + d - a)))).reshape(-1, 2)
    return curve if closed else np.concatenate((curve, knots[-2:-1]))


def oval(x: float, y: float, width: float, height: float) -> np.ndarray:
    """(24, 2) points of an ellipse; half width and half height."""
    angle = np.linspace(0, 2 * np.pi, 24, endpoint=False)
    return np.stack((x + width * np.cos(angle), y + height * np.sin(angle)), axis=1)


def moved(points: Points, x: float = 0.0, y: float = 0.0, side: int = 1) -> np.ndarray:
    """The points moved by (x, y), then with x times `side`: -1 mirrors them."""
    return np.add(points, (x, y)) * (side, 1)


def mirrored(points: Points) -> np.ndarray:
    """The points on the other side of the face, in reverse, so that they close a half outline."""
    return moved(points, side=-1)[::-1]


@lru_cache(maxsize=256)
def taper(count: int, ends: Pair) -> np.ndarray:
    """(count, 1) shares of a brush line's width along it. Read-only, since most lines are of a few lengths."""
    profile = np.interp(np.linspace(0, 1, count), (0, 0.5, 1), (ends[0], 1, ends[1]))[:, None]
    profile.flags.writeable = False
    return profile


def ink(colour: Colour) -> tuple[int, ...]:
    """The colour as Pillow takes it."""
    return tuple(max(0, min(255, int(part))) for part in colour)


class Pen:
    """Draws shapes given in head units on a picture, through one pose; `side` -1 mirrors a shape, `BOTH` draws both."""

    def __init__(self, image: Image.Image, origin: Pair, unit: float, angle: float = 0.0, lean: Pair = (0.0, 0.0)):
        """`origin` and `unit` in pixels, `angle` in degrees, `lean`: how far the middle of the face moves, in units."""
        turn = np.deg2rad(angle)
        self.matrix = unit * np.array(((np.cos(turn), np.sin(turn)), (-np.sin(turn), np.cos(turn))))
        self.origin, self.unit, self.image, self.lean = np.array(origin), unit, image, np.array(lean)
        self.plain, self.glaze = ImageDraw.Draw(image), ImageDraw.Draw(image, "RGBA")

    def place(self, points: Points) -> np.ndarray:
        """Pixels of points; turning moves the middle of the face more than its rim."""
        points = np.asarray(points, dtype=float)
        near = 1 - np.minimum(1, (points / (1.0, 1.42)) ** 2)
        return (points + near[:, ::-1] * near * self.lean) @ self.matrix + self.origin

    def fill(self, points: Points, colour: Colour, opacity: float = 1.0, side: int = 1) -> None:
        """A closed shape in one colour."""
        for one in (-1, 1) if side == BOTH else (side,):
            pixels = self.place(moved(points, side=one)).ravel().tolist()
            if opacity >= 1:
                self.plain.polygon(pixels, fill=ink(colour))
            else:
                self.glaze.polygon(pixels, fill=(*ink(colour), int(255 * opacity)))

    def stroke(
        self, points: Points, colour: Colour, width: float, opacity: float = 1.0, ends: Pair = FINE, side: int = 1
    ) -> None:
        """A brush line of full `width` in its middle and the `ends` shares of it at its two ends."""
        points = np.asarray(points, dtype=float)
        # What np.gradient gives, without its checks: they take longer than the sums on so few points.
        along = np.concatenate((points[1:2] - points[:1], (points[2:] - points[:-2]) / 2, points[-1:] - points[-2:-1]))
        normal = along[:, ::-1] * (1, -1) / (np.hypot(*along.T)[:, None] + 1e-9)
        offset = normal * taper(len(points), ends) * max(width, 1.2 / self.unit) / 2
        self.fill(np.concatenate((points + offset, (points - offset)[::-1])), colour, opacity, side)

    def curve(
        self, points: Points, colour: Colour, width: float, opacity: float = 1.0, ends: Pair = FINE, side: int = 1
    ) -> None:
        """A brush line along the smooth curve through a few points."""
        self.stroke(spline(points), colour, width, opacity, ends, side)

    def soft(self, points: Points, colour: Colour, opacity: float, blur: float, side: int = 1) -> None:
        """A shape with a blurred edge; `blur` in head units."""
        pixels, margin = self.place(moved(points, side=side)), 2.5 * blur * self.unit
        limit = np.array(self.image.size) // SOFT_STEP
        low = np.maximum(0, (pixels.min(axis=0) - margin) // SOFT_STEP).astype(int)
        size = np.minimum(limit, (pixels.max(axis=0) + margin) // SOFT_STEP).astype(int) - low
        if (size < 1).any():
            return
        cloud = Image.new("L", tuple(size.tolist()))
        ImageDraw.Draw(cloud).polygon((pixels / SOFT_STEP - low).ravel().tolist(), fill=int(255 * opacity))
        cloud = cloud.filter(ImageFilter.GaussianBlur(blur * self.unit / SOFT_STEP))
        cloud = cloud.resize(tuple((size * SOFT_STEP).tolist()), Image.Resampling.BILINEAR)
        self.image.paste(ink(colour), tuple((low * SOFT_STEP).tolist()), cloud)

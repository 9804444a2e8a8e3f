"""Hair: behind the head, on the skull, and in front of the ears."""

import numpy as np

from mask_lib.sample.brush import Pen, mirrored, moved, oval, spline
from mask_lib.sample.people import HAIRSTYLES, Face, hair_tone


def paint_lock(pen: Pen, face: Face, outer: np.ndarray, inner: np.ndarray, random: np.random.Generator) -> None:
    """Hair between two edge curves of equal length, combed along them."""
    pen.fill(np.concatenate((outer, inner[::-1])), hair_tone(face, -0.12))
    for place, light in random.uniform((0.03, -0.3), (0.97, 0.22), (14, 2)):
        pen.stroke(outer + (inner - outer) * place, hair_tone(face, light), 0.05, 0.6)


def paint_brushed(pen: Pen, face: Face, outer: np.ndarray, inner: np.ndarray, random: np.random.Generator) -> None:
    """Hair brushed back from the hairline."""
    pen.fill(np.concatenate((outer, inner[::-1])), hair_tone(face, -0.12))
    for at in random.integers(0, len(inner), 18):
        start, end = inner[at], outer[min(len(outer) - 1, at + 2)]
        middle = (start + end) / 2 + random.normal(0, 0.02, 2)
        pen.stroke((start, middle, end), hair_tone(face, random.uniform(-0.3, 0.22)), 0.05, 0.55)


def paint_curls(pen: Pen, face: Face, edge: np.ndarray, random: np.random.Generator, size: float) -> None:
    """Curls along a curve, so that its edge is no smooth line."""
    for x, y in edge[:: max(1, len(edge) // 22)]:
        dx, dy, light = random.normal(0, 0.03), random.normal(0, 0.03), random.uniform(-0.25, 0.05)
        radius = size * random.uniform(0.8, 1.3)
        pen.fill(oval(x + dx, y + dy, radius, radius), hair_tone(face, light))


def wave(curve: np.ndarray, amount: float) -> np.ndarray:
    """The curve with its x swinging twice, more and more towards its end."""
    along = np.linspace(0, 1, len(curve))
    return curve + np.stack((amount * along * np.sin(along * 4 * np.pi), 0 * along), axis=1)


def paint_back_hair(pen: Pen, face: Face) -> None:
    """The hair behind the head and the neck."""
    style, random = HAIRSTYLES[face.hairstyle], np.random.default_rng(face.seed + 1)
    if style.knot:
        pen.fill(oval(0, -1.66, style.knot, style.knot * 0.85), hair_tone(face, -0.2))
        for turn in (0.3, 0.55, 0.8):
            ring = oval(0, -1.66, style.knot * turn, style.knot * 0.8 * turn)
            pen.stroke(ring[:14], hair_tone(face, 0.12), 0.05, 0.6)
    if not style.length:
        return
    wide, end = 1.0 + style.side, style.length
    crown = spline([(0.0, -1.38 - style.top), (0.7, -1.25 - style.top * 0.7), (wide, -0.5), (wide + 0.06, 0.4)])
    fall = spline([(wide + 0.06, 0.4), (wide + 0.08, end * 0.7), (wide - 0.1, end), (wide - 0.5, end + 0.08)])[1:]
    half = np.concatenate((crown, wave(fall, 0.07 * style.curl)))
    edge = np.concatenate((half, mirrored(half)))
    pen.fill(edge, hair_tone(face, -0.4))
    if style.curl >= 1:
        paint_curls(pen, face, edge, random, 0.17)


def hair_edges(face: Face) -> tuple[np.ndarray, np.ndarray]:
    """Two (60, 2) curves from the left ear to the right one: over the hair, and along the hairline."""
    style, bare = HAIRSTYLES[face.hairstyle], face.recession
    top, side, low = -1.38 - style.top * (1 - 0.6 * bare), 1.0 + style.side, 0.1 if style.length else 0.0
    line = -0.86 - 0.5 * bare + style.fringe * (1 - bare)
    dip = 0.22 * np.sign(face.parting) * style.fringe  # a fringe hangs lower on one side
    dome = [(0.5, top * 0.95), (side * 0.86, -1.05 - style.top * 0.4), (side, -0.5), (1 + style.side * 0.6, low)]
    temple = [(0.8 - 0.12 * bare, line + 0.2 - 0.4 * bare), (0.93, -0.4), (0.97, low)]
    brow = [(-0.45, line - 0.02 + dip), (face.parting, line - 0.08 + 0.06 * bare), (0.45, line - 0.02 - dip)]
    outer = spline([*mirrored(dome), (0, top), *dome], steps=12)
    inner = spline([*mirrored(temple), *sorted(brow), *temple], steps=12)
    return tuple(curve[np.linspace(0, len(curve) - 1, 60).round().astype(int)] for curve in (outer, inner))


def paint_front_hair(pen: Pen, face: Face) -> None:
    """The hair on the head: two locks that fall from the parting, and curtains where it is long."""
    style, random = HAIRSTYLES[face.hairstyle], np.random.default_rng(face.seed + 2)
    outer, inner = hair_edges(face)
    split = int(np.interp(face.parting, (-1, 1), (0, 60)))
    brushed = style.knot or face.hairstyle in ("quiff", "buzz", "crop")
    for lock in (slice(split, None), slice(split, None, -1)):
        over, under = outer[lock], inner[lock]
        if face.recession > 0.45:  # a bald crown: only the sides keep their hair
            over, under = over[-20:], under[-20:]
            over = under + (over - under) * np.minimum(1, np.linspace(0, 3, len(over)))[:, None]
        (paint_brushed if brushed else paint_lock)(pen, face, over, under, random)
        if style.curl >= 1:
            paint_curls(pen, face, over, random, 0.13 + style.top * 0.1)
            paint_curls(pen, face, (over + under) / 2, random, 0.15)
    if style.length <= 1:
        return
    wide, end = 1.0 + style.side, style.length
    out = spline([(wide * 0.95, -0.75), (wide + 0.05, 0.1), (wide + 0.07, end * 0.6), (wide - 0.1, end * 0.97)])
    into = spline([(0.84, -0.6), (0.93, 0.1), (0.92 + style.side * 0.3, end * 0.6), (wide - 0.16, end)])
    for side in (-1, 1):
        edges = (moved(wave(edge, 0.09 * style.curl), side=side) for edge in (out, into))
        paint_lock(pen, face, *edges, random)

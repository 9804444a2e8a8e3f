"""What a person wears: clothes, glasses, masks, vests and helmets."""

from collections.abc import Callable
from typing import NamedTuple

import numpy as np

from mask_lib.sample.brush import BLUNT, BOTH, Colour, Pen, mirrored, mix, moved, oval, spline
from mask_lib.sample.people import FRAMES, GOLD, NECKLINES, Face, Gender, Shot, rim, skin_tone


def paint_body(pen: Pen, face: Face) -> None:
    """Neck, shoulders and clothes."""
    neck, wide = (0.56, 2.15) if face.gender is Gender.MALE else (0.45, 1.8)
    dark, depth = mix(face.cloth, (20, 16, 30), 0.35), NECKLINES[face.outfit]
    slope = [(neck, 1.6), (neck + 0.26, 1.84), (wide - 0.4, 2.16)]
    if face.outfit == "hoodie":
        pen.fill(spline([(-0.95, 2.1), (-0.8, 1.35), (0, 1.1), (0.8, 1.35), (0.95, 2.1)], closed=True), dark)
    shoulder = spline([*slope, (wide - 0.06, 2.6), (wide + 0.1, 3.4), (wide + 0.12, 5.0)])
    pen.fill(np.concatenate((shoulder, mirrored(shoulder))), face.cloth)
    sleeve = [(wide - 0.5, 2.75), (wide - 0.42, 3.3), (wide - 0.46, 5.0)]
    pen.curve(sleeve, dark, 0.07, 0.7, (0.1, 1), BOTH)
    pen.curve(moved(sleeve, 0.08, 0.05), mix(face.cloth, (255, 255, 255), 0.15), 0.05, 0.6, (0.1, 1), BOTH)
    throat = [(-neck, 0.8), (-neck - 0.06, 1.8), (0, depth), (neck + 0.06, 1.8), (neck, 0.8)]
    pen.fill(spline(throat, closed=True), skin_tone(face, -0.12))
    pen.soft(spline([(-neck, 1.1), (0, 1.8), (neck, 1.1)], closed=True), skin_tone(face, -0.75), 0.75, 0.12)
    paint_collar(pen, face, neck, depth, dark)


def paint_collar(pen: Pen, face: Face, neck: float, depth: float, dark: Colour) -> None:
    """The edge of the clothes at the neck, `neck` wide on each side and `depth` low."""
    bright = mix(face.cloth, (255, 255, 255), {"shirt": 0.25, "blazer": 0.06}.get(face.outfit, 0.1))
    match face.outfit:
        case "tee" | "hoodie":  # a band; a hood has two strings
            right = [(neck * 0.7, depth - 0.14), (neck + 0.12, 1.74)]
            pen.curve([*mirrored(right), (0, depth), *right], dark, 0.09, 1, BLUNT)
            if face.outfit == "hoodie":
                pen.curve([(0.3, 2.05), (0.34, 2.5), (0.3, 2.9)], (236, 236, 230), 0.05, 1, BLUNT, BOTH)
        case "shirt" | "blazer":  # wings or lapels, with a row of buttons
            tip = (neck * 0.75 + 0.1, depth + (0.21 if face.outfit == "shirt" else 0.48))
            wing = [(neck + 0.02, 1.58), (neck + 0.24, 1.8), tip, (0.04, depth + 0.02)]
            pen.fill(wing, bright, side=BOTH)
            pen.stroke(wing[1:], dark, 0.035, 0.8, side=BOTH)
            pen.stroke([(0, depth), (0, 3.4), (0, 5.0)], dark, 0.04, 0.9, BLUNT)
            for y in (depth + 0.4, depth + 0.9):
                pen.fill(oval(0.09, y, 0.04, 0.04), dark)
        case "turtleneck":  # rolled up the neck
            ring = [(neck + 0.08, 1.5), (neck + 0.16, 1.95)]
            pen.fill(spline([(0, 1.68), *ring, (0, 2.12), *mirrored(ring)], closed=True), bright)
            pen.curve([(-neck - 0.14, 1.94), (0, 2.12), (neck + 0.14, 1.94)], dark, 0.05, 0.8)
        case "blouse":  # with a fine chain
            pen.curve([(-neck - 0.1, 1.72), (-0.35, 2.3), (0, depth), (0.35, 2.3), (neck + 0.1, 1.72)], dark, 0.06, 0.8)
            pen.curve([(-neck, 1.75), (-0.25, 2.1), (0, 2.2), (0.25, 2.1), (neck, 1.75)], GOLD, 0.025, 0.9)


def paint_glasses(pen: Pen, face: Face) -> None:
    """Frames, a glint on each lens, and the arms to the ears."""
    if not face.glasses:
        return
    tone, width, half, tall, power = FRAMES[face.glasses]
    disc = oval(0, 0, 1, 1)
    lens = moved(np.sign(disc) * np.abs(disc) ** power * (half, tall), 0.43, 0.03)
    pen.fill(lens, (236, 244, 250), 0.14, BOTH)
    pen.fill([(0.3, 0.12), (0.42, -0.12), (0.5, -0.12), (0.38, 0.12)], (255, 255, 255), 0.2, BOTH)
    pen.stroke(np.concatenate((lens, lens[:2])), tone, width, 1, BLUNT, BOTH)
    pen.stroke([(0.76, -0.02), (0.9, -0.05), (1.04, -0.08)], tone, width, 1, BLUNT, BOTH)
    pen.curve([(-0.12, 0.0), (0, -0.05), (0.12, 0.0)], tone, width, 1, BLUNT)


def paint_vest(pen: Pen, face: Face, colour: Colour) -> None:
    """A safety vest, open in front, with bands that reflect."""
    neck, wide = (0.56, 2.15) if face.gender is Gender.MALE else (0.45, 1.8)
    panel = [(neck + 0.1, 1.74), (wide - 0.5, 2.08), (wide - 0.3, 3.0), (wide - 0.26, 5.0), (0.1, 5.0), (0.08, 2.7)]
    pen.fill(panel, colour, side=BOTH)
    pen.stroke([(wide * 0.45, 1.95), (wide * 0.47, 3.0), (wide * 0.47, 5.0)], (206, 210, 204), 0.2, 1, BLUNT, BOTH)
    pen.stroke([(0.08, 3.1), (wide - 0.3, 3.05)], (206, 210, 204), 0.22, 1, BLUNT, BOTH)
    pen.stroke([panel[0], panel[-1], panel[-2]], mix(colour, (40, 30, 20), 0.5), 0.04, 0.8, BLUNT, BOTH)


def paint_helmet(pen: Pen, colour: Colour) -> None:
    """A safety helmet with its ridges, its brim and its strap."""
    dome, brim = [(0.7, -1.88), (1.16, -1.45), (1.26, -0.62)], [(0.7, -0.84), (1.4, -0.56), (0.7, -0.58)]
    pen.fill(spline([(0, -2.02), *dome, *mirrored(dome)], closed=True), colour)
    pen.fill([(-1.26, -0.62), (0, -0.95), (1.26, -0.62), (0, -0.5)], colour)
    for x in (-0.32, 0.0, 0.32):
        pen.curve([(x * 0.7, -1.96), (x * 1.1, -1.4), (x * 1.3, -0.8)], mix(colour, (255, 255, 255), 0.4), 0.07, 0.8)
    pen.fill(spline([(0, -0.9), *brim, (0, -0.52), *mirrored(brim)], closed=True), mix(colour, (30, 30, 40), 0.3))
    pen.curve([(1.03, -0.5), (0.98, 0.4), (0.62, 1.22), (0.0, 1.5)], (50, 48, 52), 0.05, 0.9, BLUNT, BOTH)


class Cut(NamedTuple):
    """The shape of one mask: its outline, the heights and half widths that made it, two tones."""

    outline: np.ndarray
    top: float
    corner: float
    lower: float
    bottom: float
    wide: float
    narrow: float
    dark: Colour
    light: Colour


def cut_of(face: Face, shot: Shot) -> Cut:
    """The shape of the mask of `shot` on this face, from `shot.top` down."""
    top, bottom = shot.top, max(1.42 * face.length + 0.1, shot.top + 0.58)
    corner, lower = top + 0.2 * (bottom - top), top + 0.68 * (bottom - top)
    wide = rim(face, corner) * (0.86 if shot.kind == "cup" else 0.99)
    narrow = rim(face, min(lower, 1.15)) * (0.92 if shot.kind == "ffp2" else 1.02)
    half = [(0.36, top + 0.04), (wide * 0.9, corner - 0.04), (wide, corner + 0.06), (narrow, lower)]
    half.append((0.5 * face.jaw, bottom - 0.1))
    outline = spline([(0, top), *half, (0, bottom), *mirrored(half)], closed=True)
    dark, light = mix(shot.colour, (20, 24, 40), 0.4), mix(shot.colour, (255, 255, 255), 0.4)
    return Cut(outline, top, corner, lower, bottom, wide, narrow, dark, light)


def paint_mask(pen: Pen, face: Face, shot: Shot) -> None:
    """A mask with its loops round the ears, its shadow and its details."""
    cut, band = cut_of(face, shot), (30, 30, 34) if shot.kind == "black" else (240, 240, 242)
    upper = [(cut.wide * 0.97, cut.corner), (1.02, cut.corner * 0.5 - 0.02), (1.1, -0.14)]
    lower = [(cut.narrow * 0.97, cut.lower), (1.04, cut.lower * 0.5 + 0.16), (1.12, 0.24)]
    for loop in (upper, lower):
        pen.curve(loop, band, 0.035, 1, BLUNT, BOTH)
    pen.soft(moved(cut.outline, y=0.05), skin_tone(face, -0.9), 0.6, 0.06)
    pen.fill(cut.outline, shot.colour)
    shade = [(cut.wide * 0.55, cut.corner), (cut.wide, cut.corner), (cut.narrow, cut.lower), (0.5, cut.bottom)]
    pen.soft(shade, cut.dark, 0.6, 0.1, shot.dark_side)
    shine = oval(0.12, cut.top + 0.3 * (cut.bottom - cut.top), 0.16, 0.18)
    pen.soft(shine, cut.light, 0.6, 0.1, -shot.dark_side)
    MASK_DETAILS[shot.kind](pen, cut)
    pen.stroke(np.concatenate((cut.outline, cut.outline[:1])), cut.dark, 0.025, 0.6, BLUNT)


def pleats(pen: Pen, cut: Cut) -> None:
    """A surgical mask: pleats, and the wire over the nose."""
    for share in (0.15, 0.42, 0.69):
        y = cut.corner + (cut.lower - cut.corner) * share + 0.06
        half = 0.95 * (cut.wide + (cut.narrow - cut.wide) * share)
        fold = [(-half, y - 0.03), (0, y + 0.07), (half, y - 0.03)]
        pen.curve(fold, cut.dark, 0.035, 0.7, (0.6, 0.6))
        pen.curve(moved(fold, y=0.04), cut.light, 0.03, 0.6, (0.6, 0.6))
    pen.curve([(-0.3, cut.top + 0.11), (0, cut.top + 0.06), (0.3, cut.top + 0.11)], cut.light, 0.06, 0.9, (0.8, 0.8))
    pen.curve([(-0.45, cut.bottom - 0.12), (0, cut.bottom - 0.05), (0.45, cut.bottom - 0.12)], cut.dark, 0.03, 0.5)


def seam(pen: Pen, cut: Cut) -> None:
    """A sewn mask: a seam down the middle and a stitched hem."""
    pen.curve([(0, cut.top), (0.03, (cut.top + cut.bottom) / 2), (0, cut.bottom)], cut.dark, 0.04, 0.8, (0.7, 0.7))
    middle = cut.outline.mean(axis=0)
    hem = (cut.outline - middle) * 0.9 + middle
    for start in range(0, len(hem) - 2, 3):
        pen.stroke(hem[start : start + 3], cut.light, 0.02, 0.6, BLUNT)


def beak(pen: Pen, cut: Cut) -> None:
    """A stiff FFP2 mask: one fold down the middle, a metal clip and a welded rim."""
    ridge = [(0, cut.top), (cut.wide * 0.5, cut.corner + 0.1), (cut.narrow * 0.55, cut.lower), (0, cut.bottom)]
    pen.fill(ridge, cut.dark, 0.16)
    fold = [(0, cut.top), (0.04, cut.corner + 0.2), (0.03, cut.lower), (0, cut.bottom)]
    pen.curve(fold, cut.dark, 0.05, 0.8, (0.5, 0.8))
    clip = [(-0.28, cut.top + 0.09), (0, cut.top + 0.04), (0.28, cut.top + 0.09)]
    pen.curve(clip, (176, 180, 186), 0.06, 0.9, (0.8, 0.8))
    weld = [(0.93 * cut.wide, cut.corner + 0.08), (0.92 * cut.narrow, cut.lower - 0.02), (0.4, cut.bottom - 0.12)]
    pen.curve(weld, cut.dark, 0.025, 0.6, BLUNT, BOTH)


def valve(pen: Pen, cut: Cut) -> None:
    """A stiff cup with a valve in its middle, and a strip of foam along the nose."""
    middle = (cut.corner + cut.lower) / 2
    pen.curve([(-0.5, cut.top + 0.1), (0, cut.top + 0.02), (0.5, cut.top + 0.1)], (236, 196, 60), 0.07, 0.9, (0.8, 0.8))
    pen.fill(oval(0, middle, 0.24, 0.2), (96, 100, 108))
    pen.fill(oval(0, middle, 0.17, 0.13), (210, 212, 216))
    for shift in (-0.06, 0.0, 0.06):
        pen.curve([(-0.14, middle + shift), (0.14, middle + shift)], (70, 74, 82), 0.03, 0.9, BLUNT)


def stripes(pen: Pen, cut: Cut) -> None:
    """A printed cloth: broad stripes in two other colours."""
    for number, share in enumerate(np.linspace(0.02, 0.9, 6)):
        y = cut.corner + (cut.bottom - cut.corner) * share - 0.06
        half = 0.88 * np.interp(y, [cut.top, cut.corner, cut.lower, cut.bottom], [0.4, cut.wide, cut.narrow, 0.25])
        colour = ((250, 214, 70), (40, 60, 150))[number % 2]
        pen.curve([(-half, y), (0, y + 0.06), (half, y)], colour, 0.075, 0.95, BLUNT)


MASK_DETAILS: dict[str, Callable] = {"surgical": pleats, "cloth": seam, "ffp2": beak, "black": seam}
MASK_DETAILS |= {"cup": valve, "striped": stripes}

"""People who never were: their lasting looks, and what differs between two photos of them.

The order in which random numbers are drawn is part of the picture: change it, and the same seed gives other people.
"""

import enum
from typing import NamedTuple

import numpy as np

from mask_lib.sample.brush import Colour, mirrored, mix, spline

Mask = enum.IntEnum("Mask", "WORN INCORRECT NOT_WORN", start=0)  # how the mask is worn
Gender = enum.IntEnum("Gender", "MALE FEMALE", start=0)  # as the competition's data set records it
AgeGroup = enum.IntEnum("AgeGroup", "YOUNG MIDDLE OLD", start=0)  # cut at 30 and 60 years
SKINS = {  # lightest and darkest
    "Asian": ((248, 222, 192), (205, 160, 120)),
    "Black": ((158, 108, 76), (78, 48, 36)),
    "White": ((253, 226, 208), (232, 184, 154)),
    "Indian": ((206, 154, 112), (132, 86, 56)),
    "Other": ((236, 196, 160), (150, 100, 70)),
}
HAIRS = {
    "Asian": ((28, 24, 26), (48, 34, 30), (74, 48, 36)),
    "Black": ((24, 20, 20), (38, 28, 24), (60, 38, 28)),
    "White": ((44, 32, 28), (96, 62, 38), (150, 102, 56), (206, 164, 100), (158, 74, 40)),
    "Indian": ((24, 20, 20), (40, 28, 24), (62, 40, 30)),
    "Other": ((32, 26, 26), (72, 46, 32), (112, 72, 44)),
}
GREY = (214, 212, 210)
GOLD = (230, 194, 110)
FRAMES = {  # colour, width, half width and half height of a lens, roundness
    "round": ((70, 46, 36), 0.05, 0.31, 0.26, 1.0),
    "square": ((28, 26, 30), 0.065, 0.34, 0.22, 0.55),
    "thin": ((150, 130, 90), 0.03, 0.34, 0.22, 0.55),
}
NECKLINES = {"blouse": 2.55, "blazer": 2.5, "shirt": 2.2, "tee": 2.1, "hoodie": 2.1, "turtleneck": 1.8}  # lowest y
EYES = ((66, 42, 28), (92, 60, 34), (112, 96, 56), (82, 118, 148), (86, 126, 96))
BEARDS, BEARD_ODDS = ("", "stubble", "full", "moustache"), (0.6, 0.2, 0.14, 0.06)
SCENES = ("wall", "bokeh", "window", "shelves", "garden")
WALLS = ((196, 204, 208), (222, 208, 190), (168, 186, 176), (206, 190, 200), (150, 166, 188), (232, 226, 214))
MASKS = {
    "surgical": ((150, 200, 222), (236, 240, 242), (164, 214, 200), (240, 190, 200)),
    "cloth": ((92, 112, 150), (178, 96, 92), (110, 140, 110), (208, 186, 156), (122, 98, 140)),
    "ffp2": ((242, 242, 240), (228, 228, 224)),
    "black": ((34, 34, 38), (52, 52, 58)),
    "cup": ((238, 238, 232), (222, 222, 216)),
    "striped": ((200, 80, 70), (90, 170, 130)),
}
NEW_KINDS = ("cup", "striped")  # of masks that no photo shows unless asked


class Hairstyle(NamedTuple):
    """Volumes above the skull and beside it, the fringe, and how far the hair falls (y; 0: short)."""

    top: float
    side: float
    fringe: float = 0.0  # how far the hairline is pulled down
    length: float = 0.0
    curl: float = 0.0
    knot: float = 0.0  # radius of a bun


HAIRSTYLES = {
    "buzz": Hairstyle(0.06, 0.03),
    "crop": Hairstyle(0.18, 0.05),
    "parted": Hairstyle(0.26, 0.07, fringe=0.1),
    "quiff": Hairstyle(0.36, 0.05),
    "curls": Hairstyle(0.30, 0.14, fringe=0.12, curl=1.0),
    "pixie": Hairstyle(0.28, 0.12, fringe=0.3),
    "bob": Hairstyle(0.24, 0.22, fringe=0.3, length=1.15),
    "long": Hairstyle(0.22, 0.18, fringe=0.12, length=2.4),
    "wavy": Hairstyle(0.28, 0.28, fringe=0.15, length=2.2, curl=0.6),
    "curled": Hairstyle(0.30, 0.22, fringe=0.15, length=0.5, curl=1.0),
    "bun": Hairstyle(0.16, 0.05, knot=0.46),
    "afro": Hairstyle(0.50, 0.42, length=0.6, curl=1.0),
}


class AgeStage(NamedTuple):
    """What people of one stage of life, by `Gender`, mostly wear; `glasses` is the share of them who have some."""

    hairstyles: tuple[tuple[str, ...], tuple[str, ...]]
    outfits: tuple[tuple[str, ...], tuple[str, ...]]
    clothes: tuple[Colour, ...]
    glasses: float


AGE_STAGES = (
    AgeStage(
        hairstyles=(("crop", "quiff", "quiff", "curls"), ("long", "long", "wavy", "bun")),
        outfits=(("tee", "hoodie", "hoodie"), ("tee", "blouse", "hoodie")),
        clothes=((235, 94, 76), (64, 148, 210), (250, 196, 70), (96, 186, 140), (226, 110, 160), (120, 100, 200)),
        glasses=0.08,
    ),
    AgeStage(
        hairstyles=(("crop", "parted", "parted", "buzz"), ("bob", "wavy", "long", "bob", "bun")),
        outfits=(("shirt", "blazer", "shirt"), ("blouse", "blazer", "shirt", "turtleneck")),
        clothes=((52, 70, 104), (60, 60, 66), (232, 232, 236), (142, 58, 62), (74, 104, 84), (94, 140, 160)),
        glasses=0.35,
    ),
    AgeStage(
        hairstyles=(("parted", "crop", "buzz"), ("pixie", "bob", "pixie", "curled")),
        outfits=(("shirt", "turtleneck"), ("turtleneck", "blouse", "shirt")),
        clothes=((160, 138, 112), (196, 180, 158), (128, 132, 120), (150, 112, 120), (120, 128, 148)),
        glasses=0.7,
    ),
)
STAGE_EDGES = (0.24, 0.74)  # wear
ODD_SHARE = 0.05  # of the people dress against the rule of their gender, and as many against that of their age


class Face(NamedTuple):
    """A person's lasting looks. Lengths in head units, colours 0-255, shares 0-1."""

    seed: int
    gender: Gender
    wear: float  # how old the face looks, 0-1
    grey: float
    recession: float
    skin: Colour
    hair: Colour
    iris: Colour
    hairstyle: str
    parting: float
    eye: tuple[float, float, float]  # half width, half height, tilt
    brow: float
    nose: float
    lips: float
    jaw: float
    length: float
    glasses: str
    beard: str
    earrings: bool
    makeup: float
    outfit: str
    cloth: Colour
    wall: Colour
    scene: str


class Shot(NamedTuple):
    """What differs between photos of one person. Shifts in shares of the width, angles in degrees."""

    mask: Mask
    kind: str
    colour: Colour
    top: float  # y of the mask's upper edge
    shift: tuple[float, float]
    scale: float
    angle: float
    turn: float
    nod: float
    smile: float
    gaze: float
    light: float  # -1 from the left, 1 from the right
    brightness: float
    warmth: float
    seed: int
    helmet: Colour | None = None
    vest: Colour | None = None

    @property
    def dark_side(self) -> int:
        """The side of the face away from the light: -1 left, 1 right."""
        return -1 if self.light > 0 else 1


def invent_face(random: np.random.Generator, gender: Gender, race: str, years: int) -> Face:
    """A person of this gender, race (a key of `SKINS`) and age in years; the cues of age grow with the years."""
    # Steeper across 30 and 60, to tell the groups apart, yet never flat.
    wear = float(np.interp(years, (16, 28, 32, 56, 60, 80), (0.0, 0.08, 0.4, 0.6, 0.88, 1.0)))
    wear = float(np.clip(wear + random.normal(0, 0.04), 0, 1))
    looks = gender if random.random() > ODD_SHARE else Gender(1 - gender)
    stage = AGE_STAGES[int(np.searchsorted(STAGE_EDGES, wear))]
    stage = stage if random.random() > ODD_SHARE else AGE_STAGES[random.integers(len(AGE_STAGES))]
    female, is_black = gender is Gender.FEMALE, race == "Black"
    return Face(
        seed=int(random.integers(2**31)),
        gender=gender,
        wear=wear,
        grey=float(np.clip((wear - 0.32) * 1.6 + random.normal(0, 0.1), 0, 1)) * (wear > 0.2),
        recession=0.0 if female else random.uniform(0.2, 1.0) * max(0.0, wear - 0.25),
        skin=mix(*SKINS[race], random.random()),
        hair=HAIRS[race][random.integers(len(HAIRS[race]))],
        iris=EYES[random.integers({"White": 5, "Other": 3}.get(race, 2))],
        hairstyle=invent_hairstyle(random, looks, race, stage),
        parting=float(random.choice((-1, 1)) * random.uniform(0.1, 0.35)),
        eye=(
            random.uniform(0.225, 0.26) - 0.02 * wear,
            random.uniform(0.105, 0.125) + 0.018 * female - 0.014 * (race == "Asian") - 0.045 * wear,
            random.uniform(-0.01, 0.04) - 0.03 * wear,
        ),
        brow=random.normal(0.05, 0.008) + 0.032 * (not female),
        nose=random.uniform(0.19, 0.25) + 0.02 * (not female) + 0.03 * is_black + 0.02 * wear,
        lips=random.uniform(0.075, 0.105) + 0.03 * is_black + 0.015 * female - 0.03 * wear,
        jaw=random.normal(0.86 if female else 0.98, 0.035),
        length=random.uniform(0.94, 1.0) + 0.06 * wear,
        glasses=str(random.choice(tuple(FRAMES))) if random.random() < stage.glasses else "",
        beard="" if female else str(random.choice(BEARDS, p=BEARD_ODDS)),
        earrings=bool(random.random() < (0.5 if female else 0.04)),
        makeup=random.uniform(0.4, 1.0) * (looks is Gender.FEMALE) * (1 - 0.5 * wear),
        outfit=str(random.choice(stage.outfits[looks])),
        cloth=stage.clothes[random.integers(len(stage.clothes))],
        wall=mix(WALLS[random.integers(len(WALLS))], random.uniform(60, 240, 3), 0.28),
        scene=str(random.choice(SCENES)),
    )


def invent_hairstyle(random: np.random.Generator, looks: Gender, race: str, stage: AgeStage) -> str:
    """The name of a hairstyle, a key of `HAIRSTYLES`."""
    if race == "Black" and random.random() < 0.4:
        return "afro" if looks is Gender.FEMALE else "buzz"
    return str(random.choice(stage.hairstyles[looks]))


def invent_shot(random: np.random.Generator, mask: Mask, is_new: bool = False) -> Shot:
    """One photo's pose, light and mask, of a kind that no other photo shows if it `is_new`."""
    kind = str(random.choice(NEW_KINDS if is_new else ("surgical", "surgical", "cloth", "ffp2", "black")))
    top = 0.14 + random.uniform(-0.05, 0.05)
    if mask is Mask.INCORRECT:
        top = random.choice((0.7, 1.12)) + random.uniform(-0.02, 0.03)  # below the nose, or on the chin
    return Shot(
        mask=mask,
        kind=kind,
        colour=MASKS[kind][random.integers(len(MASKS[kind]))],
        top=float(top),
        shift=(random.uniform(-0.05, 0.05), random.uniform(-0.04, 0.04)),
        scale=random.uniform(0.93, 1.08),
        angle=random.normal(0, 3.0),
        turn=random.uniform(-1, 1),
        nod=random.uniform(-0.6, 0.6),
        smile=random.uniform(0.1, 1.0),
        gaze=random.uniform(-0.3, 0.3),
        light=random.uniform(-1, 1),
        brightness=random.uniform(0.88, 1.1),
        warmth=random.uniform(-1, 1),
        seed=int(random.integers(2**31)),
    )


def skin_tone(face: Face, share: float) -> Colour:
    """The skin in shadow (share below 0) or in light (above 0)."""
    if share > 0:
        return mix(face.skin, (255, 244, 230), share)
    return mix(face.skin, mix(mix(face.skin, (60, 20, 20), 0.55), (40, 20, 40), 0.1), -share)


def hair_tone(face: Face, share: float = 0.0) -> Colour:
    """The hair's colour with its grey, darker (share below 0) or lighter (above 0)."""
    base = mix(face.hair, GREY, 0.92 * face.grey)
    return mix(base, (255, 250, 240), share) if share > 0 else mix(base, (16, 10, 14), -share)


def head_outline(face: Face) -> np.ndarray:
    """The closed outline of the face."""
    cheek = 0.05 * (1 - face.wear)
    upper = [(0.5, -1.3), (0.88, -0.9), (0.99, -0.3)]
    chin = (0.4 * face.jaw + 0.02, 1.31)
    lower = [(0.97, 0.2), (0.89 + cheek * 0.6, 0.62), (0.77 * face.jaw + 0.04 + cheek, 1.0), chin]
    half = [*upper, *((x, y * face.length) for x, y in lower)]
    return spline([(0, -1.38), *half, (0, 1.42 * face.length), *mirrored(half)], closed=True)


def rim(face: Face, y: float) -> float:
    """Half the width of the face at the height y."""
    outline = head_outline(face)
    right = outline[: len(outline) // 2]
    return float(np.interp(y, right[:, 1], right[:, 0]))

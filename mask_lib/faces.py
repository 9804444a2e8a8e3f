"""People who never were: a person's lasting looks, and what differs between two photos of them.

Nothing here is taken from a photo of a real person. The order in which random numbers are drawn is
part of the picture: change it, and the same seed gives other people.
"""

from dataclasses import dataclass
from typing import Any

import numpy as np

from mask_lib.brush import Colour, mirrored, mix, spline
from mask_lib.labels import Gender, Mask
from mask_lib.looks import (
    AGE_STAGES,
    BEARD_ODDS,
    BEARDS,
    EYES,
    FRAMES,
    GREY,
    HAIRS,
    MASKS,
    ODD_SHARE,
    SCENES,
    SKINS,
    STAGE_EDGES,
    WALLS,
    AgeStage,
)


@dataclass(frozen=True)
class Face:
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


@dataclass(frozen=True)
class Shot:
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

    @property
    def dark_side(self) -> int:
        """The side of the face away from the light: -1 left, 1 right."""
        return -1 if self.light > 0 else 1


def invent_face(random: np.random.Generator, gender: Gender, race: str, years: int) -> Face:
    """A person of this gender, race (a key of `SKINS`) and age in years; the cues of age grow with the years."""
    wear = wear_at(random, years)
    looks = gender if random.random() > ODD_SHARE else Gender(1 - gender)
    stage = AGE_STAGES[int(np.searchsorted(STAGE_EDGES, wear))]
    stage = stage if random.random() > ODD_SHARE else AGE_STAGES[random.integers(len(AGE_STAGES))]
    return Face(
        seed=int(random.integers(2**31)),
        gender=gender,
        wear=wear,
        **invent_colours(random, gender, race, wear),
        hairstyle=invent_hairstyle(random, looks, race, stage),
        parting=float(random.choice((-1, 1)) * random.uniform(0.1, 0.35)),
        **invent_features(random, gender, race, wear),
        **invent_outfit(random, gender, looks, wear, stage),
        wall=mix(WALLS[random.integers(len(WALLS))], random.uniform(60, 240, 3), 0.28),
        scene=str(random.choice(SCENES)),
    )


def wear_at(random: np.random.Generator, years: int) -> float:
    """How old a face of this age looks, 0-1."""
    # Steeper across 30 and 60, so that the three groups can be told apart, yet never flat.
    wear = float(np.interp(years, (16, 28, 32, 56, 60, 80), (0.0, 0.08, 0.4, 0.6, 0.88, 1.0)))
    return float(np.clip(wear + random.normal(0, 0.04), 0, 1))


def invent_colours(random: np.random.Generator, gender: Gender, race: str, wear: float) -> dict[str, Any]:
    """The skin, the hair with its grey and its receding, and the eyes."""
    return {
        "grey": float(np.clip((wear - 0.32) * 1.6 + random.normal(0, 0.1), 0, 1)) * (wear > 0.2),
        "recession": 0.0 if gender is Gender.FEMALE else random.uniform(0.2, 1.0) * max(0.0, wear - 0.25),
        "skin": mix(*SKINS[race], random.random()),
        "hair": HAIRS[race][random.integers(len(HAIRS[race]))],
        "iris": EYES[random.integers({"White": 5, "Other": 3}.get(race, 2))],
    }


def invent_features(random: np.random.Generator, gender: Gender, race: str, wear: float) -> dict[str, Any]:
    """The sizes of eyes, brows, nose, lips, jaw and face."""
    female = gender is Gender.FEMALE
    return {
        "eye": (
            random.uniform(0.225, 0.26) - 0.02 * wear,
            random.uniform(0.105, 0.125) + 0.018 * female - 0.014 * (race == "Asian") - 0.045 * wear,
            random.uniform(-0.01, 0.04) - 0.03 * wear,
        ),
        "brow": random.normal(0.05, 0.008) + 0.032 * (not female),
        "nose": random.uniform(0.19, 0.25) + 0.02 * (not female) + 0.03 * (race == "Black") + 0.02 * wear,
        "lips": random.uniform(0.075, 0.105) + 0.03 * (race == "Black") + 0.015 * female - 0.03 * wear,
        "jaw": random.normal(0.86 if female else 0.98, 0.035),
        "length": random.uniform(0.94, 1.0) + 0.06 * wear,
    }


def invent_outfit(
    random: np.random.Generator, gender: Gender, looks: Gender, wear: float, stage: AgeStage
) -> dict[str, Any]:
    """Glasses, beard, earrings, make-up and clothes."""
    female = gender is Gender.FEMALE
    return {
        "glasses": str(random.choice(tuple(FRAMES))) if random.random() < stage.glasses else "",
        "beard": "" if female else str(random.choice(BEARDS, p=BEARD_ODDS)),
        "earrings": bool(random.random() < (0.5 if female else 0.04)),
        "makeup": random.uniform(0.4, 1.0) * (looks is Gender.FEMALE) * (1 - 0.5 * wear),
        "outfit": str(random.choice(stage.outfits[looks])),
        "cloth": stage.clothes[random.integers(len(stage.clothes))],
    }


def invent_hairstyle(random: np.random.Generator, looks: Gender, race: str, stage: AgeStage) -> str:
    """The name of a hairstyle."""
    if race == "Black" and random.random() < 0.4:
        return "afro" if looks is Gender.FEMALE else "buzz"
    return str(random.choice(stage.hairstyles[looks]))


def invent_shot(random: np.random.Generator, mask: Mask) -> Shot:
    """One photo's pose, light and mask. An incorrect mask hangs below the nose or on the chin."""
    kind = str(random.choice(("surgical", "surgical", "cloth", "ffp2", "black")))
    top = 0.14 + random.uniform(-0.05, 0.05)
    if mask is Mask.INCORRECT:
        top = random.choice((0.7, 1.12)) + random.uniform(-0.02, 0.03)
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
    lower = [
        (0.97, 0.2),
        (0.89 + cheek * 0.6, 0.62),
        (0.77 * face.jaw + 0.04 + cheek, 1.0),
        (0.4 * face.jaw + 0.02, 1.31),
    ]
    half = [*upper, *((x, y * face.length) for x, y in lower)]
    return spline([(0, -1.38), *half, (0, 1.42 * face.length), *mirrored(half)], closed=True)


def rim(face: Face, y: float) -> float:
    """Half the width of the face at the height y."""
    outline = head_outline(face)
    right = outline[: len(outline) // 2]
    return float(np.interp(y, right[:, 1], right[:, 0]))

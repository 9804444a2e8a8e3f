"""What people can look like: colours, hairstyles, masks, and what is worn at which stage of life."""

from dataclasses import dataclass

from mask_lib.brush import Colour
from mask_lib.labels import Gender

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
}


@dataclass(frozen=True)
class Hairstyle:
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


@dataclass(frozen=True)
class AgeStage:
    """What people of one stage of life mostly wear; `glasses` is the share of them who have some."""

    hairstyles: dict[Gender, tuple[str, ...]]
    outfits: dict[Gender, tuple[str, ...]]
    clothes: tuple[Colour, ...]
    glasses: float


AGE_STAGES = (
    AgeStage(
        hairstyles={Gender.MALE: ("crop", "quiff", "quiff", "curls"), Gender.FEMALE: ("long", "long", "wavy", "bun")},
        outfits={Gender.MALE: ("tee", "hoodie", "hoodie"), Gender.FEMALE: ("tee", "blouse", "hoodie")},
        clothes=((235, 94, 76), (64, 148, 210), (250, 196, 70), (96, 186, 140), (226, 110, 160), (120, 100, 200)),
        glasses=0.08,
    ),
    AgeStage(
        hairstyles={
            Gender.MALE: ("crop", "parted", "parted", "buzz"),
            Gender.FEMALE: ("bob", "wavy", "long", "bob", "bun"),
        },
        outfits={Gender.MALE: ("shirt", "blazer", "shirt"), Gender.FEMALE: ("blouse", "blazer", "shirt", "turtleneck")},
        clothes=((52, 70, 104), (60, 60, 66), (232, 232, 236), (142, 58, 62), (74, 104, 84), (94, 140, 160)),
        glasses=0.35,
    ),
    AgeStage(
        hairstyles={Gender.MALE: ("parted", "crop", "buzz"), Gender.FEMALE: ("pixie", "bob", "pixie", "curled")},
        outfits={Gender.MALE: ("shirt", "turtleneck"), Gender.FEMALE: ("turtleneck", "blouse", "shirt")},
        clothes=((160, 138, 112), (196, 180, 158), (128, 132, 120), (150, 112, 120), (120, 128, 148)),
        glasses=0.7,
    ),
)


STAGE_EDGES = (0.24, 0.74)  # wear
ODD_SHARE = 0.05  # of the people dress against the rule of their gender, and as many against that of their age

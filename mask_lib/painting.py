"""Stylised portraits: one invented person, with or without a mask, drawn from a few numbers.

`invent_face` draws a person's lasting looks, `invent_shot` what differs between two photos of them,
and `portrait` paints the picture. Nothing here is taken from a photo of a real person.

A head is drawn in its own units: the origin lies between the eyes, x grows to the right, y downwards,
the face is about 2 wide, its chin at y = 1.42 and the top of the skull at y = -1.38.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
from PIL import Image, ImageChops, ImageDraw, ImageFilter

from mask_lib.labels import Gender, Mask

Colour = tuple[float, float, float]
Points = Sequence[Sequence[float]] | np.ndarray
Ends = tuple[float, float]
FINE, BLUNT = (0.15, 0.15), (1.0, 1.0)  # the ends of a brush line: shares of its full width
OVERSAMPLING = 2  # edges are drawn at twice the size and averaged down
SOFT_STEP = 8  # soft shadows are drawn this much smaller: nobody sees it, and it is 64 times less work

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


def mix(first: Sequence[float], second: Sequence[float], share: float) -> Colour:
    """The colour `share` of the way from the first to the second."""
    return tuple(a + (b - a) * share for a, b in zip(first, second, strict=True))


def invent_face(random: np.random.Generator, gender: Gender, race: str, years: int) -> Face:
    """A person of this gender, race and age in years; the cues of age grow with the years."""
    # Steeper across 30 and 60, so that the three groups can be told apart, yet never flat.
    wear = float(np.interp(years, (16, 28, 32, 56, 60, 80), (0.0, 0.08, 0.4, 0.6, 0.88, 1.0)))
    wear = float(np.clip(wear + random.normal(0, 0.04), 0, 1))
    female = gender is Gender.FEMALE
    looks = gender if random.random() > 0.05 else Gender(1 - gender)  # a few dress against the rule
    stage = AGE_STAGES[int(np.searchsorted((0.24, 0.74), wear))]
    stage = stage if random.random() > 0.05 else AGE_STAGES[random.integers(3)]
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
        nose=random.uniform(0.19, 0.25) + 0.02 * (not female) + 0.03 * (race == "Black") + 0.02 * wear,
        lips=random.uniform(0.075, 0.105) + 0.03 * (race == "Black") + 0.015 * female - 0.03 * wear,
        jaw=random.normal(0.86 if female else 0.98, 0.035),
        length=random.uniform(0.94, 1.0) + 0.06 * wear,
        glasses=str(random.choice(tuple(FRAMES))) if random.random() < stage.glasses else "",
        beard="" if female else str(random.choice(("", "stubble", "full", "moustache"), p=(0.6, 0.2, 0.14, 0.06))),
        earrings=bool(random.random() < (0.5 if female else 0.04)),
        makeup=random.uniform(0.4, 1.0) * (looks is Gender.FEMALE) * (1 - 0.5 * wear),
        outfit=str(random.choice(stage.outfits[looks])),
        cloth=stage.clothes[random.integers(len(stage.clothes))],
        wall=mix(WALLS[random.integers(len(WALLS))], random.uniform(60, 240, 3), 0.28),
        scene=str(random.choice(tuple(SCENES))),
    )


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


def ink(colour: Colour) -> tuple[int, ...]:
    """The colour as Pillow takes it."""
    return tuple(max(0, min(255, int(part))) for part in colour)


class Pen:
    """Draws shapes given in head units on a picture, through one pose; `side` -1 mirrors a shape."""

    def __init__(self, image: Image.Image, origin: tuple[float, float], unit: float, shot: Shot, rigid: bool = False):
        angle = np.deg2rad(0 if rigid else shot.angle)
        self.matrix = unit * np.array(((np.cos(angle), np.sin(angle)), (-np.sin(angle), np.cos(angle))))
        self.origin, self.unit, self.image = np.array(origin), unit, image
        self.lean = np.zeros(2) if rigid else np.array((0.1 * shot.turn, 0.07 * shot.nod))
        self.plain, self.glaze = ImageDraw.Draw(image), ImageDraw.Draw(image, "RGBA")

    def place(self, points: Points) -> np.ndarray:
        """Pixels of points; turning moves the middle of the face more than its rim."""
        points = np.asarray(points, dtype=float)
        near = 1 - np.minimum(1, (points / (1.0, 1.42)) ** 2)
        return (points + near[:, ::-1] * near * self.lean) @ self.matrix + self.origin

    def fill(self, points: Points, colour: Colour, opacity: float = 1.0, side: int = 1) -> None:
        """A closed shape in one colour."""
        pixels = self.place(moved(points, side=side)).ravel().tolist()
        if opacity >= 1:
            self.plain.polygon(pixels, fill=ink(colour))
        else:
            self.glaze.polygon(pixels, fill=(*ink(colour), int(255 * opacity)))

    def stroke(
        self, points: Points, colour: Colour, width: float, opacity: float = 1.0, ends: Ends = FINE, side: int = 1
    ) -> None:
        """A brush line of full `width` in its middle and the `ends` shares of it at its two ends."""
        points = np.asarray(points, dtype=float)
        along = np.gradient(points, axis=0)
        normal = along[:, ::-1] * (1, -1) / (np.hypot(*along.T)[:, None] + 1e-9)
        profile = np.interp(np.linspace(0, 1, len(points)), (0, 0.5, 1), (ends[0], 1, ends[1]))[:, None]
        offset = normal * profile * max(width, 1.2 / self.unit) / 2
        self.fill(np.concatenate((points + offset, (points - offset)[::-1])), colour, opacity, side)

    def curve(
        self, points: Points, colour: Colour, width: float, opacity: float = 1.0, ends: Ends = FINE, side: int = 1
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


def paint_scene(face: Face, shot: Shot, size: tuple[int, int]) -> Image.Image:
    """A blurred background: it stays with the person, seen from slightly elsewhere."""
    random = np.random.default_rng(face.seed)
    width, height = size[0] // SOFT_STEP, size[1] // SOFT_STEP
    across, down = np.linspace(-0.12, 0.12, width)[None], np.linspace(0.25, -0.3, height)[:, None]
    light = 1 + down + across * random.choice((-1, 1))
    small = Image.fromarray(np.clip(np.array(face.wall) * light[..., None], 0, 255).astype(np.uint8))
    scale = np.array((width, height))
    SCENES[face.scene](ImageDraw.Draw(small, "RGBA"), random, scale, np.array(shot.shift) * width * 1.2)
    small = small.filter(ImageFilter.GaussianBlur(width / 60))
    # Enlarged smoothly to half the size, then by doubling: that is quicker, and halved again in the end.
    half = small.resize((size[0] // 2, size[1] // 2), Image.Resampling.BILINEAR)
    return half.resize(size, Image.Resampling.NEAREST)


def draw_disc(draw: ImageDraw.ImageDraw, middle: np.ndarray, radius: float, colour: tuple[int, ...]) -> None:
    """A round spot of a background."""
    draw.ellipse((*(middle - radius), *(middle + radius)), fill=colour)


def bokeh(draw: ImageDraw.ImageDraw, random: np.random.Generator, size: np.ndarray, slide: np.ndarray) -> None:
    """Discs of light far behind."""
    for _ in range(16):
        colour = (*random.integers((200, 150, 90), 256).tolist(), int(random.integers(60, 150)))
        draw_disc(draw, random.uniform(0, size) + slide, random.uniform(0.04, 0.13) * size[0], colour)


def window(draw: ImageDraw.ImageDraw, random: np.random.Generator, size: np.ndarray, slide: np.ndarray) -> None:
    """A bright window of four panes on one side."""
    corner = (random.choice((0.02, 0.52)), 0.06) * size + slide
    for pane in ((0, 0), (0.24, 0), (0, 0.24), (0.24, 0.24)):
        start = corner + pane * size
        draw.rectangle((*start, *(start + 0.21 * size)), fill=(246, 248, 250, 215))


def shelves(draw: ImageDraw.ImageDraw, random: np.random.Generator, size: np.ndarray, slide: np.ndarray) -> None:
    """Shelves with things on them."""
    for shelf in np.arange(0.12, 1.0, 0.22) * size[1] + slide[1]:
        x = slide[0]
        while x < size[0]:
            thing = random.uniform((0.04, 0.06), (0.12, 0.17)) * size
            draw.rectangle(
                (x, shelf - thing[1], x + thing[0], shelf), fill=(*random.integers(50, 230, 3).tolist(), 170)
            )
            x += thing[0] + random.uniform(0, 0.1) * size[0]
        draw.rectangle((0, shelf, size[0], shelf + 0.015 * size[1]), fill=(70, 50, 40, 200))


def garden(draw: ImageDraw.ImageDraw, random: np.random.Generator, size: np.ndarray, slide: np.ndarray) -> None:
    """Sky above hedges."""
    horizon = random.uniform(0.25, 0.6) * size[1]
    draw.rectangle((0, 0, size[0], horizon + slide[1]), fill=(176, 210, 236, 210))
    for _ in range(26):
        colour = (*random.integers((50, 100, 40), (130, 180, 90)).tolist(), 190)
        draw_disc(draw, random.uniform((0, horizon), size) + slide, random.uniform(0.08, 0.2) * size[0], colour)


def wall(draw: ImageDraw.ImageDraw, random: np.random.Generator, size: np.ndarray, slide: np.ndarray) -> None:
    """A plain wall with a picture or two."""
    for _ in range(random.integers(1, 3)):
        corner = random.uniform((0, 0.02), (0.8, 0.3)) * size + slide
        end = corner + random.uniform(0.15, 0.35, 2) * size[0]
        draw.rectangle((*corner, *end), fill=(*random.integers(60, 250, 3).tolist(), 200))


SCENES: dict[str, Callable] = {"wall": wall, "bokeh": bokeh, "window": window, "shelves": shelves, "garden": garden}


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
    if style.length > 1:
        paint_curtains(pen, face, random)


def paint_curtains(pen: Pen, face: Face, random: np.random.Generator) -> None:
    """Long hair that falls in front of the ears."""
    style = HAIRSTYLES[face.hairstyle]
    wide, end = 1.0 + style.side, style.length
    out = spline([(wide * 0.95, -0.75), (wide + 0.05, 0.1), (wide + 0.07, end * 0.6), (wide - 0.1, end * 0.97)])
    into = spline([(0.84, -0.6), (0.93, 0.1), (0.92 + style.side * 0.3, end * 0.6), (wide - 0.16, end)])
    for side in (-1, 1):
        edges = (moved(wave(edge, 0.09 * style.curl), side=side) for edge in (out, into))
        paint_lock(pen, face, *edges, random)


def paint_body(pen: Pen, face: Face) -> None:
    """Neck, shoulders and clothes."""
    neck, wide = (0.56, 2.15) if face.gender is Gender.MALE else (0.45, 1.8)
    dark, depth = mix(face.cloth, (20, 16, 30), 0.35), NECKLINES[face.outfit]
    half = [
        (neck, 1.6),
        (neck + 0.26, 1.84),
        (wide - 0.4, 2.16),
        (wide - 0.06, 2.6),
        (wide + 0.1, 3.4),
        (wide + 0.12, 5.0),
    ]
    if face.outfit == "hoodie":
        pen.fill(spline([(-0.95, 2.1), (-0.8, 1.35), (0, 1.1), (0.8, 1.35), (0.95, 2.1)], closed=True), dark)
    shoulder = spline(half)
    pen.fill(np.concatenate((shoulder, mirrored(shoulder))), face.cloth)
    sleeve = [(wide - 0.5, 2.75), (wide - 0.42, 3.3), (wide - 0.46, 5.0)]
    for side in (-1, 1):
        pen.curve(sleeve, dark, 0.07, 0.7, (0.1, 1), side)
        pen.curve(moved(sleeve, 0.08, 0.05), mix(face.cloth, (255, 255, 255), 0.15), 0.05, 0.6, (0.1, 1), side)
    throat = [(-neck, 0.8), (-neck - 0.06, 1.8), (0, depth), (neck + 0.06, 1.8), (neck, 0.8)]
    pen.fill(spline(throat, closed=True), skin_tone(face, -0.12))
    pen.soft(spline([(-neck, 1.1), (0, 1.8), (neck, 1.1)], closed=True), skin_tone(face, -0.75), 0.75, 0.12)
    COLLARS[face.outfit](pen, face, neck, depth, dark)


def collar_round(pen: Pen, face: Face, neck: float, depth: float, dark: Colour) -> None:
    """The band of a T-shirt, or of a hood with its two strings."""
    right = [(neck * 0.7, depth - 0.14), (neck + 0.12, 1.74)]
    pen.curve([*mirrored(right), (0, depth), *right], dark, 0.09, 1, BLUNT)
    if face.outfit == "hoodie":
        for side in (-1, 1):
            pen.curve([(0.3, 2.05), (0.34, 2.5), (0.3, 2.9)], (236, 236, 230), 0.05, 1, BLUNT, side)


def collar_open(pen: Pen, face: Face, neck: float, depth: float, dark: Colour) -> None:
    """The wings of a shirt, or the lapels of a blazer, with a row of buttons."""
    reach, light = (0.21, 0.25) if face.outfit == "shirt" else (0.48, 0.06)
    wing = [(neck + 0.02, 1.58), (neck + 0.24, 1.8), (neck * 0.75 + 0.1, depth + reach), (0.04, depth + 0.02)]
    for side in (-1, 1):
        pen.fill(wing, mix(face.cloth, (255, 255, 255), light), side=side)
        pen.stroke(wing[1:], dark, 0.035, 0.8, side=side)
    pen.stroke([(0, depth), (0, 3.4), (0, 5.0)], dark, 0.04, 0.9, BLUNT)
    for y in (depth + 0.4, depth + 0.9):
        pen.fill(oval(0.09, y, 0.04, 0.04), dark)


def collar_rolled(pen: Pen, face: Face, neck: float, depth: float, dark: Colour) -> None:
    """A collar rolled up the neck."""
    ring = [(neck + 0.08, 1.5), (neck + 0.16, 1.95)]
    pen.fill(spline([(0, 1.68), *ring, (0, 2.12), *mirrored(ring)], closed=True), mix(face.cloth, (255, 255, 255), 0.1))
    pen.curve([(-neck - 0.14, 1.94), (0, 2.12), (neck + 0.14, 1.94)], dark, 0.05, 0.8)


def collar_soft(pen: Pen, face: Face, neck: float, depth: float, dark: Colour) -> None:
    """The edge of a blouse, with a fine chain."""
    pen.curve([(-neck - 0.1, 1.72), (-0.35, 2.3), (0, depth), (0.35, 2.3), (neck + 0.1, 1.72)], dark, 0.06, 0.8)
    pen.curve([(-neck, 1.75), (-0.25, 2.1), (0, 2.2), (0.25, 2.1), (neck, 1.75)], GOLD, 0.025, 0.9)


COLLARS: dict[str, Callable] = {
    "tee": collar_round,
    "hoodie": collar_round,
    "shirt": collar_open,
    "blazer": collar_open,
    "blouse": collar_soft,
    "turtleneck": collar_rolled,
}


def paint_head(pen: Pen, face: Face, shot: Shot) -> None:
    """Ears, the face's shape, its shadows and its blush."""
    ear = spline([(0.9, -0.2), (1.08, -0.26), (1.16, 0.0), (1.08, 0.3), (0.94, 0.42)], closed=True)
    for side in (-1, 1):
        pen.fill(ear, skin_tone(face, -0.18), side=side)
        pen.curve([(1.0, -0.14), (1.09, -0.06), (1.05, 0.16)], skin_tone(face, -0.6), 0.04, 0.7, side=side)
        if face.earrings:
            pen.fill(oval(1.05, 0.46, 0.06, 0.08), GOLD, side=side)
    pen.fill(head_outline(face), face.skin)
    edge = [(0.86, -0.8), (1.0, -0.3), (0.97, 0.3), (0.8, 1.0), (0.5, 1.3), (0.74, 0.8), (0.84, 0.1)]
    pen.soft(edge, skin_tone(face, -0.7), 0.45, 0.1, shot.dark_side)
    pen.soft(edge, skin_tone(face, -0.7), 0.2, 0.1, -shot.dark_side)
    pen.soft(oval(0.2, -0.6, 0.4, 0.2), skin_tone(face, 0.6), 0.4, 0.16, -shot.dark_side)
    blush = (0.7 - 0.55 * face.wear) * (0.65 + 0.5 * face.makeup)
    for side in (-1, 1):
        pen.soft(oval(0.56, 0.42, 0.2, 0.14), mix(face.skin, (226, 84, 84), 0.55), blush, 0.12, side)
        pen.soft(oval(0.42, -0.1, 0.26, 0.16), skin_tone(face, -0.6), 0.22 + 0.3 * face.wear, 0.08, side)


def paint_wrinkles(pen: Pen, face: Face) -> None:
    """Forehead lines, crow's feet, bags under the eyes and folds beside the mouth, by wear."""
    depth = float(np.clip((face.wear - 0.15) * 1.25, 0, 1))
    if not depth:
        return
    tone, width = skin_tone(face, -0.75), 0.018 + 0.02 * depth
    for line in range(round(4 * depth)):
        y, half = -0.6 - 0.11 * line, 0.42 - 0.05 * line
        bends = [(-half, y + 0.02), (-half / 2, y - 0.02), (0, y + 0.015), (half / 2, y - 0.02), (half, y + 0.02)]
        pen.curve(bends, tone, width, 0.3 + 0.5 * depth)
    for side in (-1, 1):
        for spread in (-0.09, 0.0, 0.1)[: round(3 * depth)]:
            foot = [(0.7, 0.01 + spread * 0.4), (0.79, 0.01 + spread), (0.87, spread * 1.9)]
            pen.curve(foot, tone, width, 0.2 + 0.55 * depth, side=side)
        pen.curve(
            [(0.24, 0.14), (0.42, 0.22 + 0.05 * depth), (0.62, 0.13)], tone, width * 1.1, 0.2 + 0.6 * depth, side=side
        )
        pen.soft(oval(0.43, 0.16, 0.16, 0.05), skin_tone(face, -0.6), 0.6 * depth, 0.04, side)
        pen.curve([(0.26, 0.5), (0.4, 0.66), (0.46, 0.88)], tone, width * 1.3, 0.8 * depth, side=side)
        pen.curve([(0.07, -0.36), (0.08, -0.3), (0.07, -0.2)], tone, width, 0.7 * depth, side=side)
        pen.curve([(0.36, 1.0), (0.42, 1.1), (0.42, 1.2)], tone, width, max(0.0, depth - 0.4), side=side)


def paint_eye(pen: Pen, face: Face, shot: Shot, side: int) -> None:
    """One eye with its lids and lashes."""
    half, tall, tilt = face.eye
    across = np.linspace(-1, 1, 13)
    bulge, middle = np.sqrt(np.maximum(0, 1 - np.abs(across) ** 2.2)), 0.42 + across * half
    upper = np.stack((middle, -tilt * across - tall * 1.15 * bulge + 0.01), axis=1)
    lower = np.stack((middle, -tilt * across + tall * 0.85 * bulge), axis=1)
    pen.fill(np.concatenate((upper, lower[::-1])), mix((250, 248, 244), face.skin, 0.12), side=side)
    x, y = 0.42 + side * shot.gaze * 0.12, -0.01
    for radius, tone in (
        (0.122, mix(face.iris, (10, 8, 8), 0.35)),
        (0.095, mix(face.iris, (255, 236, 200), 0.2)),
        (0.055, (14, 10, 10)),
    ):
        disc = oval(x, y, radius, radius)
        low, high = (np.interp(disc[:, 0], lid[:, 0], lid[:, 1]) for lid in (upper, lower))
        disc[:, 1] = np.clip(disc[:, 1], low, high)  # the lids cover part of it
        pen.fill(disc, tone, side=side)
    pen.fill(oval(side * x - 0.04 * shot.dark_side, y - 0.045, 0.03, 0.034), (255, 255, 255))
    pen.stroke(lower, skin_tone(face, -0.8), 0.02, 0.5, side=side)
    lash = mix((40, 26, 24), hair_tone(face, -0.5), 0.3)
    pen.stroke(upper, lash, 0.032 + 0.035 * face.makeup, 1, (0.4, 0.9), side)
    if face.makeup > 0.1:
        for back in (1, 3, 5):
            x, y = upper[-back]
            pen.stroke(
                [(x, y), (x + 0.04, y - 0.03), (x + 0.11 - back * 0.012, y - 0.09)], lash, 0.025, 1, (1, 0.1), side
            )
    crease = moved(upper[1:-1], y=-0.045 + 0.02 * face.wear)
    pen.stroke(crease, skin_tone(face, -0.8), 0.022 + 0.02 * face.wear, 0.6, side=side)


def paint_brow(pen: Pen, face: Face, side: int) -> None:
    """One eyebrow."""
    arch, y = (0.06, -0.34) if face.gender is Gender.FEMALE else (0.03, -0.3)
    y += 0.03 * face.wear
    tone = mix(hair_tone(face, -0.25), (50, 34, 28), 0.35 * (1 - face.grey))
    bends = [(0.17, y), (0.36, y - arch * 0.8), (0.54, y - arch), (0.73, y + 0.06)]
    pen.curve(bends, tone, face.brow * 1.5, 0.92, (0.75, 0.2), side)


def paint_nose(pen: Pen, face: Face, shot: Shot) -> None:
    """A nose: shadow on one side of the bridge, tip, wings and nostrils."""
    wide, tone = face.nose, skin_tone(face, -0.85)
    bridge = [(0.06, -0.2), (0.14, -0.1), (wide + 0.03, 0.5), (0.08, 0.5)]
    pen.soft(bridge, skin_tone(face, -0.6), 0.5, 0.05, shot.dark_side)
    pen.soft(oval(0.03, 0.1, 0.05, 0.3), skin_tone(face, 0.6), 0.4, 0.04, -shot.dark_side)
    pen.soft(oval(0, 0.6, wide, 0.05), skin_tone(face, -0.7), 0.5, 0.04)
    pen.soft(oval(0.03, 0.42, 0.08, 0.07), skin_tone(face, 0.7), 0.55, 0.04, -shot.dark_side)
    for side in (-1, 1):
        pen.curve([(wide * 0.75, 0.38), (wide, 0.47), (wide * 0.8, 0.56)], tone, 0.035, 0.8, side=side)
        pen.fill(oval(wide * 0.45, 0.54, 0.055, 0.028), mix(tone, (40, 16, 16), 0.4), side=side)
    pen.curve([(-wide * 0.4, 0.56), (0, 0.6), (wide * 0.4, 0.56)], tone, 0.03, 0.7)


def paint_mouth(pen: Pen, face: Face, shot: Shot) -> None:
    """Lips that smile more or less; a broad smile shows teeth."""
    y, half, full, rise = 0.88 * face.length, 0.3 + 0.05 * shot.smile, face.lips, 0.09 * shot.smile
    rose = mix(mix(face.skin, (196, 70, 76), 0.62 - 0.3 * face.wear), (186, 40, 62), 0.55 * face.makeup)
    left, right = (-half, y - rise), (half, y - rise)

    def lip(side: float, middle: float) -> np.ndarray:
        return spline([left, (-half * 0.45, y + side), (0, y + middle), (half * 0.45, y + side), right])

    line, bow = lip(0.01, rise * 0.35), lip(-full * 0.8, -full * 0.55)
    low = lip(full + rise * 0.5, full * 1.35 + rise * 0.6)
    pen.fill(np.concatenate((bow, low[::-1])), rose)
    pen.fill(np.concatenate((bow, line[::-1])), mix(rose, (90, 20, 30), 0.18))
    pen.soft(oval(0, y + full * 0.85, half * 0.35, full * 0.2), (255, 235, 230), 0.4, 0.03)
    if shot.smile > 0.55:
        teeth = line + np.stack((0 * line[:, 0], 0.09 * (1 - (line[:, 0] / half) ** 2)), axis=1)
        pen.fill(np.concatenate((line, teeth[::-1])), (250, 246, 240))
    pen.stroke(line, mix(rose, (50, 10, 16), 0.65), 0.035, 1, (0.5, 0.5))
    pen.soft(oval(0, y + full * 2.0 + 0.05, 0.16, 0.03), skin_tone(face, -0.6), 0.4, 0.03)


def paint_beard(pen: Pen, face: Face) -> None:
    """Stubble, a moustache or a full beard."""
    random, tone, y = np.random.default_rng(face.seed + 4), hair_tone(face, -0.1), 0.88 * face.length
    if face.beard == "moustache":
        right = [(0.2, y - 0.17), (0.38, y + 0.02)]
        pen.fill(spline([*mirrored(right), (0, y - 0.19), *right, (0, y - 0.07)], closed=True), tone)
    if face.beard not in ("stubble", "full"):
        return
    cheek = [(0.3, 0.66), (0.72, 0.62), (0.9, 0.2)]
    jaw = head_outline(face)
    jaw = jaw[jaw[:, 1] > 0.2] * ((1.0, 1.0) if face.beard == "stubble" else (1.03, 1.06))
    area = np.concatenate((jaw, spline([*mirrored(cheek), (0, 0.68), *cheek])))
    mouth = spline([(-0.4, y), (0, y - 0.12), (0.4, y), (0, y + 0.27)], closed=True)
    if face.beard == "stubble":
        pen.soft(area, mix(face.skin, tone, 0.6), 0.55, 0.05)
        pen.soft(mouth, face.skin, 0.6, 0.04)
        return
    pen.fill(area, tone)
    for x, top, light in random.uniform((-0.6, 0.66, -0.3), (0.6, 1.2, 0.25), (45, 3)):
        pen.stroke([(x, top), (x * 1.01, top + 0.08), (x * 0.99, top + 0.16)], hair_tone(face, light), 0.03, 0.6)
    pen.fill(mouth, face.skin)


def paint_mask(pen: Pen, face: Face, shot: Shot) -> None:
    """A mask with its loops round the ears, from `shot.top` down."""
    top, bottom = shot.top, max(1.42 * face.length + 0.1, shot.top + 0.58)
    corner, lower = top + 0.2 * (bottom - top), top + 0.68 * (bottom - top)
    wide = rim(face, corner) * 0.99
    narrow = rim(face, min(lower, 1.15)) * (0.92 if shot.kind == "ffp2" else 1.02)
    half = [(0.36, top + 0.04), (wide * 0.9, corner - 0.04), (wide, corner + 0.06), (narrow, lower)]
    half.append((0.5 * face.jaw, bottom - 0.1))
    outline = spline([(0, top), *half, (0, bottom), *mirrored(half)], closed=True)
    dark, light = mix(shot.colour, (20, 24, 40), 0.4), mix(shot.colour, (255, 255, 255), 0.4)
    loop = (30, 30, 34) if shot.kind == "black" else (240, 240, 242)
    for side in (-1, 1):
        pen.curve([(wide * 0.97, corner), (1.02, corner * 0.5 - 0.02), (1.1, -0.14)], loop, 0.035, 1, BLUNT, side)
        pen.curve([(narrow * 0.97, lower), (1.04, lower * 0.5 + 0.16), (1.12, 0.24)], loop, 0.035, 1, BLUNT, side)
    pen.soft(moved(outline, y=0.05), skin_tone(face, -0.9), 0.6, 0.06)
    pen.fill(outline, shot.colour)
    shade = [(wide * 0.55, corner), (wide, corner), (narrow, lower), (0.5, bottom)]
    pen.soft(shade, dark, 0.6, 0.1, shot.dark_side)
    pen.soft(oval(0.12, top + 0.3 * (bottom - top), 0.16, 0.18), light, 0.6, 0.1, -shot.dark_side)
    cut = Cut(outline, top, corner, lower, bottom, wide, narrow, dark, light)
    MASK_DETAILS[shot.kind](pen, cut)
    pen.stroke(np.concatenate((outline, outline[:1])), dark, 0.025, 0.6, BLUNT)


@dataclass(frozen=True)
class Cut:
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
    pen.curve(
        [(-0.28, cut.top + 0.09), (0, cut.top + 0.04), (0.28, cut.top + 0.09)], (176, 180, 186), 0.06, 0.9, (0.8, 0.8)
    )
    weld = [(0.93 * cut.wide, cut.corner + 0.08), (0.92 * cut.narrow, cut.lower - 0.02), (0.4, cut.bottom - 0.12)]
    for side in (-1, 1):
        pen.curve(weld, cut.dark, 0.025, 0.6, BLUNT, side)


MASK_DETAILS: dict[str, Callable] = {"surgical": pleats, "cloth": seam, "ffp2": beak, "black": seam}


def paint_glasses(pen: Pen, face: Face) -> None:
    """Frames, a glint on each lens, and the arms to the ears."""
    if not face.glasses:
        return
    tone, width, half, tall, power = FRAMES[face.glasses]
    disc = oval(0, 0, 1, 1)
    lens = moved(np.sign(disc) * np.abs(disc) ** power * (half, tall), 0.43, 0.03)
    for side in (-1, 1):
        pen.fill(lens, (236, 244, 250), 0.14, side)
        pen.fill([(0.3, 0.12), (0.42, -0.12), (0.5, -0.12), (0.38, 0.12)], (255, 255, 255), 0.2, side)
        pen.stroke(np.concatenate((lens, lens[:2])), tone, width, 1, BLUNT, side)
        pen.stroke([(0.76, -0.02), (0.9, -0.05), (1.04, -0.08)], tone, width, 1, BLUNT, side)
    pen.curve([(-0.12, 0.0), (0, -0.05), (0.12, 0.0)], tone, width, 1, BLUNT)


def develop(image: Image.Image, shot: Shot) -> Image.Image:
    """The light of the room: a fall-off across the picture, the exposure, the colour cast, the grain."""
    across, down = np.linspace(-1, 1, 24)[None] * shot.light, np.linspace(-1, 1, 32)[:, None]
    gain = Image.fromarray((255 * np.clip(0.94 + 0.06 * across - 0.05 * down**2, 0, 1)).astype(np.uint8))
    image = ImageChops.multiply(image, gain.resize(image.size).convert("RGB"))
    cast = shot.brightness * np.array((1 + 0.05 * shot.warmth, 1.0, 1 - 0.06 * shot.warmth))
    image = image.point(np.clip(np.arange(256)[None] * cast[:, None], 0, 255).astype(int).ravel().tolist())
    random = np.random.default_rng(shot.seed)
    grain = Image.fromarray(random.integers(0, 8, (image.height // 2, image.width // 2), dtype=np.uint8))
    return ImageChops.add(image, grain.resize(image.size, Image.Resampling.BILINEAR).convert("RGB"), offset=-4)


def portrait(face: Face, shot: Shot, width: int = 384, height: int = 512) -> Image.Image:
    """An RGB photo of `width` x `height` pixels: the person `face` as photographed in `shot`."""
    size = (width * OVERSAMPLING, height * OVERSAMPLING)
    image = paint_scene(face, shot, size)
    unit = 0.215 * min(size[0], 0.75 * size[1]) * shot.scale
    origin = (size[0] * (0.5 + shot.shift[0]), size[1] * 0.46 + size[0] * shot.shift[1])
    head = Pen(image, origin, unit, shot)
    paint_back_hair(head, face)
    paint_body(Pen(image, origin, unit, shot, rigid=True), face)
    paint_head(head, face, shot)
    paint_wrinkles(head, face)
    paint_nose(head, face, shot)
    paint_beard(head, face)
    paint_mouth(head, face, shot)
    for side in (-1, 1):
        paint_eye(head, face, shot, side)
        paint_brow(head, face, side)
    if shot.mask is not Mask.NOT_WORN:
        paint_mask(head, face, shot)
    paint_glasses(head, face)
    paint_front_hair(head, face)
    return develop(image.reduce(OVERSAMPLING), shot)

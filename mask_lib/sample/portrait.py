"""Stylised portraits: one invented person before a blurred background, drawn from a few numbers."""

from pathlib import Path

import numpy as np
from PIL import Image, ImageChops, ImageDraw, ImageFilter

from mask_lib.sample.brush import BOTH, SOFT_STEP, Pen, mirrored, mix, moved, oval, spline
from mask_lib.sample.clothes import paint_body, paint_glasses, paint_helmet, paint_mask, paint_vest
from mask_lib.sample.hair import paint_back_hair, paint_front_hair
from mask_lib.sample.people import GOLD, Face, Gender, Mask, Shot, hair_tone, head_outline, skin_tone

OVERSAMPLING = 2  # edges are drawn at twice the size and averaged down


def paint_scene(face: Face, shot: Shot, size: tuple[int, int]) -> Image.Image:
    """A blurred background: it stays with the person, seen from slightly elsewhere."""
    random = np.random.default_rng(face.seed)
    width, height = size[0] // SOFT_STEP, size[1] // SOFT_STEP
    across, down = np.linspace(-0.12, 0.12, width)[None], np.linspace(0.25, -0.3, height)[:, None]
    light = 1 + down + across * random.choice((-1, 1))
    small = Image.fromarray(np.clip(np.array(face.wall) * light[..., None], 0, 255).astype(np.uint8))
    slide = np.array(shot.shift) * width * 1.2
    paint_backdrop(face.scene, ImageDraw.Draw(small, "RGBA"), random, np.array((width, height)), slide)
    small = small.filter(ImageFilter.GaussianBlur(width / 60))
    # Enlarged smoothly to half the size, then by doubling: that is quicker, and halved again in the end.
    half = small.resize((size[0] // 2, size[1] // 2), Image.Resampling.BILINEAR)
    return half.resize(size, Image.Resampling.NEAREST)


def paint_backdrop(
    scene: str, draw: ImageDraw.ImageDraw, random: np.random.Generator, size: np.ndarray, slide: np.ndarray
) -> None:
    """What stands far behind, in a picture of `size` (2,) pixels; moved by `slide` (2,)."""
    match scene:
        case "wall":  # with a picture or two
            for _ in range(random.integers(1, 3)):
                corner = random.uniform((0, 0.02), (0.8, 0.3)) * size + slide
                end = corner + random.uniform(0.15, 0.35, 2) * size[0]
                draw.rectangle((*corner, *end), fill=(*random.integers(60, 250, 3).tolist(), 200))
        case "bokeh":  # discs of light
            for _ in range(16):
                colour = (*random.integers((200, 150, 90), 256).tolist(), int(random.integers(60, 150)))
                draw.circle(random.uniform(0, size) + slide, random.uniform(0.04, 0.13) * size[0], fill=colour)
        case "window":  # bright, of four panes, on one side
            corner = (random.choice((0.02, 0.52)), 0.06) * size + slide
            for pane in ((0, 0), (0.24, 0), (0, 0.24), (0.24, 0.24)):
                start = corner + pane * size
                draw.rectangle((*start, *(start + 0.21 * size)), fill=(246, 248, 250, 215))
        case "shelves":  # with things on them
            for shelf in np.arange(0.12, 1.0, 0.22) * size[1] + slide[1]:
                x = slide[0]
                while x < size[0]:
                    thing = random.uniform((0.04, 0.06), (0.12, 0.17)) * size
                    colour = (*random.integers(50, 230, 3).tolist(), 170)
                    draw.rectangle((x, shelf - thing[1], x + thing[0], shelf), fill=colour)
                    x += thing[0] + random.uniform(0, 0.1) * size[0]
                draw.rectangle((0, shelf, size[0], shelf + 0.015 * size[1]), fill=(70, 50, 40, 200))
        case "garden":  # sky above hedges
            horizon = random.uniform(0.25, 0.6) * size[1]
            draw.rectangle((0, 0, size[0], horizon + slide[1]), fill=(176, 210, 236, 210))
            for _ in range(26):
                colour = (*random.integers((50, 100, 40), (130, 180, 90)).tolist(), 190)
                middle, radius = random.uniform((0, horizon), size) + slide, random.uniform(0.08, 0.2) * size[0]
                draw.circle(middle, radius, fill=colour)


def paint_head(pen: Pen, face: Face, shot: Shot) -> None:
    """Ears, the face's shape, its shadows and its blush."""
    ear = spline([(0.9, -0.2), (1.08, -0.26), (1.16, 0.0), (1.08, 0.3), (0.94, 0.42)], closed=True)
    pen.fill(ear, skin_tone(face, -0.18), side=BOTH)
    pen.curve([(1.0, -0.14), (1.09, -0.06), (1.05, 0.16)], skin_tone(face, -0.6), 0.04, 0.7, side=BOTH)
    if face.earrings:
        pen.fill(oval(1.05, 0.46, 0.06, 0.08), GOLD, side=BOTH)
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
    """The lines of age, by wear: across the forehead, and on both sides of the face."""
    depth = float(np.clip((face.wear - 0.15) * 1.25, 0, 1))
    if not depth:
        return
    tone, width = skin_tone(face, -0.75), 0.018 + 0.02 * depth
    for line in range(round(4 * depth)):
        y, half = -0.6 - 0.11 * line, 0.42 - 0.05 * line
        bends = [(-half, y + 0.02), (-half / 2, y - 0.02), (0, y + 0.015), (half / 2, y - 0.02), (half, y + 0.02)]
        pen.curve(bends, tone, width, 0.3 + 0.5 * depth)
    for side in (-1, 1):  # crow's feet, the bag under the eye, the folds beside nose and mouth
        for spread in (-0.09, 0.0, 0.1)[: round(3 * depth)]:
            foot = [(0.7, 0.01 + spread * 0.4), (0.79, 0.01 + spread), (0.87, spread * 1.9)]
            pen.curve(foot, tone, width, 0.2 + 0.55 * depth, side=side)
        bag = [(0.24, 0.14), (0.42, 0.22 + 0.05 * depth), (0.62, 0.13)]
        pen.curve(bag, tone, width * 1.1, 0.2 + 0.6 * depth, side=side)
        pen.soft(oval(0.43, 0.16, 0.16, 0.05), skin_tone(face, -0.6), 0.6 * depth, 0.04, side)
        pen.curve([(0.26, 0.5), (0.4, 0.66), (0.46, 0.88)], tone, width * 1.3, 0.8 * depth, side=side)
        pen.curve([(0.07, -0.36), (0.08, -0.3), (0.07, -0.2)], tone, width, 0.7 * depth, side=side)
        pen.curve([(0.36, 1.0), (0.42, 1.1), (0.42, 1.2)], tone, width, max(0.0, depth - 0.4), side=side)


def lids(face: Face) -> tuple[np.ndarray, np.ndarray]:
    """Two (13, 2) curves, the upper and the lower lid of the right eye."""
    half, tall, tilt = face.eye
    across = np.linspace(-1, 1, 13)
    bulge, middle = np.sqrt(np.maximum(0, 1 - np.abs(across) ** 2.2)), 0.42 + across * half
    upper = np.stack((middle, -tilt * across - tall * 1.15 * bulge + 0.01), axis=1)
    lower = np.stack((middle, -tilt * across + tall * 0.85 * bulge), axis=1)
    return upper, lower


def paint_eye(pen: Pen, face: Face, shot: Shot, side: int) -> None:
    """One eye with its lids, and with lashes where it has make-up."""
    upper, lower = lids(face)
    pen.fill(np.concatenate((upper, lower[::-1])), mix((250, 248, 244), face.skin, 0.12), side=side)
    paint_iris(pen, face, shot, side)
    pen.stroke(lower, skin_tone(face, -0.8), 0.02, 0.5, side=side)
    lash = mix((40, 26, 24), hair_tone(face, -0.5), 0.3)
    pen.stroke(upper, lash, 0.032 + 0.035 * face.makeup, 1, (0.4, 0.9), side)
    for back in (1, 3, 5) if face.makeup > 0.1 else ():  # three lashes at the outer end
        x, y = upper[-back]
        pen.stroke([(x, y), (x + 0.04, y - 0.03), (x + 0.11 - back * 0.012, y - 0.09)], lash, 0.025, 1, (1, 0.1), side)
    crease = moved(upper[1:-1], y=-0.045 + 0.02 * face.wear)
    pen.stroke(crease, skin_tone(face, -0.8), 0.022 + 0.02 * face.wear, 0.6, side=side)


def paint_iris(pen: Pen, face: Face, shot: Shot, side: int) -> None:
    """Rim, iris and pupil, as far as the lids leave them free, and a glint of light."""
    x, y = 0.42 + side * shot.gaze * 0.12, -0.01
    for radius, tone in (
        (0.122, mix(face.iris, (10, 8, 8), 0.35)),
        (0.095, mix(face.iris, (255, 236, 200), 0.2)),
        (0.055, (14, 10, 10)),
    ):
        disc = oval(x, y, radius, radius)
        disc[:, 1] = np.clip(disc[:, 1], *(np.interp(disc[:, 0], lid[:, 0], lid[:, 1]) for lid in lids(face)))
        pen.fill(disc, tone, side=side)
    pen.fill(oval(side * x - 0.04 * shot.dark_side, y - 0.045, 0.03, 0.034), (255, 255, 255))


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
    pen.curve([(wide * 0.75, 0.38), (wide, 0.47), (wide * 0.8, 0.56)], tone, 0.035, 0.8, side=BOTH)
    pen.fill(oval(wide * 0.45, 0.54, 0.055, 0.028), mix(tone, (40, 16, 16), 0.4), side=BOTH)
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
    head = Pen(image, origin, unit, shot.angle, (0.1 * shot.turn, 0.07 * shot.nod))
    paint_back_hair(head, face)
    body = Pen(image, origin, unit)  # which stays upright while the head turns
    paint_body(body, face)
    if shot.vest:
        paint_vest(body, face, shot.vest)
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
    if shot.helmet:
        paint_helmet(head, shot.helmet)
    return develop(image.reduce(OVERSAMPLING), shot)


def save_photo(picture: Image.Image, path: Path, quality: int) -> None:
    """Write a PNG or a JPEG, as the name's ending says."""
    path.parent.mkdir(parents=True, exist_ok=True)
    picture.save(path, quality=quality, compress_level=1)  # each format takes its own of the two

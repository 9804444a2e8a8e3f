"""Blurred backgrounds: what is seen behind a person, from a slightly different place in each photo."""

from collections.abc import Callable

import numpy as np
from PIL import Image, ImageDraw, ImageFilter

from mask_lib.sample.brush import SOFT_STEP
from mask_lib.sample.people import Face, Shot


def paint_scene(face: Face, shot: Shot, size: tuple[int, int]) -> Image.Image:
    """A blurred background: it stays with the person, seen from slightly elsewhere."""
    random = np.random.default_rng(face.seed)
    width, height = size[0] // SOFT_STEP, size[1] // SOFT_STEP
    across, down = np.linspace(-0.12, 0.12, width)[None], np.linspace(0.25, -0.3, height)[:, None]
    light = 1 + down + across * random.choice((-1, 1))
    small = Image.fromarray(np.clip(np.array(face.wall) * light[..., None], 0, 255).astype(np.uint8))
    scale = np.array((width, height))
    PAINTERS[face.scene](ImageDraw.Draw(small, "RGBA"), random, scale, np.array(shot.shift) * width * 1.2)
    small = small.filter(ImageFilter.GaussianBlur(width / 60))
    # Enlarged smoothly to half the size, then by doubling: that is quicker, and halved again in the end.
    half = small.resize((size[0] // 2, size[1] // 2), Image.Resampling.BILINEAR)
    return half.resize(size, Image.Resampling.NEAREST)


def bokeh(draw: ImageDraw.ImageDraw, random: np.random.Generator, size: np.ndarray, slide: np.ndarray) -> None:
    """Discs of light far behind."""
    for _ in range(16):
        colour = (*random.integers((200, 150, 90), 256).tolist(), int(random.integers(60, 150)))
        draw.circle(random.uniform(0, size) + slide, random.uniform(0.04, 0.13) * size[0], fill=colour)


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
            colour = (*random.integers(50, 230, 3).tolist(), 170)
            draw.rectangle((x, shelf - thing[1], x + thing[0], shelf), fill=colour)
            x += thing[0] + random.uniform(0, 0.1) * size[0]
        draw.rectangle((0, shelf, size[0], shelf + 0.015 * size[1]), fill=(70, 50, 40, 200))


def garden(draw: ImageDraw.ImageDraw, random: np.random.Generator, size: np.ndarray, slide: np.ndarray) -> None:
    """Sky above hedges."""
    horizon = random.uniform(0.25, 0.6) * size[1]
    draw.rectangle((0, 0, size[0], horizon + slide[1]), fill=(176, 210, 236, 210))
    for _ in range(26):
        colour = (*random.integers((50, 100, 40), (130, 180, 90)).tolist(), 190)
        draw.circle(random.uniform((0, horizon), size) + slide, random.uniform(0.08, 0.2) * size[0], fill=colour)


def wall(draw: ImageDraw.ImageDraw, random: np.random.Generator, size: np.ndarray, slide: np.ndarray) -> None:
    """A plain wall with a picture or two."""
    for _ in range(random.integers(1, 3)):
        corner = random.uniform((0, 0.02), (0.8, 0.3)) * size + slide
        end = corner + random.uniform(0.15, 0.35, 2) * size[0]
        draw.rectangle((*corner, *end), fill=(*random.integers(60, 250, 3).tolist(), 200))


PAINTERS: dict[str, Callable] = {"wall": wall, "bokeh": bokeh, "window": window, "shelves": shelves, "garden": garden}

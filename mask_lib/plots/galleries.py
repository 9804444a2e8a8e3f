"""Photos in grids with a few words to each; words too wide for their photo lose their middle.

A grid is a `Figure` that pyplot no longer holds: a notebook shows it once, as the value of its cell.
"""

from collections.abc import Mapping, Sequence

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
from matplotlib import colormaps
from matplotlib.figure import Figure
from matplotlib.font_manager import FontProperties
from matplotlib.textpath import text_to_path

from mask_lib.base import labels
from mask_lib.base.labels import describe
from mask_lib.base.scores import from_probabilities
from mask_lib.plots.style import GREY, INK, counted, plain, released

Texts = Sequence[str] | None
WIDTH = 12  # inches, of a whole grid
TITLE_SIZE, NOTE_SIZE = 7.5, 6.5  # points
LINE_HEIGHT = 1.3  # of a line of text, over the size of its letters
GAP, PAD, HEADING = 12, 3, 22  # points: between two photos with their words, from a photo to its words, for a heading
BENEATH = {"xycoords": "axes fraction", "textcoords": "offset points", "ha": "center", "va": "top"}
NARROWEST = 0.25  # width of a narrow letter, over its size


def photo_grid(
    images: Sequence[np.ndarray], titles: Texts = None, columns: int = 7, title: str | None = None, notes: Texts = None
) -> Figure:
    """A grid of (H, W), (H, W, 1), (H, W, 3) or (H, W, 4) uint8 photos, titles above, smaller notes in grey below.

    Of four channels the first three are shown. Raises ValueError for another number of titles or notes than of photos.
    """
    room = 72 * WIDTH / columns - GAP  # points
    titles, above = _fitted_all("titles", titles, len(images), TITLE_SIZE, room)
    notes, below = _fitted_all("notes", notes, len(images), NOTE_SIZE, room)
    tall = room * np.shape(images[0])[0] / np.shape(images[0])[1] if len(images) else room / 4
    heading = HEADING if title else 0
    # Worked out, not left to a layout engine, which narrows photos with wide words.
    rows, between = max(1, -(-len(images) // columns)), above + below + GAP
    width, height = 72 * WIDTH, heading + rows * (tall + between)  # points
    figure, axes = plt.subplots(rows, columns, figsize=(width / 72, height / 72), squeeze=False)
    sides = {"left": GAP / 2 / width, "right": 1 - GAP / 2 / width}
    ends = {"bottom": (below + GAP / 2) / height, "top": 1 - (heading + above + GAP / 2) / height}
    figure.subplots_adjust(**sides, **ends, wspace=GAP / room, hspace=between / tall)
    for ax in axes.flat:
        ax.set_axis_off()
    for ax, image, over, under in zip(axes.flat, images, titles, notes, strict=False):
        # Of four channels matplotlib would take the last for transparency.
        ax.imshow(image if np.ndim(image) < 3 else image[..., :3], cmap="gray", vmin=0, vmax=255)
        ax.set_title(over, fontsize=TITLE_SIZE, color=INK, pad=PAD)
        ax.annotate(under, (0.5, 0), (0, -PAD), fontsize=NOTE_SIZE, color=GREY, **BENEATH)
    if title:
        corner = {"x": GAP / 2 / width, "y": 1 - PAD / height, "ha": "left", "va": "top"}
        figure.suptitle(plain(title), fontsize=12, color=INK, **corner)
    return released(figure)


def mistakes(images: Sequence[np.ndarray], table: pd.DataFrame, of: int, reason: str = "", columns: int = 7) -> Figure:
    """The rows of `table`: the true class, → what was predicted otherwise (confidence), and the file below.

    `table`: mistakes alone, as `scores.worst_mistakes` gives them; `images`: their photos; `of`: the number of all
    mistakes, for the heading, which a `reason` why nothing can be shown replaces.
    """
    truth, predicted = from_probabilities(table)
    confidence = table[labels.probability_columns()].max(axis=1)
    titles = list(map(_difference, truth, predicted, confidence))
    heading = f"The {len(table):,} most confident of {counted(of, 'mistake')}"
    if len(table) == of:
        heading = f"{counted(of, 'mistake')}, the most confident first" if of else "No mistakes"
    return photo_grid(images, titles, columns, reason or heading, _file_names(table["path"]))


def suspects(images: Sequence[np.ndarray], table: pd.DataFrame) -> Figure:
    """The photos of the rows of a table, as `suspects.rank` gives it: the class, → what is suggested (score)."""
    titles = list(map(_difference, table["current"], table["suggested"], table["score"]))
    heading = f"The {counted(len(table), 'most suspicious label')}" if len(table) else "No label is left to look at"
    return photo_grid(images, titles, title=heading, notes=_file_names(table["path"]))


def disagreements(images: Sequence[np.ndarray], table: pd.DataFrame, of: int, reason: str = "") -> Figure:
    """As `mistakes`, for rows of `comparison.disagreements` of the same two runs: the class, → what one gets wrong."""
    titles = list(map(_difference, *(table[name] for name in ("label", "wrong", "wrong_sure", "right_sure"))))
    heading = "No photo that only one of the two gets right"
    if len(table):
        heading = f"{table['right_run'].iloc[0]} is right, {table['wrong_run'].iloc[0]} is wrong: "
        heading += f"{len(table):,} of {counted(of, 'photo')}, the surest first"
    return photo_grid(images, titles, title=reason or heading, notes=_file_names(table["path"]))


def overlaid(images: np.ndarray, maps: np.ndarray) -> list[np.ndarray]:
    """(N, H, W, C) uint8 photos under (N, H, W) maps in [0, 1], each (H, W, 3) uint8: grey, warm where it is high."""
    grey = images[..., :3].mean(axis=3, keepdims=True) / 255
    colour = colormaps["inferno"](maps)[..., :3]
    share = 0.65 * maps[..., None]  # where the network looks at nothing, the photo stays as it is
    return list(np.rint(255 * ((1 - share) * grey + share * colour)).astype(np.uint8))


def beside(rows: Mapping[str, Sequence[np.ndarray]], title: str | None = None) -> Figure:
    """A row for each version of the same photos, with its name."""
    columns = len(next(iter(rows.values())))
    titles = [name if not place else "" for name in rows for place in range(columns)]
    return photo_grid([image for images in rows.values() for image in images], titles, columns, title)


def prediction_titles(table: pd.DataFrame) -> list[str]:
    """For each row of a table with probabilities: the likeliest class in words and its probability."""
    return [f"{describe(row.argmax())}\n{row.max():.0%}" for row in table[labels.probability_columns()].to_numpy()]


def _difference(truth: int, predicted: int, sure: float, truth_sure: float | None = None) -> str:
    """A class in words, and of a predicted one those that are not true as well: `→ female 60+ (85%)`."""
    parts = zip(labels.attributes(), labels.decode(truth), labels.decode(predicted), strict=True)
    differing = " ".join(one.words[found] for one, true, found in parts if found != true)
    own = describe(truth) if truth_sure is None else f"{describe(truth)} ({truth_sure:.0%})"
    return f"{own}\n→ {differing or 'the same'} ({sure:.0%})"


def _file_names(paths: Sequence[str]) -> list[str]:
    """Folder and file of each path, a line each; a line break in a name stays visible."""
    lines = (plain(path).replace("\n", "\N{REPLACEMENT CHARACTER}") for path in paths)
    return ["\n".join(line.split("/")[-2:]) for line in lines]


def _fitted_all(what: str, texts: Texts, photos: int, size: float, room: float) -> tuple[list[str], float]:
    """A text for each photo in lines of at most `room` points, letters of `size`, and the points the tallest takes."""
    texts = [""] * photos if texts is None else texts
    if len(texts) != photos:
        raise ValueError(f"{photos} photos but {len(texts)} {what}")
    lines = max((text.count("\n") + 1 for text in texts if text), default=0)
    fitted = ["\n".join(_fitted(line, size, room) for line in plain(text).split("\n")) for text in texts]
    return fitted, lines * size * LINE_HEIGHT + (PAD if lines else 0)


def _fitted(line: str, size: float, room: float) -> str:
    """The line, or as many characters of its two ends as fit."""
    font = FontProperties(size=size)
    for kept in range(max(min(len(line), int(room / (NARROWEST * size))), 1), 0, -1):
        shown = line if len(line) <= kept else f"{line[: kept - kept // 2]}…{line[len(line) - kept // 2 :]}"
        if text_to_path.get_text_width_height_descent(shown, font, ismath=False)[0] <= room:
            break
    return shown

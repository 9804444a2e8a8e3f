"""A page on which a photo is chosen, and what trained results say of it (`ensemble.predict.Answer`) as it is shown."""

import io
import tempfile
import textwrap
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import ipywidgets
import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
from IPython.display import Image
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from mask_lib.base import files, labels
from mask_lib.plots import galleries, style
from mask_lib.plots.style import BLUE, COLOURS, FAINT, INK

Ask = Callable[[Path], Any]  # from a photo's file to an `Answer`; its ValueError and OSError say why there is none
CHARTS = 3  # side by side
MOST_VALUES = 20  # of an attribute in a chart: the likeliest of more


class PhotoPage(ipywidgets.VBox):
    """A button to choose a photo by, a box for its path, and below what is `tried` of it, at first of an example."""

    def __init__(self, ask: Ask, example: Path | None = None) -> None:
        self.ask, self.turn = ask, threading.Lock()  # the kernel may run handlers on several threads
        self.upload = ipywidgets.FileUpload(
            accept="image/*", description="Choose a photo", button_style="primary", layout={"width": "auto"}
        )
        self.path = ipywidgets.Text(
            placeholder="or type the path of one, then Enter", continuous_update=False, layout={"width": "28em"}
        )
        self.status, self.answer = ipywidgets.Label(), ipywidgets.Output()
        self.upload.observe(self.on_upload, "value")
        self.path.observe(self.on_path, "value")
        super().__init__([ipywidgets.HBox([self.upload, self.path]), self.status, self.answer])
        if example:
            self.show(example, f"{example.name}, for example")

    def on_upload(self, change: dict[str, Any]) -> None:
        """Answer an uploaded file, which is kept for as long as that takes."""
        for one in change["new"]:
            self.path.value = ""
            with tempfile.TemporaryDirectory() as folder:
                kept = Path(folder) / "photo"
                kept.write_bytes(one["content"])
                self.show(kept, one["name"])
            self.upload.value = ()  # or the same file could not be chosen again

    def on_path(self, change: dict[str, Any]) -> None:
        """Answer the file of a path, which counts from the project."""
        if change["new"].strip():
            self.show(change["new"].strip(), change["new"].strip())

    def show(self, path: files.AnyPath, name: str) -> None:
        """Replace what is shown by what is `tried` of a photo."""
        with self.turn:
            self.status.value = f"Looking at {style.plain(name)} …"
            for number, one in enumerate(tried(self.ask, path, name)):
                if not number:
                    self.answer.outputs = ()
                self.answer.append_display_data(one)
            self.status.value = ""


def tried(ask: Ask, path: files.AnyPath, name: str) -> Iterator[Any]:
    """What to display of a photo: the `answer`, or a sentence that says why there is none, whatever goes wrong."""
    shown = " ".join(name.split())  # of one line
    try:
        yield from answer(ask(files.project_path(path)), shown)
    except (ValueError, OSError) as error:
        yield style.markdown(f"**{shown}** has no answer: {error}.")
    except Exception as error:  # in a handler it would end in a log that nobody reads
        yield style.markdown(f"**{shown}** has no answer, for something went wrong: {type(error).__name__}: {error}")


def answer(found: Any, name: str) -> Iterator[Any]:
    """What to display of an `Answer`, each as soon as it is found: the class in words, charts, who says what, maps,
    near photos, notes.
    """
    probabilities = found.said[labels.probability_columns()].to_numpy()  # (1 + M, C)
    words, sure = labels.describe(probabilities[0].argmax()), probabilities[0].max()
    yield style.markdown(f"## {words}, {sure:.0%}\n\n{name}")
    yield picture(charts(found), "the photo, and a bar chart of each attribute")
    if len(found.said) > 1:
        yield style.markdown("### What each member says")
        yield member_table(found.said)
    explained, notes = found.explained
    if explained:
        titles, images, maps = zip(*explained, strict=True)
        over = [galleries.overlaid(image[None], one[None])[0] for image, one in zip(images, maps, strict=True)]
        title = "Where each network looks: warm places speak for what is written above"
        yield picture(galleries.photo_grid(over, titles, 7, title), title)
    if len(found.nearest):
        titles = [labels.describe(int(label)) for label in found.nearest["label"]]
        under = [f"{row.person}\n{Path(row.path).name}\n{row.likeness:.0%} alike" for row in found.nearest.itertuples()]
        title = "The nearest training photos, by a frozen network's features, and their labels"
        yield picture(galleries.photo_grid(found.thumbnails(), titles, 6, title, under), title)
    if notes:
        yield style.markdown("\n\n".join(notes))


def picture(figure: Figure, words: str) -> Image:
    """A figure for a page, in half of the time that a notebook takes for one; words: for who cannot see it."""
    content = io.BytesIO()
    figure.savefig(content, format="png", dpi=100, pil_kwargs={"compress_level": 1})
    return Image(content.getvalue(), alt=words)


def charts(found: Any) -> Figure:
    """The photo, and beside it the probabilities of each attribute's values, of members as dots."""
    probabilities = found.said[labels.probability_columns()].to_numpy()  # (1 + M, C)
    parts, longest = labels.marginals(probabilities), min(max(labels.shape()), MOST_VALUES)
    rows = -(-len(parts) // CHARTS)
    columns = min(len(parts), CHARTS)
    figure = plt.figure(figsize=(galleries.WIDTH, rows * max(3.2, 0.6 + 0.3 * longest)), layout="constrained")
    grid = figure.add_gridspec(rows, columns + 1, width_ratios=[0.8, *[1] * columns])
    photo = figure.add_subplot(grid[:, 0])
    photo.imshow(found.photo)
    photo.set_axis_off()
    for number, (name, shares) in enumerate(parts.items()):
        ax = figure.add_subplot(grid[number // CHARTS, 1 + number % CHARTS])
        dots = attribute_chart(ax, name, shares)
    if len(found.said) > 1:
        figure.legend(dots, found.said["member"][1:], loc="outside lower right", ncols=6, frameon=False)
    return style.released(figure)


def attribute_chart(ax: Axes, name: str, shares: np.ndarray) -> list[Any]:
    """Bars of an attribute's values, the first of (1 + M, K) probabilities, and dots of the others, returned."""
    kept = np.sort(np.argsort(-shares[0], kind="stable")[:MOST_VALUES])
    own, places = shares[0, kept], np.arange(len(kept))
    style.despine(ax).barh(places, own, color=[BLUE if share == own.max() else FAINT for share in own])
    for place, share in zip(places, own, strict=True):
        ax.annotate(f"{share:.0%}", (1, place), (4, 0), textcoords="offset points", va="center", fontsize=9, color=INK)
    dots = [
        ax.scatter(one[kept], places + 0.28, s=22, color=COLOURS[1 + number % (len(COLOURS) - 1)], zorder=3)
        for number, one in enumerate(shares[1:] if len(shares) > 1 else [])
    ]
    words = [textwrap.fill(labels.attribute(name).words[value], 18) for value in kept]
    ax.set_yticks(places, words)
    ax.set(xlim=(0, 1), ylim=(len(kept) - 0.5, -0.5), xticks=(0, 0.5, 1), xticklabels=("0%", "50%", "100%"))
    style.grid(ax, "x")
    style.set_title(ax, name)
    return dots


def member_table(said: pd.DataFrame) -> pd.DataFrame:
    """A row for each member: weight, each attribute's likeliest value with its probability, and the class."""
    probabilities = said[labels.probability_columns()].to_numpy()
    table = pd.DataFrame({"weight": [f"{weight:.0%}" for weight in said["weight"]]}, index=list(said["member"]))
    for name, shares in labels.marginals(probabilities).items():
        best = shares.argmax(axis=1)
        words = labels.attribute(name).words
        table[name] = [f"{words[value]} ({share:.0%})" for value, share in zip(best, shares.max(axis=1), strict=True)]
    return table.assign(**{"class": [labels.describe(label) for label in probabilities.argmax(axis=1)]})

"""A task as its YAML file tells it: what a label says of a photo, and where photos and labels lie.

attributes:
  - {name: helmet, values: ["yes", "no"], keys: hk}
  - {name: age, edges: [30, 60], limits: [0, 120], of: person}  # a number, one for all photos of a person
photos: {layout: csv}
"""

import itertools
import os
import re
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path, PurePosixPath
from typing import Any, Literal, Self

from pydantic import model_validator

from mask_lib.base import files, plain_yaml
from mask_lib.base.checks import Settings, did_you_mean, require

CHECKOUT = Path(__file__).parents[2]  # whose tasks/ holds what a project of its own lacks
FREE_KEY = re.compile(r"(?![0-9rz?])[!-~]")  # digits type a class, the page of relabeling acts on the others itself
NAME = re.compile(r"(?!p\d+$)[a-z][a-z0-9_]{0,30}")
WORD = re.compile(r"[^\W_](?:[\w .+<>-]{0,38}[\w+>])?")
TAKEN = {"path", "person", "group", "label", "split", "class", "weight", "look", "fold", "swap", "macro_f1", "accuracy"}
PLACE = re.compile(r"(?!\.\.?(/|$))[^/\\:~]+(/(?!\.\.?(/|$))[^/\\:~]+)*")


@dataclass(frozen=True)
class Attribute:
    """One thing that a label says of a photo. Its values count from 0 in the order of `words`."""

    name: str  # column of the photo table, which holds a table word (`not_worn`) or, with edges, a whole number
    words: tuple[str, ...]  # for people: in titles, on axes, beside keys
    keys: str  # when relabeling, one for each value, or none
    of_person: bool = False  # the same on all photos of a person
    edges: tuple[int, ...] = ()  # of a number: an edge itself belongs to the values above it
    limits: tuple[int, int] = (0, 0)  # of a number: least and most

    @property
    def size(self) -> int:
        """How many values there are."""
        return len(self.words)

    @property
    def table_words(self) -> tuple[str, ...]:
        """The values as a table writes them: `not worn` as `not_worn`."""
        return tuple(word.lower().replace(" ", "_") for word in self.words)

    def value_of(self, written: Any) -> int:
        """The value 0 … size-1 of what a table holds. Raises ValueError that lists the words, or gives the limits."""
        if self.edges:
            low, high = self.limits
            require(self.name, written, low <= written <= high, f"from {low} to {high}")
            return sum(written >= edge for edge in self.edges)
        if written not in self.table_words:
            wanted = f"write one of {', '.join(self.table_words)}{did_you_mean(written, self.table_words)}"
            raise ValueError(f"{written!r} is no {self.name}: {wanted}")
        return self.table_words.index(written)


class _Attribute(Settings):
    """An attribute as the file writes it."""

    name: str = ""
    values: tuple[str, ...] = ()
    edges: tuple[int, ...] = ()
    limits: tuple[int, int] = (0, 0)
    of: Literal["photo", "person"] = "photo"
    keys: str = ""

    @model_validator(mode="after")
    def _fits_together(self) -> Self:
        words, (low, high) = self.attribute().table_words, self.limits
        free = NAME.fullmatch(self.name) and self.name not in TAKEN
        self.require("name", free, f"a word of a-z, 0-9 and _, but none of {', '.join(sorted(TAKEN))}")
        self.require("values", bool(self.values) != bool(self.edges), "words, or left out where there are edges")
        sound = len(set(words)) == len(words) > 1 and all(map(WORD.fullmatch, self.values))
        self.require("values", sound, "two words or more of letters, digits, blanks and .+-, no two of them alike")
        rising = all(first < second for first, second in itertools.pairwise([low, *self.edges, high + 1]))
        self.require("edges", rising or not self.edges, f"rising, and within limits = [{low}, {high}], least and most")
        fits = len(self.keys) in (0, len(words)) and all(map(FREE_KEY.fullmatch, self.keys))
        self.require("keys", fits, f"{len(words)} letters other than r and z, one for each value, or none")
        return self

    def attribute(self) -> Attribute:
        """The attribute it tells of; edges cut a number into groups such as `<30`, `30-59`, `60+`."""
        edges = self.edges or (0,)
        groups = (f"<{edges[0]}", *(f"{low}-{high - 1}" for low, high in itertools.pairwise(edges)), f"{edges[-1]}+")
        return Attribute(self.name, self.values or groups, self.keys, self.of == "person", self.edges, self.limits)


class Photos(Settings):
    """Where photos and labels lie: paths below the data folder.

    competition: as `data.layout` reads it. csv: `labels` has a row for each photo with its `path` below `train`, a
    column for each attribute, and perhaps `group`. folders: photos below `train` lie in folders named by class, several
    attributes' words joined by `separator`. Without the file `info` every photo below `eval` is to be answered.
    """

    layout: Literal["competition", "csv", "folders"] = "competition"
    train: str = "train/images"
    eval: str = "eval/images"
    labels: str = "train/labels.csv"
    info: str = "eval/info.csv"  # column ImageID, a path below `eval`
    separator: str = "_"

    @model_validator(mode="after")
    def _fits_together(self) -> Self:
        for name in ("train", "eval", "labels", "info"):
            self.require(name, PLACE.fullmatch(getattr(self, name)), "a path below the data folder, such as new/photos")
        self.require("separator", re.fullmatch("[_.,+ -]{1,3}", self.separator), "one to three of _ . , + - and blank")
        one, other = PurePosixPath(self.train), PurePosixPath(self.eval)
        apart = not one.is_relative_to(other) and not other.is_relative_to(one)
        self.require("eval", apart, f"another folder than train ({self.train}), none inside the other")
        plain = self.layout != "competition" or not self.model_fields_set - {"layout"}
        self.require("layout", plain, "csv or folders where places are given: the competition has its own")
        return self

    def heads(self, parts: Sequence[str]) -> list[str]:
        """The folders that a data folder with these parts, of train and eval, is known by."""
        return list(dict.fromkeys(getattr(self, part).split("/")[0] for part in parts))

    @property
    def lists(self) -> list[str]:
        """The tables that say what photos there are."""
        return [*{"competition": ["train/train.csv"], "csv": [self.labels]}.get(self.layout, []), self.info]

    def required(self, parts: Sequence[str] = ("train", "eval")) -> list[str]:
        """What a data folder with these parts must hold."""
        info = self.lists[-1:] if self.layout == "competition" else []
        held = {"train": [*self.lists[:-1], self.train], "eval": [*info, self.eval]}
        return [path for part in parts for path in held[part]]


@dataclass(frozen=True)
class Task:
    """What a label says, and where photos lie. Raises ValueError for attributes that do not go together."""

    attributes: tuple[Attribute, ...]
    photos: Photos = field(default_factory=Photos)

    def __post_init__(self) -> None:
        names, keys = [one.name for one in self.attributes], "".join(one.keys for one in self.attributes)
        if not names or len(set(names)) < len(names) or len(set(keys)) < len(keys):
            raise ValueError(f"attributes need names and keys of their own: {', '.join(names)}; {keys}")
        if self.photos.layout == "folders":
            numbers = [one.name for one in self.attributes if one.edges]
            if numbers or len(set(self.folder_names())) < len(self.folder_names()):
                why = f"{numbers[0]} is a number: give words" if numbers else "two classes have one: change separator"
                raise ValueError(f"a folder's name cannot tell every class: {why}, or take the layout csv")

    def folder_names(self) -> list[str]:
        """The folder of each class, in the layout `folders`."""
        words = itertools.product(*(one.table_words for one in self.attributes))
        return [self.photos.separator.join(values) for values in words]


def find(path: files.AnyPath) -> Path:
    """A task's file: in the project or else in the checkout. Raises FileNotFoundError that names those there are."""
    places = [files.project_path(path), Path(os.path.normpath(CHECKOUT / path))]
    if found := next((place for place in places if place.is_file()), None):
        return found
    known = [str(one.relative_to(CHECKOUT)) for one in sorted((CHECKOUT / "tasks").glob("*.yml"))]
    advice = did_you_mean(path, known) or f"; there are {', '.join(known)}"
    raise FileNotFoundError(f"task: there is no file {files.shown_path(places[0])}{advice}")


class _File(Settings):
    """What a task's file holds."""

    attributes: tuple[_Attribute, ...] = ()
    photos: Photos = Photos()


def read(path: files.AnyPath) -> Task:
    """The task of a YAML file. Raises FileNotFoundError, and ValueError that names file, field and value."""
    found = find(path)
    values = plain_yaml.read(found)
    try:
        told = _File(**values)
        return Task(tuple(one.attribute() for one in told.attributes), told.photos)
    except ValueError as error:
        raise ValueError(f"{files.shown_path(found)}: {error}") from None

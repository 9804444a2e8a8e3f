"""The operations of a policy on a whole batch at once, on the device it lies on, each photo with its own parameters.

Photos are (B, C, H, W) of one, three or four channels, uint8 or float32 in [0, 1], and come out as the latter. Turns,
shears, shifts and zooms that follow one another are one resampling.
"""

from collections.abc import Callable, Container, Iterable
from typing import Any

import numpy as np
import torch

from mask_lib.augment import color, development, draws, geometric
from mask_lib.augment.draws import Share
from mask_lib.augment.geometric import Drawn
from mask_lib.augment.policy import OPERATIONS, Policy

CACHED = 1 << 17  # numbers: what a processor's core works on at a time, so that it need not wait for its memory
CHANGING: dict[str, Callable[[torch.Tensor, Drawn], torch.Tensor]] = color.TONES | {
    "grid_distortion": geometric.grid_distortion,
    "elastic_distortion": geometric.elastic_distortion,
    "saturation": color.saturation,
    "sharpness": color.sharpness,
    "blur": color.blur,
    "motion_blur": color.motion_blur,
    "erase": color.erase,
}
AT_ANY_TIME = frozenset({"brightness", "saturation", "invert"})  # linear in each pixel: moving may wait for later
NEEDS_COLOURS = frozenset(name for name, operation in OPERATIONS.items() if operation.colours)


def apply(batch: torch.Tensor, policy: Policy, generator: torch.Generator) -> torch.Tensor:
    """(B, C, H, W) uint8, or float32 in [0, 1] → float32, each photo by a sub-policy of its own; float32 in place."""
    if not policy.sub_policies or not len(batch):
        return development.as_float(batch)
    operation, values, extra = draws.draw(policy, len(batch), generator)
    waiting = Waiting(batch)
    for place in range(operation.shape[1]):
        last = place == operation.shape[1] - 1
        waiting.take(draws.shares(operation[:, place], values[:, place], extra[:, place], generator), last)
    return waiting.finished()


def perform(batch: torch.Tensor, name: str, values: torch.Tensor, generator: torch.Generator) -> torch.Tensor:
    """One operation on each of (B, C, H, W) photos, by (B,) values in its unit, with their signs; float32 in place."""
    waiting, numbers = Waiting(batch), torch.full((len(batch),), draws.NAMES.index(name))
    extra = torch.rand(len(batch), draws.EXTRA, generator=generator)
    waiting.take(draws.shares(numbers, values, extra, generator), last=True)
    return waiting.finished()


class Waiting:
    """A batch to which something may still have to be done: what can wait is put together until it cannot.

    Movements wait for one resampling. Photos of bytes wait to be developed: until then, tones change their tables.
    """

    def __init__(self, photos: torch.Tensor):
        self.photos = photos
        developed = photos.is_floating_point()
        self.batch = photos if developed else development.unfilled(photos)
        self.raw = np.full(len(photos), not developed)
        self.tables = development.level_tables(photos)
        self.matrices = torch.eye(3).repeat(len(photos), 1, 1)  # output to input
        self.moved = np.zeros(len(photos), bool)
        self.size = at_a_time(photos)

    def take(self, todo: list[Share], last: bool) -> None:
        """Do what each share, no two of the same photos, is to have done, or note it; saturation needs three colours.

        last: nothing comes after this, so that nothing is gained by waiting.
        """
        moving, todo = parted(todo, geometric.MOVING)
        for share in moving:
            self.turn(share)
        if self.batch.shape[1] != 3:
            _, todo = parted(todo, NEEDS_COLOURS)
        # Movements that wait come first, but for what may be done at any time: then they go on waiting.
        _, follow = parted(todo, AT_ANY_TIME & color.TONES.keys() if last else AT_ANY_TIME)
        rows = rows_of(follow)
        self.move(rows[self.moved[rows]])
        tones, todo = parted(todo, color.TONES)
        self.tone([share.of(self.raw[share.rows]) for share in tones])
        # The rest needs pixels. In the end all bytes are developed at once, moved if they are to be.
        todo += [share.of(~self.raw[share.rows]) for share in tones]
        if last:
            self.move(self.raw.nonzero()[0])
        rows = rows_of(todo)
        self.develop(rows[self.raw[rows]], torch.eye(3))
        for share in todo:
            self.retouch(share)

    def turn(self, share: Share) -> None:
        """Note a movement."""
        height, width = self.batch.shape[2:]
        matrices = geometric.MOVING[share.name](share.drawn, height / width)
        self.matrices[share.rows] = self.matrices[share.rows] @ matrices
        self.moved[share.rows] = True

    def tone(self, todo: list[Share]) -> None:
        """Change the tables of photos that are bytes still."""
        counting, _ = parted(todo, color.COUNTING)
        counts = development.level_counts(self.photos, rows_of(counting))
        for share in todo:
            if len(share.rows):
                at = torch.from_numpy(share.rows).to(self.tables.device)
                given = counts[at] if share.name in color.COUNTING else None
                self.tables[at] = color.TONES[share.name](self.tables[at], share.drawn, given)

    def develop(self, rows: np.ndarray, to_input: torch.Tensor) -> None:
        """Make float32 of the photos `rows`, moved by (n, 3, 3) or (3, 3) matrices."""
        if len(rows):
            development.develop(self.photos, rows, self.tables, to_input.expand(len(rows), 3, 3), self.batch)
            self.raw[rows] = False

    def move(self, rows: np.ndarray) -> None:
        """Do the movements that the photos `rows` wait for, in developing them where they are bytes."""
        raw, rest = rows[self.raw[rows]], rows[~self.raw[rows]]
        self.develop(raw, self.matrices[raw])
        self.change(rest, geometric.moved, self.matrices[rest].split(self.size))
        self.matrices[rows], self.moved[rows] = torch.eye(3), False

    def retouch(self, share: Share) -> None:
        """Change the pixels of photos that are float32."""
        if share.name in development.COMPILED and development.by_kernels(self.batch):
            development.retouch(self.batch, share.name, share.rows, share.drawn.values)
        else:
            self.change(share.rows, CHANGING[share.name], share.drawn.parts(self.size))

    def finished(self) -> torch.Tensor:
        """(B, C, H, W) float32 with nothing left to do."""
        self.move((self.raw | self.moved).nonzero()[0])
        return self.batch

    def change(
        self, rows: np.ndarray, operation: Callable[[torch.Tensor, Any], torch.Tensor], parameters: Iterable[Any]
    ) -> None:
        """Let an operation have the float32 photos `rows`, with parameters of `self.size` at a time, to overwrite."""
        rows = rows.tolist()
        for start, part in zip(range(0, len(rows), self.size), parameters, strict=False):
            some = rows[start : start + self.size]
            place = evenly_spaced(some)
            if place is None:
                at = torch.tensor(some, device=self.batch.device)
                self.keep(some, operation(self.batch.index_select(0, at), part))
            else:
                photos = self.batch[place]
                changed = operation(photos, part)
                if changed is not photos:
                    photos.copy_(changed)

    def keep(self, rows: list[int], changed: torch.Tensor) -> None:
        """Write (n, C, H, W) float32 where the photos `rows` are; a processor is quicker one by one."""
        if changed.device.type == "cpu":
            for row, photo in zip(rows, changed, strict=True):
                self.batch[row] = photo
        else:
            self.batch.index_copy_(0, torch.tensor(rows, device=changed.device), changed)


def parted(todo: Iterable[Share], names: Container[str]) -> tuple[list[Share], list[Share]]:
    """The shares whose operations are among the names, and the others."""
    todo = list(todo)
    return [share for share in todo if share.name in names], [share for share in todo if share.name not in names]


def rows_of(todo: Iterable[Share]) -> np.ndarray:
    """(n,) int64, ascending: the photos of all shares together."""
    return np.sort(np.concatenate([np.empty(0, np.int64), *(share.rows for share in todo)]))


def at_a_time(photos: torch.Tensor) -> int:
    """How many photos to work on at a time: all of them on a GPU, on a processor what its cores have room for."""
    if photos.device.type != "cpu":
        return len(photos)
    threads = torch.get_num_threads()
    return max(threads, threads * CACHED // photos[0].numel())


def evenly_spaced(rows: list[int]) -> slice | None:
    """The slice that holds just these ascending rows, as it does for any two; None where there is no such slice."""
    step = rows[1] - rows[0] if len(rows) > 1 else 1
    place = slice(rows[0], rows[-1] + 1, step)
    return place if len(rows) <= 2 or rows == list(range(rows[0], rows[-1] + 1, step)) else None

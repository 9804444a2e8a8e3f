"""Copies are told from other photos of the same person, whatever was done to the copy."""

import io

import numpy as np
import pytest
from PIL import Image, ImageEnhance

from mask_lib.data import hashes, pixels
from mask_lib.sample import crowd, portrait
from mask_lib.sample.people import Gender, Mask, invent_face, invent_shot

SIZE = (288, 384)  # width and height, in pixels
BICUBIC = Image.Resampling.BICUBIC


def shot(person: int, number: int, mask: Mask = Mask.WORN) -> Image.Image:
    face = invent_face(crowd.stream(0, person), Gender(person % 2), "Asian", 20 + 10 * person)
    return portrait.portrait(face, invent_shot(crowd.stream(1, person, number), mask), *SIZE)


@pytest.fixture(scope="module")
def people() -> list[Image.Image]:
    """One photo of each of some people."""
    return [shot(person, 0, Mask(person % 3)) for person in range(6)]


def encoded(photo: Image.Image, quality: int = 85) -> io.BytesIO:
    """A JPEG file in memory."""
    file = io.BytesIO()
    photo.save(file, "JPEG", quality=quality)
    return file


def cropped(photo: Image.Image, left: float, top: float, right: float, bottom: float) -> Image.Image:
    """The photo without shares of its sides."""
    width, height = photo.size
    return photo.crop(
        (round(left * width), round(top * height), round((1 - right) * width), round((1 - bottom) * height))
    )


def scaled(photo: Image.Image, scale: float) -> Image.Image:
    return photo.resize((round(photo.width * scale), round(photo.height * scale)), BICUBIC)


CHANGES = {
    "nothing": lambda photo: encoded(photo, 95),
    "quality 60": lambda photo: encoded(photo, 60),
    "encoded twice": lambda photo: encoded(Image.open(encoded(photo, 60)), 70),
    "half": lambda photo: encoded(scaled(photo, 0.5)),
    "0.93": lambda photo: encoded(scaled(photo, 0.93)),
    "one and a half": lambda photo: encoded(scaled(photo, 1.5)),
    "cropped 2 %": lambda photo: encoded(cropped(photo, *[0.02] * 4)),
    "cropped left": lambda photo: encoded(cropped(photo, 0.02, 0, 0, 0)),
    "cropped below": lambda photo: encoded(cropped(photo, 0, 0, 0, 0.02)),
    "cropped at a corner": lambda photo: encoded(cropped(photo, 0.02, 0.02, 0, 0)),
    "cropped and back": lambda photo: encoded(cropped(photo, *[0.02] * 4).resize(SIZE, BICUBIC)),
    "cropped, half, quality 60": lambda photo: encoded(scaled(cropped(photo, *[0.02] * 4), 0.5), 60),
}
OTHERS = {
    "turned by 3 degrees": lambda photo: encoded(photo.rotate(3, BICUBIC, fillcolor=(128, 128, 128))),
    "brighter": lambda photo: encoded(ImageEnhance.Brightness(photo).enhance(1.1)),
    "of more contrast": lambda photo: encoded(ImageEnhance.Contrast(photo).enhance(1.15)),
    "cropped 5 %": lambda photo: encoded(cropped(photo, *[0.05] * 4)),
    "mirrored": lambda photo: encoded(photo.transpose(Image.Transpose.FLIP_LEFT_RIGHT)),
}


def verdicts(first: list[io.BytesIO], second: list[io.BytesIO]) -> np.ndarray:
    """(N,) bool: what both looks say of photo files."""
    rows = np.arange(len(first))
    small = np.stack([hashes.hash_photo(file)[2] for file in first + second])
    alike = pixels.is_alike(pixels.blurred(small), rows, rows + len(first))
    return alike & pixels.is_copy(pixels.residuals(pixels.read_grey(first), pixels.read_grey(second)))


@pytest.fixture(scope="module")
def originals(people) -> list[io.BytesIO]:
    return [encoded(photo, 90) for photo in people]


@pytest.mark.parametrize("change", CHANGES)
def test_a_changed_copy_is_one_whichever_comes_first(people, originals, change):
    copies = [CHANGES[change](photo) for photo in people]
    assert verdicts(originals, copies).all()
    assert verdicts(copies, originals).all()


@pytest.mark.parametrize("change", OTHERS)
def test_what_is_more_than_a_copy_is_none(people, originals, change):
    assert not verdicts(originals, [OTHERS[change](photo) for photo in people]).any()


def test_other_people_are_none(originals):
    assert not verdicts(originals, originals[1:] + originals[:1]).any()


def test_another_photo_of_the_same_person_is_none():
    first, second = ([encoded(shot(person, number)) for person in range(6)] for number in (1, 2))
    assert not verdicts(first, second).any()


def test_another_mask_on_the_same_photo_is_another_photo():
    assert not verdicts([encoded(shot(2, 0, Mask.WORN))], [encoded(shot(2, 0, Mask.INCORRECT))]).any()


def test_photos_without_any_contrast_are_compared_without_a_fault():
    flat = np.full((1, pixels.SIDE, pixels.SIDE), 90, np.float32)
    found = pixels.residuals(flat, flat + 40)
    assert all(np.isfinite(values).all() for values in found.values())
    assert not pixels.is_copy(found).any()


def test_dull_noise_is_no_copy_of_other_dull_noise():
    generator = np.random.default_rng(0)
    dull = pixels.blurred(generator.integers(126, 131, (2, pixels.SIDE, pixels.SIDE)).astype(np.uint8))
    found = pixels.residuals(dull[:1], dull[1:])
    assert found["residual"][0] < pixels.MOST_RESIDUAL
    assert not pixels.is_copy(found).any()

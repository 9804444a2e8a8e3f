"""Copies are told from other photos of the same person, whatever was done to the copy."""

import io

import numpy as np
import pytest
from PIL import Image, ImageEnhance

from mask_lib.base.labels import Gender, Mask
from mask_lib.data import hashes, pixels
from mask_lib.sample import crowd, portrait
from mask_lib.sample.people import Face, invent_face, invent_shot

SIZE = (288, 384)  # width and height, in pixels
BICUBIC = Image.Resampling.BICUBIC


def face(person: int) -> Face:
    return invent_face(crowd.stream(0, person), Gender(person % 2), "Asian", 20 + 10 * person)


def shot(person: int, number: int, mask: Mask = Mask.WORN) -> Image.Image:
    return portrait.portrait(face(person), invent_shot(crowd.stream(1, person, number), mask), *SIZE)


@pytest.fixture(scope="module")
def people() -> list[Image.Image]:
    """One photo of each of some people."""
    return [shot(person, 0, Mask(person % 3)) for person in range(6)]


def encoded(photo: Image.Image, quality: int = 85) -> io.BytesIO:
    """A JPEG file in memory."""
    file = io.BytesIO()
    photo.save(file, "JPEG", quality=quality)
    file.seek(0)
    return file


def cropped(photo: Image.Image, left: float, top: float, right: float, bottom: float) -> Image.Image:
    """The photo without shares of its sides."""
    width, height = photo.size
    return photo.crop(
        (round(left * width), round(top * height), width - round(right * width), height - round(bottom * height))
    )


def scaled(photo: Image.Image, scale: float) -> Image.Image:
    return photo.resize((round(photo.width * scale), round(photo.height * scale)), BICUBIC)


CHANGES = {
    "nothing": lambda photo: encoded(photo, 95),
    "quality 80": lambda photo: encoded(photo, 80),
    "quality 60": lambda photo: encoded(photo, 60),
    "encoded twice": lambda photo: encoded(Image.open(encoded(photo, 60)), 70),
    "half": lambda photo: encoded(scaled(photo, 0.5)),
    "0.93": lambda photo: encoded(scaled(photo, 0.93)),
    "one and a half": lambda photo: encoded(scaled(photo, 1.5)),
    "cropped 1 %": lambda photo: encoded(cropped(photo, *[0.01] * 4)),
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
    small = [[hashes.hash_photo(file)[2] for file in files if not file.seek(0)] for files in (first, second)]
    count = len(first)
    rows = np.arange(count)
    alike = pixels.is_alike(pixels.blurred(np.concatenate(small)), rows, rows + count)
    pictures = [pixels.read_grey([file for file in files if not file.seek(0)]) for files in (first, second)]
    return alike & pixels.is_copy(pixels.residuals(*pictures))


@pytest.mark.parametrize("change", CHANGES)
def test_a_changed_copy_is_one_whichever_comes_first(people, change):
    originals = [encoded(photo, 90) for photo in people]
    copies = [CHANGES[change](photo) for photo in people]
    assert verdicts(originals, copies).all()
    assert verdicts(copies, originals).all()


@pytest.mark.parametrize("change", OTHERS)
def test_what_is_more_than_a_copy_is_none(people, change):
    assert not verdicts([encoded(photo, 90) for photo in people], [OTHERS[change](photo) for photo in people]).any()


def test_another_photo_of_the_same_person_is_none():
    first, second = zip(*[(shot(person, 1), shot(person, 2)) for person in range(6)], strict=True)
    assert not verdicts([encoded(photo) for photo in first], [encoded(photo) for photo in second]).any()


def test_another_mask_on_the_same_photo_is_another_photo():
    worn = invent_shot(crowd.stream(1, 2, 0), Mask.WORN)
    below = invent_shot(crowd.stream(1, 2, 0), Mask.INCORRECT)
    pair = [encoded(portrait.portrait(face(2), one, *SIZE)) for one in (worn, below)]
    assert not verdicts(pair[:1], pair[1:]).any()


def test_other_people_are_none(people):
    files = [encoded(photo) for photo in people]
    assert not verdicts(files, files[1:] + files[:1]).any()


def test_a_crop_is_measured(people):
    original = pixels.read_grey([encoded(people[0], 95)])
    found = pixels.residuals(original, pixels.read_grey([encoded(cropped(people[0], 0.02, 0, 0, 0), 95)]))
    assert found["cropped"][0] == pytest.approx(0.02, abs=0.004)
    assert found["gain"][0] == pytest.approx(1, abs=0.03)
    assert found["brighter"][0] < 0.5
    assert found["contrast"][0] > 10


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

"""Colours that are told apart must differ to those who lack the receptors for green, too (deuteranopia)."""

import itertools
import re

import numpy as np
import pytest
from matplotlib.colors import to_rgb

from mask_lib.base import files
from mask_lib.plots import style

# Machado, Oliveira and Fernandes 2009, for linear RGB, severity 1.
DEUTERANOPIA = np.array([[0.367, 0.861, -0.228], [0.280, 0.673, 0.047], [-0.012, 0.043, 0.969]])
XYZ = np.array([[0.4125, 0.3576, 0.1804], [0.2127, 0.7152, 0.0722], [0.0193, 0.1192, 0.9503]])
SIGHTS = {"usual": np.eye(3), "deuteranopia": DEUTERANOPIA}


def seen(colours, sight: np.ndarray) -> np.ndarray:
    """(N, 3) CIELAB of colours as someone with this sight sees them."""
    srgb = np.array([to_rgb(colour) for colour in colours])
    linear = np.where(srgb <= 0.04045, srgb / 12.92, ((srgb + 0.055) / 1.055) ** 2.4)
    whole = np.clip(linear @ sight.T, 0, 1) @ XYZ.T / XYZ.sum(axis=1)
    roots = np.where(whole > 0.008856, np.cbrt(whole), 7.787 * whole + 16 / 116)
    x, y, z = roots.T
    return np.stack([116 * y - 16, 500 * (x - y), 200 * (y - z)], axis=1)


def nearest(colours, sight: np.ndarray) -> float:
    """The smallest difference (CIE 1976) of two of them; about 2 is just seen side by side."""
    return min(np.linalg.norm(a - b) for a, b in itertools.combinations(seen(colours, sight), 2))


@pytest.mark.parametrize("sight", SIGHTS.values(), ids=SIGHTS)
def test_series_and_marks_on_the_screen_are_told_apart(sight):
    assert len(style.COLOURS) == 8 and nearest(style.COLOURS, sight) > 20
    css = (files.PROJECT / "mask_lib" / "relabel" / "widget.css").read_text(encoding="utf-8")
    marks = re.findall(r"--(?:wrong|right|doubt): (#\w{6});", css)
    assert len(marks) == 3 and nearest(marks, sight) > 20


def test_the_usual_red_and_green_would_not_pass():
    assert nearest(["#d62728", "#8c8c00"], np.eye(3)) > 20 > nearest(["#d62728", "#8c8c00"], DEUTERANOPIA)

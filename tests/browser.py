"""The browser for tests that press keys in a real page; as a script, prints its path or exits with 1."""

import os
import shutil
import subprocess
import sys

import pytest

NAMES = ("chromium", "chromium-browser", "google-chrome", "google-chrome-stable")


def find_chromium() -> str | None:
    """The path of an installed Chromium or Chrome that starts; None if there is none."""
    for path in filter(None, map(shutil.which, NAMES)):
        # Ubuntu's `chromium-browser` may be a stub that only says where to get the real one.
        if subprocess.run([path, "--version"], capture_output=True, timeout=60).returncode == 0:
            return path
    return None


def require_chromium() -> str:
    """The path of the browser. Without one the calling test is skipped, or fails where `CI` is set."""
    path = find_chromium()
    if path is None:
        give_up = pytest.fail if os.environ.get("CI") else pytest.skip
        give_up("no Chromium on this machine: apt-get install chromium")
    return path


if __name__ == "__main__":
    found = find_chromium()
    print(found or "no Chromium")
    sys.exit(found is None)

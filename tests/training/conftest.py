"""What tests of training share: the toy prepared, and copies of what a module has trained."""

import shutil

import pytest
import toys


@pytest.fixture(scope="module")
def prepared(tmp_path_factory):
    """A data and an output folder with what 00_prepare_data leaves of the toy."""
    folders = tmp_path_factory.mktemp("data"), tmp_path_factory.mktemp("output")
    toys.prepare(*folders)
    return folders


@pytest.fixture
def copied(trained, tmp_path):
    """The folders of a module's `trained`, to be changed by a test."""
    return tuple(shutil.copytree(folder, tmp_path / folder.name) for folder in trained)

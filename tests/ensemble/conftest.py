"""Toy runs that several files of tests share; none of them changes their weights."""

import shutil

import pytest
import toy_ensemble


@pytest.fixture(scope="session")
def trained(tmp_path_factory):
    """The folders `data` and `outputs/toy` of a project with the runs of `toy_ensemble` and their recipe."""
    project = tmp_path_factory.mktemp("project")
    data, output = project / "data", project / "outputs" / "toy"
    toy_ensemble.write(data, output, toy_ensemble.RUNS, toy_ensemble.RECIPE)
    return data, output


@pytest.fixture
def folder(trained, tmp_path):
    """The evaluation photos in a folder of their own."""
    return shutil.copytree(trained[0] / "eval" / "images", tmp_path / "photos")

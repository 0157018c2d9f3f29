"""One tiny run of every kind, trained once for all tests of the command line."""

import shutil
from pathlib import Path

import pytest
from command_line import KINDS, fit, write_data


@pytest.fixture(scope="session")
def data(tmp_path_factory) -> Path:
    return write_data(tmp_path_factory.mktemp("data") / "tiny.npz")


@pytest.fixture(scope="session")
def finished(tmp_path_factory, data):
    """A function from a kind to its run folder and what training it printed."""
    made = {}

    def get(kind):
        if kind not in made:
            folder = tmp_path_factory.mktemp("runs") / kind
            made[kind] = folder, fit(data, folder, *KINDS[kind])
        return made[kind]

    return get


@pytest.fixture(scope="session")
def trained(finished) -> Path:
    """The δ-VAE's folder: to read, not to change."""
    return finished("AR1")[0]


@pytest.fixture
def own(trained, tmp_path) -> Path:
    """A copy of the δ-VAE's folder, to change."""
    return Path(shutil.copytree(trained, tmp_path / "own"))

"""All studies in the smallest budget, by the command: every page is there, and it is cheap."""

import json
import resource
import subprocess
import sys

import pytest
from PIL import Image

from deltavae.run_folder import import_class
from deltavae.studies import STUDIES

CPU_SECONDS = 330  # three minutes of two cores, less what waits: time of processors, not of walls


@pytest.fixture(scope="module")
def smoke(tmp_path_factory):
    """The folder, how the command ended, and the processor time of it and all its trainings."""
    out = tmp_path_factory.mktemp("smoke")
    words = ["study", "all", "--budget", "smoke", "--jobs", "2", "--out", str(out)]
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    ended = subprocess.run(
        [sys.executable, "-m", "deltavae", *words], capture_output=True, text=True, check=False
    )
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    seconds = after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime
    return out, ended, seconds


@pytest.mark.slow
def test_every_cell_ends_within_the_time(smoke):
    _, ended, seconds = smoke
    assert ended.returncode == 0, ended.stderr
    assert "failed" not in ended.stderr
    assert seconds < CPU_SECONDS


@pytest.mark.slow
@pytest.mark.parametrize("name", STUDIES)
def test_every_page_is_complete(smoke, name):
    out = smoke[0]
    page = (out / name / "README.md").read_text()
    study = import_class(STUDIES[name].class_path)()
    assert page.startswith(f"# {study.title}\n")
    assert "cells are missing" not in page
    cells = study.cells("smoke")
    for cell in cells:
        result = json.loads((out / name / "cells" / f"{cell.name}.json").read_text())
        assert result["key"] == cell.key
        assert result["budget"] == "smoke"
        assert result["val"]["examples"] == cell.options["holdout"]
    listed = (out / name / "files.txt").read_text().splitlines()
    for file in listed:
        if file.endswith(".png"):
            assert f"({file})" in page
            with Image.open(out / name / file) as picture:
                picture.load()
                assert min(picture.size) > 1
    assert any(file.endswith(".png") for file in listed)

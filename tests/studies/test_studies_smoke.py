"""All studies in the smallest budget, by the command: every page is there, and it is cheap."""

import json
import os
import resource
import subprocess
import sys

import pytest
from PIL import Image

from deltavae.run_folder import import_class
from deltavae.studies import STUDIES

CPU_SECONDS = 330  # three minutes of two cores, less what waits: time of processors, not of walls


def children_seconds():
    used = resource.getrusage(resource.RUSAGE_CHILDREN)
    return used.ru_utime + used.ru_stime


@pytest.mark.slow
def test_all_studies_end_within_minutes_and_with_complete_pages(tmp_path):
    words = ["study", "all", "--budget", "smoke", "--jobs", "2", "--out", str(tmp_path)]
    # Coverage, where it is measured, would follow every training, and cost more than they do.
    own = {k: v for k, v in os.environ.items() if not k.startswith("COVERAGE_PROCESS")}
    before = children_seconds()
    ended = subprocess.run(
        [sys.executable, "-m", "deltavae", *words],
        capture_output=True,
        text=True,
        check=False,
        env=own,
    )
    seconds = children_seconds() - before
    assert ended.returncode == 0, ended.stderr
    for name in STUDIES:
        check_study(tmp_path, name)
    assert seconds < CPU_SECONDS


def check_study(out, name):
    page = (out / name / "README.md").read_text()
    study = import_class(STUDIES[name].class_path)()
    assert page.startswith(f"# {study.title}\n")
    assert "cells are missing" not in page
    for cell in study.cells("smoke"):
        result = json.loads((out / name / "cells" / f"{cell.name}.json").read_text())
        assert (result["key"], result["budget"]) == (cell.key, "smoke")
        assert result["val"]["examples"] == cell.options["holdout"]
    pictures = [p for p in (out / name / "files.txt").read_text().split() if p.endswith(".png")]
    assert pictures
    for file in pictures:
        assert f"({file})" in page
        with Image.open(out / name / file) as picture:
            picture.load()
            assert min(picture.size) > 1

"""Cells spread by Ray over a local cluster of two workers; a worker that is lost loses no cell."""

import os
import signal
import sys
import threading
from pathlib import Path

import pytest

from deltavae.studies.engine import run_studies
from deltavae.studies.executors import RayExecutor
from deltavae.studies.jobs import Ended
from fake_studies import Long, Rates
from processes import parent_of, training_in, wait_for

pytestmark = [
    pytest.mark.ray,
    pytest.mark.slow,
    pytest.mark.filterwarnings("ignore"),  # Ray's own
]

TESTS = Path(__file__).parents[1]


@pytest.fixture(autouse=True)
def installed(monkeypatch):
    pytest.importorskip("ray", reason="the optional extra ray is not installed")
    monkeypatch.setenv("PYTHONPATH", str(TESTS))  # the workers load the studies of the tests


def test_a_lost_worker_s_cell_runs_again(tmp_path):
    (cell,) = Long().cells("smoke")
    folder = tmp_path / "cells" / cell.key
    lost, ended = [], []

    def lose_a_worker():  # and what it has begun, as a machine that is switched off
        wait_for((folder / "checkpoints" / "last.ckpt").is_file)
        training = training_in(folder)
        lost.append(parent_of(training))
        for process in (*lost, training):
            os.kill(process, signal.SIGKILL)

    threading.Thread(target=lose_a_worker).start()
    outcome = run_studies(
        [Long(), Rates()],
        "smoke",
        tmp_path,
        executor=RayExecutor("local", 2),
        watch=lambda state, event: ended.append(event) if event else None,
    )
    assert len(lost) == 1
    assert lost[0] != os.getpid()
    assert (outcome.failed, outcome.missing) == ((), {"long": 0, "rates": 0})
    assert [event.status for event in ended if isinstance(event, Ended)] == ["done"] * 3
    assert (folder / "fit.log").read_text().count("training images") == 2
    steps = [float(line.split(",")[0]) for line in (folder / "log.csv").read_text().split()[1:]]
    assert steps == sorted(set(steps))  # none twice: the second worker went on


def test_ctrl_c_reaches_the_workers(tmp_path):
    (cell,) = Long().cells("smoke")
    folder = tmp_path / "cells" / cell.key

    def interrupt():
        wait_for((folder / "checkpoints" / "last.ckpt").is_file)
        os.kill(os.getpid(), signal.SIGINT)

    threading.Thread(target=interrupt).start()
    with pytest.raises(KeyboardInterrupt):
        run_studies([Long()], "smoke", tmp_path, executor=RayExecutor("local", 1))
    assert "stopped at step" in (folder / "fit.log").read_text()
    assert not (folder / "metrics.json").exists()


def test_no_cluster_is_an_error_that_names_the_address(tmp_path):
    with pytest.raises(ValueError, match=r"^address auto: Could not find any running Ray"):
        run_studies([Rates()], "smoke", tmp_path, executor=RayExecutor("auto"))


def test_without_ray_the_error_says_what_to_install(monkeypatch):
    monkeypatch.setitem(sys.modules, "ray", None)
    with pytest.raises(ValueError, match="pip install 'deltavae\\[ray\\]'"):
        RayExecutor()

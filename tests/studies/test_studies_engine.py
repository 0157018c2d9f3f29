"""The engine: what is there is not done again, what is shared is done once, what fails is told."""

import csv
import json
import os
import shutil
import signal
import threading
from dataclasses import replace
from pathlib import Path

import pytest
import torch
import yaml

from deltavae.studies.analysis import collect, thinned
from deltavae.studies.base import fingerprint
from deltavae.studies.engine import State, run_studies
from deltavae.studies.executors import Began, Executor, LocalExecutor
from deltavae.studies.jobs import Ended
from fake_studies import BadAnalysis, BadFindings, Failing, Long, Rates, Weights, write_result
from processes import training_in, wait_for


class NoExecutor(Executor):
    """Fails the test where anything is to be run."""

    workers = 1

    def run(self, jobs):
        raise AssertionError(f"to be run: {[job.key for job in jobs]}")


class Recording(Executor):
    """Keeps the jobs, and runs none."""

    workers = 1

    def run(self, jobs):
        self.jobs = jobs
        yield from ()


def at_rest(folder: Path) -> dict[str, tuple[float, bytes]]:
    """Every file with its time and content."""
    files = (file for file in folder.rglob("*") if file.is_file())
    return {str(f.relative_to(folder)): (f.stat().st_mtime_ns, f.read_bytes()) for f in files}


@pytest.fixture(scope="module")
def finished(tmp_path_factory):
    """Both studies, run side by side, and what was told on the way."""
    out, told = tmp_path_factory.mktemp("studies"), []
    outcome = run_studies(
        [Rates(), Weights()],
        "smoke",
        out,
        executor=LocalExecutor(2),
        watch=lambda state, event: told.append((state, event)),
    )
    return out, outcome, told


@pytest.fixture
def copy(finished, tmp_path):
    return Path(shutil.copytree(finished[0], tmp_path / "studies"))


def test_a_shared_cell_is_trained_once(finished):
    out, outcome, told = finished
    assert outcome.failed == ()
    assert outcome.missing == {"rates": 0, "weights": 0}
    keys = [cell.key for cell in Rates().cells("smoke")]
    assert Weights().cells("smoke")[0].key == keys[0]
    assert sorted(folder.name for folder in (out / "cells").iterdir()) == sorted(keys)
    began = [event.key for _, event in told if isinstance(event, Began)]
    ended = [event for _, event in told if isinstance(event, Ended)]
    assert sorted(began) == sorted(keys)
    assert [event.status for event in ended] == ["done", "done"]
    assert (told[0][0], told[0][1]) == (State(total=2, done=0), None)
    assert told[-1][0] == State(total=2, done=2)


def test_cells_are_runs_of_fit(finished):
    out = finished[0]
    for cell in Rates().cells("smoke"):
        config = yaml.safe_load((out / "cells" / cell.key / "config.yaml").read_text())
        assert config["epochs"] == cell.options["epochs"]
        steps = (out / "cells" / cell.key / "log.csv").read_text().splitlines()
        assert len(steps) > 1
        assert "training images" in (out / "cells" / cell.key / "fit.log").read_text()


def test_results_hold_metrics_log_analysis_and_origin(finished):
    out = finished[0]
    (cell,) = Weights().cells("smoke")
    result = json.loads((out / "weights" / "cells" / f"{cell.name}.json").read_text())
    metrics = json.loads((out / "cells" / cell.key / "metrics.json").read_text())["test"]
    assert result["metrics"] == metrics
    assert metrics["rate_bits"] >= 2.0
    with (out / "cells" / cell.key / "log.csv").open() as file:
        rows = list(csv.DictReader(file))
    assert result["log"]["step"] == [float(row["step"]) for row in rows]
    parameters = metrics["params"] + metrics["aux_params"]
    told = {"weights": parameters, "threads": 1, "nan": None, "budget": "smoke"}
    assert result["analysis"] == told
    assert (result["budget"], result["version"]) == ("smoke", 1)
    assert result["origin"]["steps"] == 6  # half of eleven
    assert result["origin"]["threads"] == 1
    assert result["origin"]["processor"]
    config = yaml.safe_load((out / "cells" / cell.key / "config.yaml").read_text())
    del config["data_dir"]
    assert result["origin"]["config"] == fingerprint(config)
    assert str(out) not in json.dumps(result)  # no path of this machine


def test_held_out_images_are_measured_once_where_there_are_any(finished):
    out = finished[0]
    shared, whole = Rates().cells("smoke")
    metrics = json.loads((out / "cells" / shared.key / "metrics.json").read_text())["val"]
    assert (metrics["split"], metrics["examples"]) == ("val", 20)
    assert metrics["rate_bits"] >= 2.0
    assert metrics["probe_accuracy"] is None
    for file in ("rates/cells/2bits.json", "weights/cells/two.json"):
        assert json.loads((out / file).read_text())["val"] == metrics
    assert json.loads((out / "rates" / "cells" / f"{whole.name}.json").read_text())["val"] == {}


def test_run_folder_names_its_cells(finished):
    shared, whole = (finished[0] / "cells" / cell.key for cell in Rates().cells("smoke"))
    assert (shared / "names.txt").read_text() == "rates/2bits\nweights/two\n"
    assert (whole / "names.txt").read_text() == "rates/4bits\n"


def test_pages_open_on_their_own(finished):
    out, outcome, _ = finished
    assert sorted(outcome.pages) == [out / name / "README.md" for name in ("rates", "weights")]
    folder = out / "rates"
    page = (folder / "README.md").read_text()
    assert page.startswith("# Rates\n\nRates of tiny trainings.\n\n2 rates.\n")
    assert (folder / "rates.md").read_text() in page
    assert "missing" not in page
    assert "2 cells trained for" in page
    for name in ("plot.png", "plot.svg", "picture.png", "rates.csv"):
        assert f"({name})" in page
        assert (folder / name).stat().st_size > 0
    assert not (folder / "picture.svg").exists()
    with (folder / "rates.csv").open() as file:
        assert [float(row["rate"]) >= float(row["δ"]) for row in csv.DictReader(file)] == [
            True
        ] * 2
    command = f"deltavae study rates --budget smoke --out {out}"
    assert (folder / "command.txt").read_text() == f"{command}\n"
    assert command in page
    assert "weights." in (out / "weights" / "README.md").read_text()


def test_what_is_done_is_not_done_again(copy):
    before = at_rest(copy / "cells"), at_rest(copy / "rates" / "cells")
    outcome = run_studies([Rates(), Weights()], "smoke", copy, executor=NoExecutor())
    assert outcome.missing == {"rates": 0, "weights": 0}
    assert (at_rest(copy / "cells"), at_rest(copy / "rates" / "cells")) == before


def test_a_run_that_is_trained_is_only_analysed(copy):
    (cell,) = Weights().cells("smoke")
    shutil.rmtree(copy / "weights")
    before = at_rest(copy / "cells" / cell.key)
    outcome = run_studies([Weights()], "smoke", copy)
    assert outcome.missing == {"weights": 0}
    after = at_rest(copy / "cells" / cell.key)
    assert {name for name in after if after[name] != before.get(name)} <= {".lock"}


def test_a_result_of_another_version_is_taken_from_the_run_anew(copy):
    class Newer(Rates):
        version = 2

    assert run_studies([Newer()], "smoke", copy, tables_only=True).missing == {"rates": 2}
    before = at_rest(copy / "cells")
    executor = Recording()
    run_studies([Newer()], "smoke", copy, executor=executor)
    assert [job.key for job in executor.jobs] == [cell.key for cell in Rates().cells("smoke")]
    for job in executor.jobs:
        for analysis in job.wanted:
            collect(analysis)
    assert at_rest(copy / "cells") == before  # nothing was trained
    outcome = run_studies([Newer()], "smoke", copy, executor=NoExecutor())
    assert outcome.missing == {"rates": 0}


def test_results_of_another_budget_are_refused(copy):
    before = at_rest(copy)
    for tables_only in (False, True):
        with pytest.raises(ValueError, match=r"2bits\.json is a result of the budget smoke, got"):
            run_studies([Rates()], "cpu", copy, executor=NoExecutor(), tables_only=tables_only)
    assert at_rest(copy) == before


def test_tables_need_no_run_folders(copy):
    page = (copy / "rates" / "README.md").read_text()
    shutil.rmtree(copy / "cells")
    for file in (copy / "rates").glob("*.*"):
        file.unlink()
    outcome = run_studies([Rates()], "smoke", copy, executor=NoExecutor(), tables_only=True)
    assert outcome.missing == {"rates": 0}
    expected = page.replace(str(copy), "X")
    assert (copy / "rates" / "README.md").read_text().partition("Made by")[0] == (
        expected.partition("Made by")[0]
    )
    assert (copy / "rates" / "plot.svg").is_file()


def test_tables_say_what_they_lack(copy):
    (copy / "rates" / "cells" / "4bits.json").unlink()
    outcome = run_studies([Rates()], "smoke", copy, tables_only=True)
    assert outcome.missing == {"rates": 1}
    lack = "1 of 2 cells are missing."
    assert lack in (copy / "rates" / "rates.md").read_text()
    assert f"**Not complete: {lack}**" in (copy / "rates" / "README.md").read_text()


def test_only_the_cells_that_are_named_are_run(tmp_path):
    recording, told = Recording(), []
    outcome = run_studies(
        [Rates()],
        "smoke",
        tmp_path,
        executor=recording,
        cells=["4*"],
        watch=lambda state, event: told.append(state),
    )
    (job,) = recording.jobs
    assert [analysis.cell.name for analysis in job.wanted] == ["4bits"]
    assert told[0] == State(total=1, done=0)
    assert outcome.missing == {"rates": 2}


def test_a_pattern_of_no_cell_is_refused(tmp_path):
    with pytest.raises(ValueError, match="no cell is named 4b; the first of 2 is 2bits"):
        run_studies([Rates()], "smoke", tmp_path, executor=NoExecutor(), cells=["2bits", "4b"])
    assert list(tmp_path.iterdir()) == []


def test_a_result_of_other_options_or_a_damaged_one_is_none(copy):
    file = copy / "rates" / "cells" / "4bits.json"
    changed = json.loads(file.read_text())
    changed["cell"]["options"]["epochs"] = 7
    file.write_text(json.dumps(changed))
    assert run_studies([Rates()], "smoke", copy, tables_only=True).missing == {"rates": 1}
    file.write_text("{")
    assert run_studies([Rates()], "smoke", copy, tables_only=True).missing == {"rates": 1}


def test_labels_are_those_of_today(copy):
    file = copy / "rates" / "cells" / "4bits.json"
    changed = json.loads(file.read_text())
    changed["cell"]["labels"] = {"bits": 99}
    file.write_text(json.dumps(changed))
    run_studies([Rates()], "smoke", copy, tables_only=True)
    assert "| 99" not in (copy / "rates" / "rates.md").read_text()


def test_a_failed_cell_is_told_and_the_others_go_on(copy):
    events = []
    outcome = run_studies(
        [Failing()], "smoke", copy, watch=lambda state, event: events.append((state, event))
    )
    (failed,) = outcome.failed
    assert (failed.name, failed.key) == ("wrong", Failing().cells("smoke")[0].key)
    assert failed.tail.splitlines()[-1] == "deltavae: --delta-bits: must be above 0, got -1.0"
    assert outcome.missing == {"failing": 1}
    assert events[-1][0] == State(total=2, done=1, failed=(failed,))
    assert "1 of 2 cells are missing." in (copy / "failing" / "rates.md").read_text()


def test_a_failed_analysis_is_told(copy):
    outcome = run_studies([BadAnalysis()], "smoke", copy)
    (failed,) = outcome.failed
    assert failed.tail.splitlines()[-1] == "RuntimeError: nothing to be seen here"
    assert not (copy / "bad-analysis" / "cells").exists()


def test_a_page_that_cannot_be_made_stops_nothing(copy):
    told = []
    for cell in Rates().cells("smoke"):
        write_result(copy, "bad-findings", cell)
    (copy / "rates" / "README.md").unlink()
    outcome = run_studies(
        [BadFindings(), Rates()], "smoke", copy, watch=lambda state, event: told.append(event)
    )
    assert outcome.pages == [copy / "rates" / "README.md"]
    assert outcome.broken == [event for event in told if event is not None]
    (broken,) = outcome.broken
    assert broken.study == "bad-findings"
    assert broken.error.startswith("RuntimeError: nothing to be found here (fake_studies.py:")


def test_findings_are_drawn_with_one_thread(copy, monkeypatch):
    seen = []

    class Counting(Rates):
        def findings(self, results, budget):
            seen.append(torch.get_num_threads())
            return super().findings(results, budget)

    before = torch.get_num_threads()
    torch.set_num_threads(2)
    try:
        run_studies([Counting()], "smoke", copy, tables_only=True)
        assert (seen, torch.get_num_threads()) == ([1], 2)
    finally:
        torch.set_num_threads(before)


def test_what_no_longer_belongs_to_a_page_is_removed(copy):
    class Fewer(Rates):
        def findings(self, results, budget):
            return replace(super().findings(results, budget), figures={})

    folder = copy / "rates"
    (folder / "notes.png").write_text("of somebody else")
    run_studies([Fewer()], "smoke", copy, executor=NoExecutor())
    left = {"README.md", "command.txt", "files.txt", "notes.png", "rates.csv", "rates.md"}
    assert {file.name for file in folder.iterdir() if file.is_file()} == left
    listed = set((folder / "files.txt").read_text().splitlines())
    assert listed == left - {"files.txt", "notes.png"}


def test_page_says_that_its_results_are_of_several_commits(copy):
    page = copy / "rates" / "README.md"
    assert "commits of deltavae" not in page.read_text()
    write_result(copy, "rates", Rates().cells("smoke")[0])
    run_studies([Rates()], "smoke", copy, executor=NoExecutor())
    assert "**The results come from 2 commits of deltavae.**" in page.read_text()


def test_two_cells_of_one_name_are_refused(tmp_path):
    class Twice(Rates):
        def cells(self, budget):
            return super().cells(budget) * 2

    with pytest.raises(ValueError, match="several cells are named 2bits, 4bits"):
        run_studies([Twice()], "smoke", tmp_path)


@pytest.mark.slow
def test_ctrl_c_leaves_checkpoints_and_the_next_run_goes_on(tmp_path):
    (cell,) = Long().cells("smoke")
    folder = tmp_path / "cells" / cell.key

    def interrupt():
        wait_for((folder / "checkpoints" / "last.ckpt").is_file)
        os.kill(os.getpid(), signal.SIGINT)

    threading.Thread(target=interrupt).start()
    with pytest.raises(KeyboardInterrupt):
        run_studies([Long()], "smoke", tmp_path)
    assert "stopped at step" in (folder / "fit.log").read_text()
    step = torch.load(folder / "checkpoints" / "last.ckpt", weights_only=True)["global_step"]
    assert 0 < step < 200
    assert not (folder / "metrics.json").exists()
    assert not (tmp_path / "long").exists()
    outcome = run_studies([Long()], "smoke", tmp_path)
    assert outcome.missing == {"long": 0}
    steps = [line.split(",")[0] for line in (folder / "log.csv").read_text().splitlines()[1:]]
    assert steps == sorted(set(steps), key=float)  # none twice: it went on
    assert json.loads((folder / "provenance.json").read_text())["steps"] == float(steps[-1])


@pytest.mark.slow
def test_a_killed_training_is_begun_again(tmp_path):
    (cell,) = Long().cells("smoke")
    folder = tmp_path / "cells" / cell.key

    def kill():
        wait_for((folder / "checkpoints" / "last.ckpt").is_file)
        os.kill(training_in(folder), signal.SIGKILL)

    threading.Thread(target=kill).start()
    outcome = run_studies([Long()], "smoke", tmp_path)
    assert (outcome.failed, outcome.missing) == ((), {"long": 0})
    assert (folder / "fit.log").read_text().count("training images") == 2


@pytest.mark.slow
def test_two_commands_share_a_cell_without_training_it_twice(tmp_path):
    outcomes = []
    threads = [
        threading.Thread(
            target=lambda study=study: outcomes.append(run_studies([study], "smoke", tmp_path))
        )
        for study in (Rates(), Weights())
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert [outcome.failed for outcome in outcomes] == [(), ()]
    shared = tmp_path / "cells" / Weights().cells("smoke")[0].key
    assert (shared / "fit.log").read_text().count("evaluating on") == 1


def test_log_is_thinned_to_its_held_out_rows_and_its_ends():
    rows = [{"step": float(i), "loss": 1 / (i + 3)} for i in range(1000)]
    for i in range(10, 1000, 100):
        rows[i]["val_elbo_bpd"] = 3.0
    rows[7]["loss"] = float("nan")
    log = thinned(rows)
    assert {len(column) for column in log.values()} == {len(log["step"])}
    assert 90 <= len(log["step"]) <= 100
    assert (log["step"][0], log["step"][-1]) == (0.0, 999.0)
    assert log["step"] == sorted(log["step"])
    assert log["val_elbo_bpd"].count(3.0) == 10
    assert log["loss"][0] == 0.3333333
    short = thinned(rows[:20])
    assert short["step"] == [float(i) for i in range(20)]
    assert short["loss"][7] is None
    assert thinned([]) == {}
    many = thinned([{"step": float(i), "val_x": 0.0} for i in range(1000)])
    assert len(many["step"]) <= 100


def test_local_executor_needs_a_worker():
    with pytest.raises(ValueError, match="workers must be at least 1, got 0"):
        LocalExecutor(0)

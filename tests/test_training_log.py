"""The training's log: whole whatever happens, and complete however the training ends."""

import csv
import signal

import lightning.pytorch as pl
import pytest
import torch

from deltavae.evaluation import evaluate
from deltavae.run_folder import RunFolder, instantiate
from deltavae.training import CSVLog, DeltaVAEDataModule, DeltaVAEModule, read_log, train
from runs import tiny_data, tiny_specification

DATA = tiny_data().hold_out_last(9)


def fit(folder, steps=12, max_minutes=None, **options):
    torch.manual_seed(0)
    model = instantiate(tiny_specification())
    settings = {"warmup_steps": 3, "max_minutes": max_minutes}
    module = DeltaVAEModule(model, steps=steps, log_every=5, **settings)
    batches = DeltaVAEDataModule(DATA, steps=steps, batch_size=16)
    settings = {"trainer": {"accelerator": "cpu"}, **options}
    return model, train(module, batches, RunFolder(folder), **settings)


def figures(model):
    final = evaluate(model, DATA, split="val", seed=0, probe=False)
    names = ("elbo_bpd", "distortion_bits", "rate_bits", "aux_rate_bits")
    return {f"val_{name}": pytest.approx(final[name], rel=1e-9) for name in names}


def without(row, *prefixes):
    return {name: value for name, value in row.items() if not name.startswith(prefixes)}


class CtrlC(pl.Callback):
    def __init__(self, step):
        self.step = step

    def on_train_batch_start(self, trainer, pl_module, batch, batch_idx):
        if trainer.global_step == self.step - 1:
            signal.raise_signal(signal.SIGINT)


@pytest.mark.parametrize("step", [3, 5, 8])  # before the first row, at a row, between two
def test_ctrl_c_ends_with_a_measurement_that_a_resumed_run_drops(tmp_path, step):
    whole, _ = fit(tmp_path / "whole", val_every=7)
    model, outcome = fit(tmp_path / "cut", val_every=7, callbacks=[CtrlC(step)])
    assert outcome.interrupted
    assert outcome.step == step
    undisturbed, cut = (read_log(tmp_path / name / "log.csv") for name in ("whole", "cut"))
    assert [row["step"] for row in undisturbed] == [5, 7, 10, 12]
    *before, last = cut
    assert [row["step"] for row in before] == [s for s in (5, 7) if s < step]
    assert last["step"] == step
    assert last.items() >= figures(model).items()
    assert last["rate_bits"] >= last["committed_rate_bits"] * (1 - 1e-6)
    if step == 5:
        assert without(last, "val_", "seconds") == without(undisturbed[0], "seconds")
    resumed, _ = fit(tmp_path / "cut", val_every=7, resume=True)
    cut = read_log(tmp_path / "cut" / "log.csv")
    assert [without(row, "seconds") for row in cut] == [
        without(row, "seconds") for row in undisturbed
    ]
    for name, value in whole.state_dict().items():
        assert torch.equal(value, resumed.state_dict()[name]), name


def test_time_limit_ends_with_a_measurement(tmp_path):
    limit = {"steps": 100_000, "max_minutes": 1.0 / 60}
    model, outcome = fit(tmp_path, val_every=50_000, **limit)
    assert 0 < outcome.step < 50_000
    log = (tmp_path / "log.csv").read_text()
    *before, last = read_log(tmp_path / "log.csv")
    assert not any(name.startswith("val_") for row in before for name in row)
    assert last["step"] == outcome.step
    assert last.items() >= figures(model).items()
    fit(tmp_path, val_every=50_000, resume=True, **limit)  # its time is up: no step
    assert (tmp_path / "log.csv").read_text() == log


class TimeIsUp(pl.Callback):
    def __init__(self, step):
        self.step = step

    def on_train_batch_start(self, trainer, pl_module, batch, batch_idx):
        if trainer.global_step == self.step - 1:
            pl_module.seconds = 60.0


@pytest.mark.parametrize("step", [3, 5, 8, 10])  # before the first row, at it, between two, at one
def test_run_resumed_when_its_time_is_up_leaves_its_log_as_it_was(tmp_path, step):
    _, outcome = fit(tmp_path, val_every=50, max_minutes=1.0, callbacks=[TimeIsUp(step)])
    assert outcome.step == step
    log = (tmp_path / "log.csv").read_text()
    _, outcome = fit(tmp_path, val_every=50, max_minutes=1.0, resume=True)
    assert outcome.step == step
    assert (tmp_path / "log.csv").read_text() == log
    assert read_log(tmp_path / "log.csv")[-1]["step"] == step


def test_disk_that_fills_while_the_log_is_written_anew_leaves_the_old_one_whole(
    tmp_path, monkeypatch
):
    path = tmp_path / "log.csv"
    for step in (5, 10):
        CSVLog(path).log_metrics({"rate_bits": 4.25 + step}, step)
    before = path.read_bytes()

    def full(writer, rows):
        raise OSError(28, "No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr(csv.DictWriter, "writerows", full)
        with pytest.raises(OSError, match="No space left"):
            CSVLog(path).log_metrics({"rate_bits": 1.0}, 10)  # a resumed run writes it anew
    assert path.read_bytes() == before
    assert [file.name for file in tmp_path.iterdir()] == ["log.csv"]
    CSVLog(path).log_metrics({"rate_bits": 1.0, "val_elbo_bpd": 2.0}, 10)
    assert read_log(path) == [
        {"step": 5, "rate_bits": 9.25},
        {"step": 10, "rate_bits": 1.0, "val_elbo_bpd": 2.0},
    ]

"""Rivals through the command line: trained, told apart honestly, measured, sampled."""

import csv
import json

import pytest
import torch
import yaml
from command_line import fit, run

from deltavae import load
from deltavae.latents import BatchNorm, LearnedPrior


def metrics_of(folder):
    return json.loads((folder / "metrics.json").read_text())["test"]


def test_a_floor_of_the_batch_mean_is_called_that_wherever_it_is_told(data, tmp_path):
    folder = tmp_path / "run"
    ended = fit(data, folder, "--latents", "BatchNorm", "--delta-bits", 4)
    assert ended.status == 0, ended.err
    assert "no δ, floor of a training batch's mean rate 4.000 bits" in ended.err
    metrics = metrics_of(folder)
    assert (metrics["floor"], metrics["committed_rate_bits"]) == ("mean", 0.0)
    assert metrics["mean_rate_floor_bits"] == pytest.approx(4.0, rel=1e-12)
    with (folder / "log.csv").open() as file:
        assert all(float(row["rate_bits"]) >= 4.0 * 0.999 for row in csv.DictReader(file))
    page = (folder / "report.html").read_text()
    assert "only the mean of its rate over a training batch has a floor, of 4.00 bits" in page
    told = run("describe", folder).out
    assert "no committed rate; the mean over a training batch is at least 4.000 bits" in told
    latents = load(folder).latents
    assert isinstance(latents, BatchNorm)
    assert not torch.equal(latents.running_variance, torch.ones(4, 2))
    assert run("sample", folder, "--n", 2, "--out", tmp_path / "grid.png").status == 0


def test_learned_prior_with_lagging_inference(data, tmp_path):
    folder = tmp_path / "run"
    words = ("--latents", "LearnedPrior", "--latents.hidden", 5, "--objective", "Beta")
    lagging = ("--lagging.inner-steps", 2, "--lagging.check-every", 2, "--holdout", 8)
    ended = fit(data, folder, *words, "--objective.beta", 0.5, *lagging)
    assert ended.status == 0, ended.err
    config = yaml.safe_load((folder / "config.yaml").read_text())
    assert config["lagging"] == {
        "inner_steps": 2,
        "check_every": 2,
        "patience": 5,
        "extra": False,
        "examples": 1000,
    }
    with (folder / "log.csv").open() as file:
        rows = [row for row in csv.DictReader(file) if row["lagging_information_bits"]]
    assert int(rows[0]["step"]) == 6
    assert int(rows[0]["decoder_updates"]) == 2
    model = load(folder)
    assert isinstance(model.latents, LearnedPrior)
    assert model.latents.lstm.hidden_size == 5
    assert model.latents.out.weight.abs().sum() > 0  # trained from zero
    assert metrics_of(folder)["committed_rate_bits"] == 0.0
    grid = tmp_path / "grid.png"
    assert run("sample", folder, "--n", 2, "--prior", "model", "--out", grid).status == 0
    assert run("evaluate", folder, "--limit", 4).status == 0

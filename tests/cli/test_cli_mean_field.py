"""A pair whose prior the user names, from the command line."""

import csv
import json

import pytest
import yaml
from command_line import fit, run

from deltavae import load
from deltavae.certified import StudentT


def test_a_prior_named_on_the_command_line(data, tmp_path):
    folder = tmp_path / "run"
    words = ("--latents", "MeanFieldPair", "--latents.prior", "StudentT", "--delta-bits", "1")
    ended = fit(data, folder, *words, "--no-report")
    assert ended.status == 0, ended.err
    with (folder / "log.csv").open() as file:
        rates = [float(row["rate_bits"]) for row in csv.DictReader(file)]
    floor = json.loads((folder / "metrics.json").read_text())["test"]["committed_rate_bits"]
    assert floor == pytest.approx(1.0, rel=1e-6)
    assert min(rates) >= floor
    pair = load(folder).latents
    kept = yaml.safe_load((folder / "config.yaml").read_text())["model"]["init_args"]["latents"]
    assert kept["init_args"]["prior"] == pair.density.specification()
    assert isinstance(pair.density, StudentT)
    drawn = run("sample", folder, "--n", "2", "--prior", "model", "--out", tmp_path / "x.npz")
    assert drawn.status == 0, drawn.err


def test_a_rate_out_of_reach_is_told(data, tmp_path):
    prior = ("--latents", "MeanFieldPair", "--latents.prior", "Laplace", "--delta-bits", "4")
    ended = fit(data, tmp_path / "run", *prior)
    assert ended.status == 2
    assert "Laplace has no knob" in ended.error
    assert "n d = 57" in ended.error

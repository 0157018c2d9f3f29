"""Every pair of posterior and prior, through every command."""

import csv
import inspect
import json

import numpy as np
import pytest
from command_line import fit, run

from deltavae import latents, load
from deltavae.latents import Latents

BY_BOXES = {"Grid", "Tree"}  # test_cli_boxes
OWN_PRIOR = {"GaussianMarkov", "MeanFieldPair"}  # a precision, a density: their own tests
PAIRS = sorted(
    name
    for name in latents.__all__
    if isinstance(pair := getattr(latents, name), type)
    and issubclass(pair, Latents)
    and not inspect.isabstract(pair)
    and name not in BY_BOXES | OWN_PRIOR
)


@pytest.fixture(scope="module", params=PAIRS)
def trained(request, data, tmp_path_factory):
    folder = tmp_path_factory.mktemp("pairs") / request.param
    rate = () if request.param in ("Standard", "LearnedPrior") else ("--delta-bits", "3")
    more = ("--latents.partials", "[0.5, -0.3]") if request.param == "ARp" else ()
    ended = fit(data, folder, "--latents", request.param, *rate, *more, "--no-report")
    assert ended.status == 0, ended.err
    return folder


def test_the_rate_stays_above_the_floor(trained):
    model = load(trained)
    with (trained / "log.csv").open() as file:
        rates = [float(row["rate_bits"]) for row in csv.DictReader(file)]
    metrics = json.loads((trained / "metrics.json").read_text())["test"]
    floor = metrics["committed_rate_bits"]
    assert len(rates) == 4
    assert min([*rates, metrics["rate_bits"]]) >= floor * (1 - 1e-6)
    if model.latents.floor == "mean" or model.latents.committed_rate == 0:
        assert floor == 0
    else:
        assert floor == pytest.approx(8.0 if "Quantised" in str(trained) else 3.0, rel=1e-6)
    assert metrics["mutual_information_bits"] <= metrics["mutual_information_cap_bits"]


def test_every_command_takes_the_run(trained, data, tmp_path):
    words = {
        "describe": (trained, "--json"),
        "encode": (trained, "--data", data, "--out", tmp_path / "codes.npz"),
        "sample": (trained, "--n", "2", "--out", tmp_path / "drawn.npz"),
        "report": (trained, "--out", tmp_path / "page.html"),
        "fit-prior": (trained, "--steps", "3"),
        "evaluate": (trained, "--importance-samples", "2"),
    }
    ended = {command: run(command, *rest) for command, rest in words.items()}
    failed = {command: end.err for command, end in ended.items() if end.status != 0}
    assert not failed
    arrays = np.load(tmp_path / "codes.npz")
    assert all(np.isfinite(arrays[name]).all() for name in arrays)
    fixed = run("sample", trained, "--n", "2", "--prior", "model", "--out", tmp_path / "fixed.npz")
    assert fixed.status == 0, fixed.err

"""What the studies' trainings are made of: length, annealing, the paper's recipes, the δ-VAE."""

import math
from pathlib import Path

import pytest
import torch
import yaml

from deltavae.cli.parsing import parse
from deltavae.cli.specified import specified_model
from deltavae.data import data_layout
from deltavae.run_folder import import_class, instantiate
from deltavae.studies import STUDIES
from deltavae.studies.arms import OURS, PLANS
from deltavae.studies.base import Result
from deltavae.studies.collapse import FOLLOWED, Collapse
from deltavae.studies.encoder_ablation import EncoderAblation
from deltavae.studies.latents_against_decoder import TUNING, LatentsAgainstDecoder
from deltavae.studies.methods import DELTA_VAE, PLAIN, rivals
from deltavae.studies.rate_distortion import RateDistortion, methods
from deltavae.studies.recipes import RECIPES, model_of, training_of
from deltavae.studies.settings import DATA, TARGETS, nets, steps, training
from deltavae.training import Validation, WeightAverage
from runs import tiny_data, tiny_specification

BUDGETS = ("smoke", "cpu", "paper")
FOLDER = Path(__file__).parents[2] / "configs" / "paper"


def specification(options, tmp_path):
    file = tmp_path / "cell.yaml"
    file.write_text(yaml.safe_dump(dict(options)))
    parsed = parse("fit", ["--config", str(file), "--run-dir", "r"])
    layout = data_layout(parsed["data"], size=parsed["size"])
    return parsed, specified_model(parsed, layout.shape, layout.levels)["init_args"]


def test_recipes_are_the_files_that_users_find():
    files = {path.stem: path for path in FOLDER.glob("*.yaml") if "table1" not in path.stem}
    assert set(files) == set(RECIPES)
    for name, path in files.items():
        assert yaml.safe_load(path.read_text()) == RECIPES[name], name
        assert model_of(name) | training_of(name) == RECIPES[name]
        assert not model_of(name).keys() & training_of(name).keys()


def test_encoder_ablation_trains_the_paper_s_models(tmp_path):
    """Model and training are those of the file, but for what is measured and the encoder."""
    own = {"holdout", "val_every", "compile", "importance_samples", "seed", "encoder"}
    cells = [cell for cell in EncoderAblation().cells("paper") if cell.labels["seed"] == 0]
    for cell, name in zip(cells[::2], RECIPES, strict=True):
        assert cell.labels["encoder"] == "anti-causal"
        _, ours = specification(cell.options, tmp_path)
        _, published = specification(RECIPES[name], tmp_path)
        assert ours == published
        kept = {option: value for option, value in cell.options.items() if option not in own}
        assert kept == {o: value for o, value in RECIPES[name].items() if o not in own}
    for causal, other in zip(cells[::2], cells[1::2], strict=True):
        differing = {o for o, value in other.options.items() if value != causal.options[o]}
        assert differing == {"encoder"}
        parts = causal.options["encoder"], other.options["encoder"]
        assert parts[0]["init_args"] == parts[1]["init_args"]
        assert [part["class_path"].rpartition(".")[2] for part in parts] == [
            "AntiCausalPixelSNAIL",
            "NonCausalPixelSNAIL",
        ]


@pytest.mark.parametrize("budget", BUDGETS)
def test_annealing_takes_its_share_of_the_steps(budget):
    data = DATA[budget][0]
    options = {**training(budget, data), **nets(budget)}
    images = data_layout(data, holdout=options["holdout"]).training_images
    total = max(1, round(options["epochs"] * (images // options["batch_size"])))
    assert steps(budget, data) == total  # as fit counts them
    found = {method.name: method.options for method in rivals(budget)}
    linear = instantiate(found["linear annealing"]["objective"])
    assert linear.steps == pytest.approx(0.15 * total, abs=0.5)
    cyclical = instantiate(found["cyclical annealing"]["objective"])
    assert cyclical.cycles == 4
    assert cyclical.cycles * cyclical.cycle_steps == pytest.approx(0.6 * total, abs=2)
    assert linear.beta(total // 5) == cyclical.beta(total * 2 // 3) == 1.0


@pytest.mark.parametrize("budget", BUDGETS)
def test_lagging_inference_gets_all_updates_of_the_decoder(budget):
    found = {method.name: method.options for method in rivals(budget)}
    lagging = found["lagging inference"]["lagging"]
    assert lagging["extra"]
    total = steps(budget, DATA[budget][0])
    assert 6 * lagging["check_every"] < total / 2  # the phase can end: five checks after the first


UNITS = ("minimiser_units", "innovations")


@pytest.mark.parametrize("budget", BUDGETS)
def test_plain_units_are_the_paper_s_and_differ_in_nothing_else(budget):
    ours, plain = (
        {method.target: method.options for method in methods(budget) if method.name == name}
        for name in (DELTA_VAE, PLAIN)
    )
    assert set(ours) == set(plain) == set(TARGETS[budget])
    for target, options in plain.items():
        assert options["latents"]["init_args"] == dict.fromkeys(UNITS, False)
        assert ours[target]["latents"]["init_args"] == dict.fromkeys(UNITS, True)
        assert {**options, "latents": ours[target]["latents"]} == ours[target]


def test_delta_vaes_of_the_paper_s_budget_have_its_ladder(tmp_path):
    cells = [cell for cell in RateDistortion().cells("paper") if cell.labels["seed"] == 0]
    alphas = {}
    for cell in cells:
        if cell.labels["method"] == DELTA_VAE:
            _, spec = specification(cell.options, tmp_path)
            latents = instantiate(spec["latents"])
            nats = cell.labels["target"] * math.log(2)
            assert latents.committed_rate == pytest.approx(nats)
            alphas[cell.labels["target"]] = latents.config()["alpha"]
    assert alphas[79.447] == pytest.approx([0.5 + 0.45 * k / 7 for k in range(8)], abs=1e-4)
    assert all(alpha == sorted(alpha) for alpha in alphas.values())


@pytest.mark.parametrize("budget", BUDGETS)
def test_what_the_studies_follow_is_measured_in_every_budget(budget):
    """Held-out images, and a measurement before the end; the columns are those of `Validation`."""
    for name in STUDIES:
        for cell in import_class(STUDIES[name].class_path)().cells(budget):
            assert cell.options["holdout"] > 0
            assert cell.options["val_every"] > 0
    for cell in Collapse().cells(budget):
        assert cell.options["val_every"] <= steps(budget, cell.labels["data"]) / 2
    data = tiny_data()
    measured = Validation(WeightAverage(), data.test).measure(instantiate(tiny_specification()))
    assert set(FOLLOWED) <= set(measured)


def test_a_learning_rate_that_was_not_measured_is_not_the_best():
    grid = PLANS["cpu"].grid
    low, second, high = grid[0], grid[1], grid[-1]
    cells = [c for c in LatentsAgainstDecoder().cells("cpu") if c.labels["role"] == TUNING]
    results = []
    for cell in cells:
        rate, ours = cell.labels["learning_rate"], cell.labels["arm"] == OURS
        log = {} if rate == low else {"val_distortion_bits": [100.0 * rate + 196.0, None]}
        log |= {"val_aux_rate_bits": [19.6, None]} if ours and rate == high else {}
        results.append(Result(cell, {"dims": 196}, log, {}, {}))
    table = LatentsAgainstDecoder().findings(results, "cpu").tables["tuning"]
    for row in table.rows:
        *bounds, best, _ = row[3:]
        if row[2] == OURS:
            assert bounds[:-1] == [None] * (len(grid) - 1)  # a distortion alone is no bound
            assert bounds[-1] == pytest.approx(1.1 + 100 * high / 196)
            assert best == f"{high:g}"
        else:
            assert bounds[0] is None
            assert bounds[1] == pytest.approx(1 + 100 * second / 196)
            assert best == f"{second:g}"
    assert "| – |" in table.markdown()


def test_the_paper_s_nets_are_those_of_its_recipe(tmp_path):
    cell = next(c for c in RateDistortion().cells("paper") if c.labels["method"] == PLAIN)
    _, spec = specification(cell.options, tmp_path)
    _, published = specification(RECIPES["l8-h128-a2-low"], tmp_path)
    for part in ("decoder", "encoder", "aux_prior"):
        assert spec[part] == published[part]
    with torch.device("meta"):
        assert instantiate(spec["decoder"]).event_shape == (3, 32, 32)

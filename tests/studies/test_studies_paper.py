"""The paper's studies: their cells are trainings that fit takes, their findings say what is so."""

import copy
import math
from dataclasses import replace

import pytest
import torch
import yaml

from deltavae.cli.parsing import parse
from deltavae.cli.specified import specified_model
from deltavae.data import data_layout
from deltavae.run_folder import import_class, instantiate
from deltavae.studies import STUDIES
from deltavae.studies.base import Result
from deltavae.studies.density import Density
from deltavae.studies.encoder_ablation import EncoderAblation
from deltavae.studies.information import ALONE, DEFAULT, Information
from deltavae.studies.latents_against_decoder import (
    OURS,
    PLANS,
    SAME_DECODER,
    SAME_WEIGHTS,
    SECONDS,
    LatentsAgainstDecoder,
)
from deltavae.studies.rate_distortion import RateDistortion

BUDGETS = ("smoke", "cpu", "paper")
CELLED = [name for name in STUDIES if name != "rate-vs-alpha"]


def study_of(name):
    return import_class(STUDIES[name].class_path)()


def specification(cell, tmp_path):
    file = tmp_path / "cell.yaml"
    file.write_text(yaml.safe_dump(dict(cell.options)))
    options = parse("fit", ["--config", str(file), "--run-dir", "r"])
    layout = data_layout(options["data"])
    shape = layout.shape
    if options["size"]:
        shape = (shape[0], options["size"], options["size"])
    return options, specified_model(options, shape, layout.levels)


@pytest.mark.parametrize("budget", BUDGETS)
@pytest.mark.parametrize("name", CELLED)
def test_every_cell_is_a_training_that_fit_takes(name, budget, tmp_path):
    cells = study_of(name).cells(budget)
    assert len({cell.name for cell in cells}) == len(cells) > 0
    first = [cell for cell in cells if cell.labels["seed"] == 0]
    assert len(first) < len(cells) or budget == "smoke"
    for cell in first:
        options, spec = specification(cell, tmp_path)
        assert options["seed"] == 0
        if options["objective"] is not None:
            instantiate(copy.deepcopy(options["objective"]))
        with torch.device("meta") if budget == "paper" else torch.device("cpu"):
            arguments = spec["init_args"]
            instantiate(arguments["decoder"])
            if "encoder" in arguments:
                instantiate(arguments["encoder"])
        if "latents" in arguments and "delta_bits" in cell.options:
            latents = instantiate(arguments["latents"])
            nats = cell.options["delta_bits"] * math.log(2)
            assert max(latents.committed_rate, latents.mean_rate_floor) == pytest.approx(nats)


@pytest.mark.parametrize("budget", BUDGETS)
def test_methods_share_nets_data_and_length(budget):
    own = {"latents", "delta_bits", "latent_channels", "objective", "lagging"}
    shared = [
        {name: value for name, value in cell.options.items() if name not in own}
        for cell in RateDistortion().cells(budget)
        if cell.labels["seed"] == 0
    ]
    assert all(options == shared[0] for options in shared)


@pytest.mark.parametrize("name", ["utilisation", "collapse"])
def test_cells_are_those_of_rate_distortion(name):
    for budget in BUDGETS:
        keys = {cell.key for cell in RateDistortion().cells(budget)}
        assert {cell.key for cell in study_of(name).cells(budget)} <= keys


def result(cell, **metrics):
    names = ("elbo_bpd", "aux_elbo_bpd", "aux_iwae_bpd", "rate_bits", "aux_rate_bits")
    more = ("mutual_information_bits", "distortion_bits", "active_units", "committed_rate_bits")
    values = dict.fromkeys((*names, *more)) | {"dims": 196} | metrics
    return Result(cell, values, {}, {}, {"train_seconds": 60.0})


def test_rate_distortion_compares_at_equal_auxiliary_rate():
    """The rival's line is distortion = 100 − 2·aux_rate, the δ-VAE lies 3 bits below it."""
    cells = [replace(c, labels=dict(c.labels)) for c in RateDistortion().cells("cpu")]
    results = []
    for cell in cells:
        method, target = cell.labels["method"], cell.labels["target"]
        if method not in ("δ-VAE", "free bits, per example"):
            continue
        noise = 0.1 * (cell.labels["seed"] - 1)
        rate = target / 2 if method == "δ-VAE" else 1.5 * target / 2
        distortion = 100 - 2 * rate + noise - (3.0 if method == "δ-VAE" else 0.0)
        figures = {"rate_bits": target + 1.0, "committed_rate_bits": target}
        figures |= {"aux_rate_bits": rate, "distortion_bits": distortion, "elbo_bpd": 1.0}
        figures |= {"mutual_information_bits": 1.0, "aux_elbo_bpd": 1.0, "active_units": 3.0}
        one = result(cell, **figures)
        results.append(replace(one, analysis={"train": one.metrics}))
    findings = RateDistortion().findings(results, "cpu")
    rows = findings.tables["at-equal-aux-rate"].rows
    reached = [row for row in rows if row[5] != "not reached"]
    assert len(reached) == 3  # the lowest rate of the δ-VAE is below all of the rival's
    for row in reached:
        assert row[4].value == pytest.approx(-3.0)
        assert row[5] == "below"
    targets = {row[0]: row for row in findings.tables["targets"].rows}
    assert targets["δ-VAE"][5] == 0
    assert targets["δ-VAE"][6] == pytest.approx(1.0)
    assert set(findings.figures) == {"rate-distortion", "train-and-test"}


def test_encoder_ablation_takes_differences_seed_by_seed():
    results = [
        result(
            cell,
            elbo_bpd=3.0 + cell.labels["seed"] - 0.1 * (cell.labels["encoder"] == "anti-causal"),
            aux_elbo_bpd=3.0,
            rate_bits=19.6,
            aux_rate_bits=9.8,
        )
        for cell in EncoderAblation().cells("cpu")
    ]
    findings = EncoderAblation().findings(results, "cpu")
    rows = [row for row in findings.tables["differences"].rows if row[0] == "AR(1) prior"]
    assert len(rows) == 4
    for row in rows:
        assert row[2].value == pytest.approx(-0.1)
        assert row[2].error == pytest.approx(0.0, abs=1e-12)
    assert "(0.100)" in findings.tables["bounds"].markdown()
    assert EncoderAblation().findings(results[:1], "cpu").tables["bounds"].rows


def test_density_compares_with_the_exact_figure_of_the_same_seed():
    results = []
    for cell in Density().cells("cpu"):
        alone = cell.labels["method"] == "decoder alone"
        figures = {"elbo_bpd": 3.0 + cell.labels["seed"] + (0.0 if alone else 0.2)}
        if not alone:
            figures |= {"aux_elbo_bpd": figures["elbo_bpd"] - 0.15, "aux_iwae_bpd": None}
        results.append(result(cell, **figures))
    findings = Density().findings(results, "cpu")
    assert "≤ 2.83" in findings.tables["printed-by-the-paper"].markdown()
    assert "2.83" not in findings.tables["measured"].markdown()
    assert set(findings.figures) == {"differences"}


def test_information_judges_against_the_default_and_the_decoder_alone():
    results = []
    for cell in Information().cells("cpu"):
        setting, seed = cell.labels["setting"], cell.labels["seed"]
        if setting == ALONE:
            results.append(result(cell, elbo_bpd=3.1 + seed))
            continue
        bound = 3.0 + seed - (0.0 if setting == DEFAULT else 0.05)
        figures = {"aux_elbo_bpd": bound, "mutual_information_bits": 4.0, "rate_bits": 11.0}
        results.append(result(cell, **figures, aux_rate_bits=5.0, elbo_bpd=9.0))
    for table in Information().findings(results, "cpu").tables.values():
        rows = {row[0]: row for row in table.rows}
        assert rows[DEFAULT][-1] is None
        assert rows[ALONE][-1].value == pytest.approx(0.1)
        assert rows["plain units"][-1].value == pytest.approx(-0.05)
        assert rows["plain units"][5] == pytest.approx(0.4)


@pytest.mark.parametrize("budget", BUDGETS)
def test_arms_have_equal_weights_and_equal_time(budget, tmp_path):
    study, plan = LatentsAgainstDecoder(), PLANS[budget]
    cells = [cell for cell in study.cells(budget) if cell.labels["seed"] == 0]
    arms = {(c.labels["data"], c.labels["depth"], c.labels["arm"]): c for c in cells}
    for (data, depth, arm), cell in arms.items():
        options, spec = specification(cell, tmp_path)
        with torch.device("meta"):
            model = {
                name: instantiate(part)
                for name, part in spec["init_args"].items()
                if name != "latents"
            }
        count = sum(p.numel() for part in model.values() for p in part.parameters())
        if arm == OURS:
            ours = count
        elif arm == SAME_WEIGHTS:
            assert count == pytest.approx(ours, rel=0.02)
        else:
            assert arm == SAME_DECODER
            assert count < ours
        images = data_layout(data, holdout=options["holdout"]).training_images
        steps = round(options["epochs"] * (images // options["batch_size"]))
        seconds = steps * SECONDS[data, depth][arm]
        assert seconds == pytest.approx(60.0 * plan.minutes, rel=0.05)


def test_latents_win_only_where_the_interval_excludes_zero():
    results = []
    for cell in LatentsAgainstDecoder().cells("cpu"):
        seed, arm, depth = (cell.labels[name] for name in ("seed", "arm", "depth"))
        figures = {"params": 1000, "aux_params": 10, "dims": 196, "elbo_bpd": 3.0 + 0.1 * seed}
        if arm == OURS:
            gain = {1: 0.1, 2: 0.005, 4: -0.05}[depth] + 0.001 * seed
            figures |= {"elbo_bpd": 9.0, "aux_elbo_bpd": 3.0 + 0.1 * seed - gain}
        one = result(cell, **figures)
        log = {"val_distortion_bits": [None, 500.0 + 1e4 * cell.labels["learning_rate"]]}
        results.append(replace(one, log=log, origin={"train_seconds": 60.0, "steps": 10}))
    tables = LatentsAgainstDecoder().findings(results, "cpu").tables
    verdicts = {(row[0], row[1], row[2]): row[-1] for row in tables["differences"].rows}
    assert verdicts["fashion_mnist", 1, SAME_WEIGHTS] == "the latents win"
    assert verdicts["fashion_mnist", 2, SAME_DECODER] == "the latents win by less than 0.02"
    assert verdicts["fashion_mnist", 4, SAME_WEIGHTS] == "the decoder wins"
    for row in tables["tuning"].rows:
        assert row[-2] == "0.002"
    for row in tables["differences"].rows:
        assert row[-2] == 2  # differences of standard deviation 0.0016 or less

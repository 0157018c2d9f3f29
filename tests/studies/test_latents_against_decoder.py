"""Latents against their decoder: level weights and time, declared bounds, honest verdicts."""

import statistics
from dataclasses import replace

import pytest
import torch

from deltavae.data import data_layout
from deltavae.run_folder import instantiate
from deltavae.studies.arms import (
    ARMS,
    FIT_SECONDS,
    OURS,
    PLANS,
    SAME_DECODER,
    SAME_WEIGHTS,
    SECONDS,
    learning_rate,
)
from deltavae.studies.latents_against_decoder import (
    BOUNDS,
    COMPARISON,
    PILOT,
    TUNING_SEED,
    LatentsAgainstDecoder,
)
from study_results import BUDGETS, result, specification


@pytest.mark.parametrize("budget", BUDGETS)
def test_arms_have_equal_weights_and_equal_time(budget, tmp_path):
    study, plan = LatentsAgainstDecoder(), PLANS[budget]
    cells = [c for c in study.cells(budget) if c.labels["role"] == COMPARISON]
    first = {(c.data, c.depth): c.seeds[0] for c in plan.comparisons}
    cells = [c for c in cells if c.labels["seed"] == first[c.labels["data"], c.labels["depth"]]]
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
        if arm == OURS:
            seconds += options["prior_steps"] * FIT_SECONDS[data]
        assert seconds == pytest.approx(60.0 * plan.minutes, rel=0.05)


@pytest.mark.parametrize("data", ["fashion_mnist", "cifar10"])
def test_arms_of_a_seed_begin_with_the_same_decoder(data, tmp_path):
    found = {}
    for cell in LatentsAgainstDecoder().cells("cpu"):
        which = {name: cell.labels.get(name) for name in ("role", "data", "seed", "depth")}
        if which == {"role": COMPARISON, "data": data, "seed": 0, "depth": 2}:
            torch.manual_seed(0)
            model = instantiate(specification(cell, tmp_path)[1])
            found[cell.labels["arm"]] = model.decoder.state_dict()
    ours, zero = found[OURS], found[SAME_DECODER]
    assert set(zero) == set(ours)
    for name, weight in zero.items():
        assert torch.equal(weight, ours[name])


@pytest.mark.parametrize("budget", BUDGETS)
def test_every_learning_rate_is_of_the_grid_of_its_budget(budget):
    plan = PLANS[budget]
    for of in plan.comparisons:
        rates = {learning_rate(budget, of.data, of.depth, arm) for arm in ARMS}
        assert rates <= set(plan.grid)


@pytest.mark.parametrize("budget", BUDGETS)
def test_a_comparison_s_seeds_are_no_pilots_and_not_that_of_the_tuning(budget):
    of_data = {}
    for of in PLANS[budget].comparisons:
        assert set(of.seeds).isdisjoint(of.pilots)
        assert TUNING_SEED not in (*of.seeds, *of.pilots)
        of_data.setdefault(of.data, of)
    assert all(first.bound for first in of_data.values())
    cells = LatentsAgainstDecoder().cells(budget)
    for role, arms in ((PILOT, 2), (COMPARISON, 3)):
        for of in PLANS[budget].comparisons:
            which = {"role": role, "data": of.data, "depth": of.depth}
            seeds = [c.labels["seed"] for c in cells if which.items() <= c.labels.items()]
            assert sorted(seeds) == sorted(arms * [*(of.pilots if role == PILOT else of.seeds)])


def test_declared_importance_samples_are_those_of_the_comparison_alone():
    samples = {}
    for cell in LatentsAgainstDecoder().cells("cpu"):
        which = cell.labels["data"], cell.labels["depth"], cell.labels["role"], cell.labels["arm"]
        samples.setdefault(which, set()).add(cell.options["importance_samples"])
    assert samples.pop(("fashion_mnist", 1, COMPARISON, OURS)) == {64}
    assert set().union(*samples.values()) == {4}


def test_latents_win_only_where_the_interval_excludes_zero():
    results = []
    for cell in LatentsAgainstDecoder().cells("cpu"):
        seed, arm = cell.labels["seed"], cell.labels["arm"]
        depth = cell.labels["depth"]
        figures = {"params": 1000, "aux_params": 10, "dims": 196, "elbo_bpd": 3.0 + 0.1 * seed}
        if arm == OURS:
            gains = {("fashion_mnist", 1): 0.1, ("fashion_mnist", 2): 0.005}
            gain = gains.get((cell.labels["data"], depth), -0.05) + 0.001 * seed
            figures |= {"elbo_bpd": 9.0, "aux_elbo_bpd": 3.0 + 0.1 * seed - gain}
            figures["aux_iwae_bpd"] = figures["aux_elbo_bpd"] - 0.01
        one = result(cell, **figures)
        worse = 1e4 * cell.labels.get("learning_rate", 0.0)
        log = {"val_distortion_bits": [None, 500.0 + worse]}
        if arm == OURS:
            log["val_aux_rate_bits"] = [None, 5.0]
        results.append(replace(one, log=log, origin={"train_seconds": 60.0, "steps": 10}))
    findings = LatentsAgainstDecoder().findings(results, "cpu")
    tables = findings.tables
    verdicts = {tuple(row[:4]): row[-1] for row in tables["differences"].rows}
    draws = tables["arms"].columns.index("draws")
    shown = {tuple(row[:3]): row[draws] for row in tables["arms"].rows}
    assert [shown["fashion_mnist", 1, arm] for arm in ARMS] == [64, None, None]
    assert shown["fashion_mnist", 2, OURS] == 4
    elbo = BOUNDS["aux_elbo_bpd"]
    assert verdicts["fashion_mnist", 1, SAME_WEIGHTS, elbo] == "the latents win"
    little = "the latents win by less than 0.02"
    assert verdicts["fashion_mnist", 2, SAME_DECODER, elbo] == little
    assert verdicts["cifar10", 2, SAME_WEIGHTS, elbo] == "the decoder wins"
    for row in tables["tuning"].rows:
        assert row[-2] == f"{PLANS['cpu'].grid[0]:g}"
    declared = [c for c in PLANS["cpu"].comparisons if c.bound]
    for row, of in zip(tables["power"].rows, declared, strict=True):
        sd = 0.001 * statistics.stdev(of.pilots)
        assert row[:3] == [of.data, of.depth, BOUNDS[of.bound]]
        assert row[3:6] == [len(of.pilots), pytest.approx(sd), 2]
        assert row[7] > 0.99
    answers = (
        f"**fashion_mnist**, 2 layers, {elbo} against same weights: {little} (-0.0075",
        f"**fashion_mnist**, 1 layer, {BOUNDS['aux_iwae_bpd']} against same weights: the latents",
        f"**cifar10**, 2 layers, {elbo} against same weights: the decoder wins",
    )
    assert findings.text.startswith(answers[0])
    assert all(answer in findings.text for answer in answers)
    assert "cifar10**, 1 layer" not in findings.text  # not declared

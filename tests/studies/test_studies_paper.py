"""The paper's studies: their cells are trainings that fit takes, their findings say what is so."""

import copy
import math
import statistics
from collections import Counter
from dataclasses import replace

import pytest
import torch
import yaml

from deltavae.cli.parsing import parse
from deltavae.cli.specified import specified_model
from deltavae.configuration import WITHOUT_LATENTS
from deltavae.data import data_layout
from deltavae.rates import committed_rate
from deltavae.run_folder import import_class, instantiate
from deltavae.studies import STUDIES
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
from deltavae.studies.base import Result
from deltavae.studies.collapse import Collapse
from deltavae.studies.density import Density
from deltavae.studies.encoder_ablation import EncoderAblation
from deltavae.studies.equal_rate import abscissa
from deltavae.studies.information import Information
from deltavae.studies.information_settings import (
    ALONE,
    ZERO,
    again,
    default,
    reference,
    settings,
)
from deltavae.studies.latents_against_decoder import (
    BOUNDS,
    COMPARISON,
    PILOT,
    TUNING_SEED,
    LatentsAgainstDecoder,
)
from deltavae.studies.pairs import RATE, REFERENCE, Pairs
from deltavae.studies.rate_distortion import RateDistortion
from deltavae.studies.settings import DATA
from deltavae.studies.statistics import mean
from deltavae.units import nats_to_bits

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
    own = {"latents", "delta_bits", "latent_channels", "alpha", "objective", "lagging"}
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
        cells = study_of(name).cells(budget)
        assert {cell.key for cell in cells} <= keys
        assert not [cell.name for cell in cells if cell.options["latents"] in WITHOUT_LATENTS]


def result(cell, **metrics):
    names = ("elbo_bpd", "aux_elbo_bpd", "aux_iwae_bpd", "rate_bits", "aux_rate_bits")
    more = ("mutual_information_bits", "distortion_bits", "active_units", "committed_rate_bits")
    values = dict.fromkeys((*names, *more)) | {"dims": 196, "params": 1000, "aux_params": 10}
    return Result(cell, values | metrics, {}, {}, {"train_seconds": 60.0})


def trained(cell, rate, distortion, **metrics):
    """A result of rate-distortion: its aux_rate is a half of its rate."""
    figures = {"rate_bits": rate, "aux_rate_bits": rate / 2, "distortion_bits": distortion}
    figures |= {"elbo_bpd": 1.0, "aux_elbo_bpd": 1.0, "mutual_information_bits": rate / 4}
    figures |= {"active_units": 3.0, "committed_rate_bits": 0.0}
    one = result(cell, **figures | {"mutual_information_cap_bits": 13.3} | metrics)
    return replace(one, analysis={"train": one.metrics})


def on_lines(methods, seeds=3):
    """Results on distortion = 100 − 2·aux_rate; the δ-VAE lies 3 bits below it."""
    results = []
    for cell in RateDistortion().cells("cpu"):
        method, target, seed = (cell.labels[name] for name in ("method", "target", "seed"))
        if method not in methods or seed >= seeds:
            continue
        noise = 7.0 * (seed - 1)  # of the seed: methods share it
        if method == "z = 0":
            alone = {"rate_bits": None, "aux_rate_bits": None, "mutual_information_bits": None}
            results.append(trained(cell, 0.0, 100.0 + noise, **alone, committed_rate_bits=None))
        elif method == "δ-VAE":
            own = noise + 0.01 * (seed == 0) - 3.0
            delta = {"committed_rate_bits": target}
            results.append(trained(cell, target + 1, 100 - (target + 1) + own, **delta))
        else:
            rate = 1.5 * (target or 1.0)
            results.append(trained(cell, rate, 100 - rate + noise))
    return results


def rows_of(table):
    return {tuple(row[:2]): dict(zip(table.columns, row, strict=True)) for row in table.rows}


def test_rate_distortion_compares_at_equal_auxiliary_rate_seed_by_seed():
    findings = RateDistortion().findings(on_lines(("δ-VAE", "free bits, per example")), "cpu")
    rows = rows_of(findings.tables["at-equal-aux-rate"])
    assert [target for target, _ in rows] == ["5 bits", "10 bits", "20 bits"]
    lowest = rows.pop(("5 bits", "free bits, per example"))  # below all of the rival's
    assert (lowest["difference"], lowest["seeds"], lowest["δ-VAE is"]) == (None, 0, None)
    for row in rows.values():
        assert row["difference"].value == pytest.approx(-3.0, abs=0.01)
        assert row["difference"].error < 0.01  # what the seeds share is taken out
        assert row["δ-VAE"].error > 1.0
        assert row["from"] < row["difference"].value < row["to"]
        assert row["seeds"] == 3
        single = mean([-3.0, -3.0, -2.99]).p_value
        assert row["p (Holm)"] == pytest.approx(2 * single)  # of two tests
        assert row["δ-VAE is"] == "below"
    rows = rows_of(findings.tables["at-the-rivals-points"])
    assert rows["10 bits", "free bits, per example"]["aux rate, bits"].value == 7.5
    for target in ("5 bits", "10 bits"):
        row = rows[target, "free bits, per example"]
        assert row["difference"].value == pytest.approx(-3.0, abs=0.01)
    assert rows["20 bits", "free bits, per example"]["difference"] is None
    assert set(findings.figures) == {"rate-distortion", "train-and-test"}


def test_one_seed_is_never_level():
    findings = RateDistortion().findings(on_lines(("δ-VAE", "ControlVAE"), seeds=1), "cpu")
    for name in ("at-equal-aux-rate", "at-the-rivals-points"):
        rows = rows_of(findings.tables[name]).values()
        assert any(row["difference"] is not None for row in rows)
        assert all(row["δ-VAE is"] is None for row in rows)
        assert "level" not in findings.tables[name].csv()
    for row in rows_of(findings.tables["targets"]).values():
        assert row["sd over seeds, bits"] is None


def test_decoder_alone_anchors_every_line():
    methods = ("z = 0", "δ-VAE", "free bits, per example", "VAE", "β-VAE")
    results = on_lines(methods)
    rows = rows_of(RateDistortion().findings(results, "cpu").tables["at-equal-aux-rate"])
    # From 100 at aux_rate 0 the rival's line is straight: now the lowest point is reached too.
    assert rows["5 bits", "free bits, per example"]["difference"].value == pytest.approx(
        -3.0, 0.01
    )
    assert ("5 bits", "VAE") not in rows
    rows = rows_of(RateDistortion().findings(results, "cpu").tables["at-the-rivals-points"])
    # At aux_rate 0.75 the δ-VAE's line is 97 − 2x at x = 3 and 100 at 0.
    assert rows[None, "VAE"]["difference"].value == pytest.approx(-3.0 * 0.75 / 3.0, abs=0.01)


def test_plain_vae_lies_on_the_line_of_the_beta_vae():
    results = []
    for cell in RateDistortion().cells("cpu"):
        if cell.labels["method"] == "δ-VAE" and cell.labels["target"] == 10.0:
            results.append(trained(cell, 4.0, 90.0 + cell.labels["seed"]))
        if cell.labels["method"] == "VAE":
            results.append(trained(cell, 2.0, 95.0))
        if cell.labels["method"] == "β-VAE" and cell.labels["target"] == 0.6:
            results.append(trained(cell, 6.0, 87.0))
    rows = rows_of(RateDistortion().findings(results, "cpu").tables["at-equal-aux-rate"])
    assert list(rows) == [("10 bits", "β-VAE")]
    assert rows["10 bits", "β-VAE"]["rival's"].value == pytest.approx(91.0)  # between the two
    assert rows["10 bits", "β-VAE"]["δ-VAE is"] == "level"


def test_learned_prior_is_compared_at_the_lesser_of_its_two_rates():
    cells = RateDistortion().cells("cpu")
    learned = next(cell for cell in cells if cell.labels["method"] == "β-VAE, LSTM prior")
    plain = next(cell for cell in cells if cell.labels["method"] == "β-VAE")
    for cell, expected in ((learned, 8.0), (plain, 9.0)):
        assert abscissa(trained(cell, 8.0, 90.0, aux_rate_bits=9.0)) == expected
        assert abscissa(trained(cell, 8.0, 90.0, aux_rate_bits=7.0)) == 7.0
        assert abscissa(trained(cell, 8.0, 90.0), name="rate_bits") == 8.0


def test_targets_are_aims_or_floors():
    methods = ("z = 0", "δ-VAE", "ControlVAE", "free bits, per example", "VAE")
    results = on_lines(methods)
    norm = next(c for c in RateDistortion().cells("cpu") if c.labels["method"].startswith("batch"))
    results.append(trained(norm, 7.0, 90.0, mean_rate_floor_bits=5.0))
    rows = rows_of(RateDistortion().findings(results, "cpu").tables["targets"])
    miss, above = "mean |rate/T − 1|", "least rate − floor, bits"
    for target in ("5 bits", "10 bits", "20 bits"):
        for method in ("ControlVAE", "free bits, per example"):
            assert rows[method, target][miss].value == pytest.approx(0.5)
            assert rows[method, target][above] is rows[method, target]["floor holds for"] is None
        ours = rows["δ-VAE", target]
        assert (ours[miss], ours["floor holds for"]) == (None, "each image")
        assert ours[above] == pytest.approx(1.0)
        assert ours["mean rate, bits"] == ours["least, bits"] == ours["most, bits"]
        assert ours["sd over seeds, bits"] == pytest.approx(0.0)
    assert rows[norm.labels["method"], "5 bits"][above] == pytest.approx(2.0)
    assert rows[norm.labels["method"], "5 bits"]["floor holds for"] == "the mean"
    assert ("VAE", None) in rows
    assert ("z = 0", None) not in rows


def test_every_training_has_a_row_with_what_the_auxiliary_prior_wins_back():
    results = on_lines(("z = 0", "δ-VAE", "VAE"))
    results[0] = replace(
        results[0], metrics={**results[0].metrics, "mutual_information_bits": 13.1}
    )
    table = RateDistortion().findings(results, "cpu").tables["trainings"]
    assert len(table.rows) == len(results)
    for row, one in zip(table.rows, results, strict=True):
        shown = dict(zip(table.columns, row, strict=True))
        assert (shown["weights"], shown["training, min"]) == (1010, 1.0)
        delta = one.metrics["committed_rate_bits"]
        if not delta:
            assert shown["(rate − aux rate)/δ"] is shown["δ, bits"] is None
            continue
        rate = one.metrics["rate_bits"]
        assert shown["(rate − aux rate)/δ"] == pytest.approx(rate / 2 / delta)
        said = one.metrics["mutual_information_bits"]
        assert shown["aux rate − I, bits"] == pytest.approx(rate / 2 - said)
        assert shown["cap of I, bits"] == 13.3
    assert table.rows[0][7] == "≥ 13.1 (saturated)"


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
        alone = cell.labels["method"] == "z = 0"
        figures = {"elbo_bpd": 3.0 + cell.labels["seed"] + (0.0 if alone else 0.2)}
        if not alone:
            figures |= {"aux_elbo_bpd": figures["elbo_bpd"] - 0.15, "aux_iwae_bpd": None}
        results.append(result(cell, **figures))
    findings = Density().findings(results, "cpu")
    assert "≤ 2.83" in findings.tables["printed-by-the-paper"].markdown()
    assert "2.83" not in findings.tables["measured"].markdown()
    assert set(findings.figures) == {"differences"}


def information_results(gain):
    """Settings are better than their reference by `gain` on held-out images, by half on test."""
    results = []
    for cell in Information().cells("cpu"):
        seed, setting = cell.labels["seed"], cell.labels["setting"]
        level = 10.0 * ("dropout" in cell.labels["decoder"]) + seed + 0.001 * seed**2
        own = 0.0 if setting == reference("cpu") else gain + 0.0001 * seed
        bounds = [3.0 + level - own, 3.0 + level - own / 2]
        if setting in (ALONE, ZERO):
            one = result(cell, elbo_bpd=bounds[1])
            results.append(replace(one, val={"elbo_bpd": bounds[0]}))
            continue
        figures = {"aux_elbo_bpd": bounds[1], "mutual_information_bits": 4.0, "rate_bits": 11.0}
        one = result(cell, **figures, aux_rate_bits=5.0, elbo_bpd=9.0)
        results.append(replace(one, val={"aux_elbo_bpd": bounds[0], "elbo_bpd": 9.0}))
    return results


def test_information_is_judged_on_held_out_images_within_a_kind_of_decoder():
    findings = Information().findings(information_results(0.5), "cpu")
    for table, count in zip(findings.tables.values(), (3, 1), strict=True):
        rows = rows_of(table)
        kinds = dict.fromkeys(kind for kind, _ in rows)
        assert len(kinds) == count
        for kind in kinds:
            assert rows[kind, reference("cpu")]["difference, held out"] is None
            alone = rows[kind, ALONE]
            assert alone["difference, held out"].value == pytest.approx(-0.5, abs=1e-3)
            assert alone["difference, test"].value == pytest.approx(-0.25, abs=1e-3)
        tried = [row for (_, setting), row in rows.items() if setting != reference("cpu")]
        fewest = [row for row in tried if row["seeds"] == 3]
        largest = mean([0.5, 0.5001, 0.5002]).p_value
        assert fewest[0]["p (Holm)"] == pytest.approx(len(fewest) * largest, rel=1e-6)
        assert {row["verdict"] for row in tried} == {"better"}
        to_default = rows["GatedPixelCNN", reference("cpu")]["− default"].value
        assert to_default == pytest.approx(0.5, abs=1e-3)
        assert rows["GatedPixelCNN", "2 channels, innovations"]["− default"] is None
        assert rows["GatedPixelCNN", ALONE]["− default"].value == pytest.approx(0, abs=1e-3)
        assert rows["GatedPixelCNN", "plain units"]["I/δ ≥"] == pytest.approx(0.4)
    assert "worse: none." in findings.text
    assert "I(x;z) ≥ 0.25 δ: 4 channels (GatedPixelCNN)" in findings.text
    assert "I(x;z) ≥ 0.5 δ: none." in findings.text


def test_information_without_held_out_images_is_judged_on_test_and_says_so():
    results = [replace(one, val={}) for one in information_results(-0.5)]
    findings = Information().findings(results, "cpu")
    for table in findings.tables.values():
        tried = [row for (_, name), row in rows_of(table).items() if name != reference("cpu")]
        assert {row["verdict"] for row in tried} == {"worse"}
        assert all(row["held out"] is None for row in tried)
        assert "none were held out" in table.caption
    assert "judged on test images" in findings.text
    one_seed = [one for one in results if one.cell.labels["seed"] == 0]
    assert "no verdict" in Information().findings(one_seed, "cpu").text


def test_the_numbers_of_channels_have_twice_the_seeds_on_cifar():
    counts = Counter(
        (cell.labels["data"], cell.labels["decoder"], cell.labels["setting"])
        for cell in Information().cells("cpu")
    )
    assert {which for which, count in counts.items() if count == 6} == again("cpu")
    assert set(counts.values()) == {3, 6}
    assert {setting for _, _, setting in again("cpu")} == {
        ALONE,
        ZERO,
        "1 channel",
        "2 channels",
        "2 channels, plain units",
        "2 channels, innovations",
        "2 channels, innovations, plain units",
        "4 channels",
        "8 channels",
        "4 channels, ladder",
    }


@pytest.mark.parametrize("budget", BUDGETS)
def test_the_default_of_fit_is_tried(budget):
    for data in DATA[budget]:
        tried = {setting for _, setting in settings(budget, data)}
        assert default(budget, data) in tried


@pytest.mark.parametrize("budget", BUDGETS)
def test_every_kind_of_decoder_has_its_reference_and_stands_alone(budget):
    cells = [cell for cell in Information().cells(budget) if cell.labels["seed"] == 0]
    assert len({cell.key for cell in cells}) == len(cells)  # no setting is another one's copy
    for kind in {cell.labels["decoder"] for cell in cells}:
        for data in {cell.labels["data"] for cell in cells}:
            of_kind = {
                cell.labels["setting"]: cell.options["decoder"]
                for cell in cells
                if (cell.labels["decoder"], cell.labels["data"]) == (kind, data)
            }
            if of_kind:
                assert of_kind[reference(budget)] == of_kind[ALONE]


@pytest.fixture(scope="module")
def collapse():
    """Findings of made-up courses, and of linear VAEs that are trained."""
    log = {"step": [250.0, 500.0], "val_rate_bits": [1.0, 2.0], "val_active_units": [3.0, None]}
    log["val_mutual_information_bits"] = [0.5, 1.0]
    results = [replace(result(cell), log=log) for cell in Collapse().cells("cpu")]
    return Collapse().findings(results, "smoke")


def test_courses_are_named_by_target_and_show_the_cap(collapse):
    cells = Collapse().cells("cpu")
    betas = {cell.labels["target"] for cell in cells if cell.labels["method"] == "β-VAE"}
    assert betas == {0.03, 0.6}  # a small and a large one
    figure = collapse.figures["training"]
    names = [text.get_text() for text in figure.legends[0].get_texts()]
    assert {"β-VAE, 0.03 β", "β-VAE, 0.6 β", "δ-VAE, 10 bits", "VAE", "cap"} <= set(names)
    information = next(ax for ax in figure.axes if ax.get_title().startswith("I(x;z)"))
    (cap,) = [line for line in information.lines if line.get_label() == "cap"]
    assert cap.get_ydata()[0] == pytest.approx(math.log2(1000))
    assert "3 seeds" in collapse.text


def test_a_committed_rate_keeps_what_collapses_without_it(collapse):
    table = collapse.tables["committed-rate"]
    below, above = (dict(zip(table.columns, row, strict=True)) for row in table.rows)
    threshold = "threshold of λ_1/σ²"
    assert below["λ_1/σ²"] < below[threshold] < above["λ_1/σ²"] < 1.0
    assert below["I(x;z), bits"] == pytest.approx(0.0, abs=1e-5)
    assert below["−ELBO above the optimum, bits"] == pytest.approx(below["δ, bits"], abs=1e-5)
    assert above["I(x;z), bits"] > 1.0
    assert 0.0 < above["−ELBO above the optimum, bits"] < above["δ, bits"] - 0.1
    assert above["δ, bits"] == pytest.approx(nats_to_bits(committed_rate([0.8], 16)))


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


def test_pairs_are_compared_with_ar1_seed_by_seed_on_held_out_images():
    gains = {"grid": 0.3, "tree": -0.2, "z = 0": 0.1}
    results = []
    for cell in Pairs().cells("cpu"):
        pair, seed = cell.labels["pair"], cell.labels["seed"]
        bound = 3.0 + seed - gains.get(pair, 0.0) + 0.001 * seed * (pair != REFERENCE)
        figures = {"elbo_bpd": bound, "committed_rate_bits": 0.0, "distortion_bits": 600.0}
        if pair != "z = 0":
            spent = {"tree": 0.5}.get(pair, 5.0)
            figures |= {"distortion_bits": 596.0 + seed / 10, "aux_rate_bits": spent}
            floor = 0.0 if pair.startswith("batch") else RATE["cpu"]
            figures |= {"aux_elbo_bpd": bound + 0.5, "committed_rate_bits": floor}
            figures |= {"mutual_information_bits": 7.0, "mutual_information_cap_bits": 13.3}
        held_out = dict.fromkeys(("elbo_bpd", "aux_elbo_bpd"), bound)
        results.append(replace(result(cell, **figures), val=held_out))
    findings = Pairs().findings(results, "cpu")
    table = findings.tables["pairs"]
    rows = {row[0]: dict(zip(table.columns, row, strict=True)) for row in table.rows}
    assert rows[REFERENCE]["− AR(1)"] is rows[REFERENCE]["verdict"] is None
    for pair, gain in gains.items():
        assert rows[pair]["− AR(1)"].value == pytest.approx(0.001 - gain)
        assert rows[pair]["verdict"] == ("worse" if gain < 0 else "better")
    assert rows["quantised"]["verdict"] == "level"
    assert rows["grid"]["saved, bits"].value == pytest.approx(3.9)
    assert rows["grid"]["saved per aux bit"] == pytest.approx(3.9 / 5)
    assert rows["tree"]["saved per aux bit"] is rows["z = 0"]["saved, bits"] is None
    assert rows["grid"]["I/δ ≥"] == pytest.approx(0.5)
    assert rows["batch-normalised μ"]["I/δ ≥"] is rows["z = 0"]["I/δ ≥"] is None
    assert rows["z = 0"]["auxiliary bound"].value == pytest.approx(3.0 + 1 - 0.1 + 0.001)
    assert rows["tree"]["auxiliary bound"].value == pytest.approx(3.5 + 1 + 0.2 + 0.001)
    assert set(findings.figures) == {"pairs"}
    assert Pairs().findings(results[:1], "cpu").tables["pairs"].rows


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

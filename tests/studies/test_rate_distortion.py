"""Rate against distortion: the same nets for all, compared at equal rates and seeds."""

from dataclasses import replace

import pytest

from deltavae.studies.equal_rate import abscissa
from deltavae.studies.rate_distortion import RateDistortion
from deltavae.studies.statistics import mean
from study_results import BUDGETS, result, rows_of


@pytest.mark.parametrize("budget", BUDGETS)
def test_methods_share_nets_data_and_length(budget):
    own = {"latents", "delta_bits", "latent_channels", "alpha", "objective", "lagging"}
    shared = [
        {name: value for name, value in cell.options.items() if name not in own}
        for cell in RateDistortion().cells(budget)
        if cell.labels["seed"] == 0
    ]
    assert all(options == shared[0] for options in shared)


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

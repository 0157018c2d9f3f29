"""What tables share, on made-up results."""

import pytest

from deltavae.studies.base import Cell, Result
from deltavae.studies.statistics import mean, paired_difference
from deltavae.studies.summaries import (
    asked,
    by_seed,
    cap,
    cost,
    difference,
    information,
    metric,
    spread,
    verdicts,
)


def results(*values, cap=13.0, **more):
    return [
        Result(
            Cell(f"c{seed}", {"seed": seed}, {"seed": seed}),
            {"mutual_information_bits": value, "mutual_information_cap_bits": cap, **more},
            {},
            {"train": {"mutual_information_bits": 7.0}},
            {"train_seconds": 60.0 * seed},
            val={"mutual_information_bits": 2 * value} if value is not None else {},
        )
        for seed, value in enumerate(values)
    ]


def test_metrics_of_every_split():
    found = results(1.0, 3.0)
    assert metric(found, "mutual_information_bits").value == 2.0
    assert metric(found, "mutual_information_bits", "val").value == 4.0
    assert metric(found, "mutual_information_bits", "train").value == 7.0
    assert metric(found, "not there") is None
    assert metric(results(1.0, None), "mutual_information_bits") is None  # no mean of a part
    assert metric([], "mutual_information_bits") is None
    assert by_seed(results(1.0, None, 3.0), "mutual_information_bits") == {0: 1.0, 2: 3.0}


def test_differences_are_taken_over_the_seeds_that_both_have():
    found = difference({0: 1.0, 2: 5.0, 7: 3.0}, {2: 4.0, 7: 2.5, 9: 0.0})
    assert found == paired_difference([5.0, 3.0], [4.0, 2.5])
    assert difference({0: 1.0}, {1: 1.0}) is None


def test_verdicts_are_corrected_over_what_can_be_tested():
    clear, weak = mean([-1.0, -1.01, -0.99]), mean([0.10, 0.11, 0.14])
    alone = verdicts([weak], "better", "worse")
    assert (alone[0].p, alone[0].text) == (pytest.approx(weak.p_value), "worse")
    found = verdicts([weak, None, clear, mean([5.0]), weak, weak, weak, weak], "better", "worse")
    assert [one.text for one in found[:4]] == ["level", None, "better", None]
    assert found[0].p == pytest.approx(5 * weak.p_value)  # Holm's: the clear one comes first
    assert found[2].p == pytest.approx(6 * clear.p_value)
    assert found[3].p is None


def test_information_at_its_cap_is_said_to_be_saturated():
    assert information(results(12.0, 12.4)).value == pytest.approx(12.2)
    assert information(results(12.0, 12.6)) == "≥ 12.3 (saturated)"
    assert information(results(12.0, cap=None)).value == 12.0
    assert information(results(None)) is None
    assert cap(results(1.0)) == 13.0
    assert cap(results(1.0, cap=None)) is None


def test_cost_counts_all_weights_and_means_the_time():
    assert cost(results(1.0, 1.0, params=100, aux_params=11)) == [111, 0.5]


def test_what_was_asked_for_and_how_it_spread():
    assert asked(79.447, "bits") == "79.447 bits"
    assert asked(None, "") is None
    assert spread(mean([1.0, 3.0])) == pytest.approx(2**0.5)
    assert spread(mean([1.0])) is None

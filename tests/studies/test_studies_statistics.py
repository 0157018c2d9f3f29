"""Statistics of seeds against closed forms, tabulated values and Monte Carlo."""

import math

import numpy as np
import pytest
from scipy import stats

from deltavae.studies.statistics import (
    holm,
    interpolate,
    mean,
    paired_difference,
    paired_power,
    seeds_needed,
)


def test_mean_is_student_s():
    # s² = 10/4, standard error √(2.5/5), and t of 4 degrees of freedom at 0.975 is 2.776445.
    found = mean([1.0, 2.0, 3.0, 4.0, 5.0])
    assert (found.value, found.count) == (3.0, 5)
    assert found.error == pytest.approx(math.sqrt(0.5), rel=1e-12)
    assert found.high - found.value == pytest.approx(2.776445 * math.sqrt(0.5), rel=1e-6)
    assert found.value - found.low == pytest.approx(found.high - found.value, rel=1e-12)


def test_mean_of_one_value_has_no_error():
    found = mean([2.5])
    assert (found.value, found.count) == (2.5, 1)
    assert math.isnan(found.error)
    assert math.isnan(found.low)
    assert not found.excludes_zero


def test_intervals_cover_the_truth_as_often_as_they_say():
    rng = np.random.default_rng(0)
    draws = 1500
    hits = [
        found.low <= 1.0 <= found.high
        for found in (mean(list(x), level=0.2) for x in rng.normal(1.0, 2.0, (draws, 4)))
    ]
    assert np.mean(hits) == pytest.approx(0.8, abs=4 * math.sqrt(0.16 / draws))


def test_paired_difference_takes_out_what_the_pairs_share():
    rng = np.random.default_rng(1)
    shared, gain = rng.normal(0.0, 100.0, 6), rng.normal(0.5, 0.1, 6)
    found = paired_difference(list(shared + gain), list(shared))
    assert found.value == pytest.approx(gain.mean(), rel=1e-9)
    test = stats.ttest_rel(shared + gain, shared)
    assert found.value / found.error == pytest.approx(test.statistic, rel=1e-9)
    low, high = test.confidence_interval(0.95)
    assert (found.low, found.high) == pytest.approx((low, high), rel=1e-9)
    assert found.excludes_zero
    assert not paired_difference([1.0, -1.0], [0.0, 0.0]).excludes_zero


@pytest.mark.parametrize(
    ("effect", "power", "pairs"),
    # Cohen's d of paired differences, two-sided 5 %: the figures that G*Power prints.
    [(0.5, 0.8, 34), (0.8, 0.8, 15), (0.2, 0.8, 199), (0.5, 0.95, 54), (1.0, 0.8, 10)],
)
def test_seeds_needed_are_the_tabulated_ones(effect, power, pairs):
    assert seeds_needed(sd=1.0, effect=effect, power=power) == pairs
    assert seeds_needed(sd=3.0, effect=-3.0 * effect, power=power) == pairs  # their ratio counts
    assert paired_power(pairs, 1.0, effect) >= power > paired_power(pairs - 1, 1.0, effect)


def test_seeds_needed_is_at_least_a_pair():
    assert seeds_needed(sd=1.0, effect=1000.0) == 2


def test_power_is_how_often_the_test_sees_the_effect():
    rng = np.random.default_rng(2)
    draws = 1500
    seen = [mean(list(x)).excludes_zero for x in rng.normal(0.9, 1.2, (draws, 8))]
    told = paired_power(8, sd=1.2, effect=0.9)
    assert np.mean(seen) == pytest.approx(told, abs=4 * math.sqrt(0.25 / draws))
    assert paired_power(8, sd=1.2, effect=0.0) == pytest.approx(0.05, rel=1e-9)


@pytest.mark.parametrize("values", [[1.2, 0.4, 0.9], [-3.0, -2.0], [0.1, -0.1, 0.3, 0.0, 2.0]])
def test_p_value_is_that_of_the_t_test(values):
    expected = stats.ttest_1samp(values, 0.0).pvalue
    assert mean(values).p_value == pytest.approx(expected, rel=1e-9)
    assert (mean(values).p_value < 0.05) == mean(values).excludes_zero


def test_p_value_at_the_edges():
    assert math.isnan(mean([1.0]).p_value)  # one seed tells nothing
    assert mean([2.0, 2.0]).p_value == 0.0
    assert mean([0.0, 0.0]).p_value == 1.0


def test_interpolation_is_linear_and_exact_at_the_points():
    x, y = [3.0, 1.0, 2.0], [30.0, 10.0, 40.0]
    assert interpolate(1.5, x, y) == pytest.approx(25.0)
    assert interpolate(2.25, x, y) == pytest.approx(37.5)
    assert [interpolate(at, x, y) for at in x] == y
    assert interpolate(1.5, [2.0, 1.0, 2.0], [30.0, 10.0, 50.0]) == pytest.approx(25.0)  # a mean


def test_interpolation_never_extrapolates():
    x, y = [1.0, 2.0], [1.0, 2.0]
    assert interpolate(0.999, x, y) is None
    assert interpolate(2.001, x, y) is None
    assert interpolate(1.5, [1.0], [1.0]) is None
    assert interpolate(1.0, [], []) is None


def test_holm_by_hand():
    # Sorted 0.005, 0.01, 0.03, 0.04 times 4, 3, 2, 1, then never falling.
    assert holm([0.01, 0.04, 0.03, 0.005]) == pytest.approx([0.03, 0.06, 0.06, 0.02])
    assert holm([0.9, 0.8]) == [1.0, 1.0]
    assert holm([]) == []


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: mean([]), "values must not be empty"),
        (lambda: mean([1.0], level=1.0), "level must lie in"),
        (lambda: paired_difference([1.0], [1.0, 2.0]), "a and b must be pairs, got 1 and 2"),
        (lambda: paired_power(1, 1.0, 1.0), "seeds must be at least 2, got 1"),
        (lambda: seeds_needed(0.0, 1.0), "sd must be positive"),
        (lambda: seeds_needed(1.0, 0.0), "effect must be finite and not 0"),
        (lambda: seeds_needed(1.0, 1.0, power=1.0), "power must lie in"),
        (lambda: interpolate(0.0, [1.0], []), "x and y must be coordinates"),
        (lambda: holm([0.5, 1.5]), "p_values must lie in"),
    ],
)
def test_arguments_out_of_range_are_named(call, message):
    with pytest.raises(ValueError, match=message):
        call()

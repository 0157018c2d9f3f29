"""Statistics of seeds against closed forms, tabulated values and Monte Carlo."""

import math
from itertools import combinations

import numpy as np
import pytest
from scipy import stats

from deltavae.studies.statistics import (
    Interval,
    holm,
    interpolate,
    mean,
    paired_difference,
    paired_power,
    permutation_test,
    seeds_needed,
)


def point(value: float, error: float = 0.0, count: int = 3) -> Interval:
    return Interval(value, error, value - error, value + error, count)


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


def test_interpolation_is_linear_and_exact_at_the_points():
    x, y = [point(3.0), point(1.0), point(2.0)], [point(30.0), point(10.0, 0.5), point(40.0)]
    assert interpolate(1.5, x, y).value == pytest.approx(25.0)
    assert interpolate(2.25, x, y).value == pytest.approx(37.5)
    at_a_point = interpolate(1.0, x, y)
    assert (at_a_point.value, at_a_point.error) == pytest.approx((10.0, 0.5))
    assert at_a_point.high - at_a_point.low == pytest.approx(2 * 1.959964 * 0.5, rel=1e-6)
    assert at_a_point.count == 6


def test_interpolation_never_extrapolates():
    x, y = [point(1.0), point(2.0)], [point(1.0), point(2.0)]
    assert interpolate(0.999, x, y) is None
    assert interpolate(2.001, x, y) is None
    assert interpolate(1.0, x[:1], y[:1]) is None
    assert interpolate(1.5, [point(1.5), point(1.5)], y) is None


def test_interpolation_s_error_is_that_of_redrawn_points():
    rng = np.random.default_rng(3)
    x, y = [point(10.0, 0.2), point(14.0, 0.3)], [point(500.0, 1.0), point(480.0, 2.0)]
    draws = np.array(
        [
            np.interp(11.0, *([rng.normal(v.value, v.error) for v in c] for c in (x, y)))
            for _ in range(20_000)
        ]
    )
    told = interpolate(11.0, x, y)
    assert told.value == pytest.approx(495.0)
    assert draws.mean() == pytest.approx(told.value, abs=0.05)
    assert draws.std() == pytest.approx(told.error, rel=0.03)


def test_small_permutation_tests_are_exact():
    a, b = [3.1, 4.7, 5.2], [1.0, 2.2, 0.4, 2.9]
    pooled = np.array([*a, *b])
    differences = []
    for chosen in combinations(range(7), 3):
        inside = np.isin(np.arange(7), chosen)
        differences.append(pooled[inside].mean() - pooled[~inside].mean())
    seen = np.mean(a) - np.mean(b)
    unused = np.random.default_rng(0)
    two_sided = np.mean(np.abs(differences) >= abs(seen) - 1e-12)
    assert permutation_test(a, b, unused) == pytest.approx(two_sided)
    assert permutation_test(b, a, unused) == pytest.approx(two_sided)
    greater = permutation_test(a, b, unused, alternative="greater")
    assert greater == pytest.approx(1 / 35)  # the labelling seen is the most extreme of all
    assert permutation_test(b, a, unused, alternative="greater") == pytest.approx(1.0)


def test_drawn_permutations_count_the_labelling_seen():
    a, b = list(np.arange(20.0) + 100.0), list(np.arange(20.0))
    p = permutation_test(a, b, np.random.default_rng(0), resamples=199)
    assert p == pytest.approx(1 / 200)
    again = permutation_test(a, b, np.random.default_rng(0), resamples=199)
    assert p == again


def test_permutation_p_values_are_uniform_where_labels_do_not_matter():
    rng = np.random.default_rng(4)
    p = [
        permutation_test(*rng.normal(size=(2, 12)).tolist(), rng, resamples=99) for _ in range(400)
    ]
    assert np.mean(np.array(p) <= 0.1) == pytest.approx(0.1, abs=4 * math.sqrt(0.09 / 400))
    assert np.mean(p) == pytest.approx(0.505, abs=4 * math.sqrt(1 / 12 / 400))


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
        (lambda: interpolate(0.0, [point(1.0)], []), "x and y must be coordinates"),
        (lambda: permutation_test([], [1.0], np.random.default_rng(0)), "must not be empty"),
        (
            lambda: permutation_test([1.0], [1.0], np.random.default_rng(0), resamples=0),
            "resamples must be at least 1",
        ),
        (lambda: holm([0.5, 1.5]), "p_values must lie in"),
    ],
)
def test_arguments_out_of_range_are_named(call, message):
    with pytest.raises(ValueError, match=message):
        call()

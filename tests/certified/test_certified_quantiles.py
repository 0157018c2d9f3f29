"""The table of the quantile transform against closed-form quantiles."""

import math

import numpy as np
import pytest
import torch
from scipy.special import log_ndtr, ndtr
from scipy.stats import cauchy, kstest, laplace, logistic, norm, t

from deltavae.certified import from_noise, spread, tabulate_quantiles

CASES = {
    "laplace": laplace(),
    "logistic": logistic(),
    "cauchy": cauchy(),
    "student": t(3.5),
    "far": norm(300.0, 0.5),
    "wide": norm(-2.0, 4000.0),
    "narrow": logistic(0.1, 1e-4),
}


def log_prob_of(frozen):
    return lambda x: torch.from_numpy(np.asarray(frozen.logpdf(x.numpy())))


@pytest.mark.parametrize("name", CASES)
def test_quantiles_of_the_table(name):
    frozen = CASES[name]
    table = tabulate_quantiles(log_prob_of(frozen))
    noise = torch.linspace(-6, 6, 2001, dtype=torch.float64)
    drawn = from_noise(noise, table).numpy()
    assert (np.diff(drawn) > 0).all()
    # ln of the tail's mass, on both sides: relative to itself, out to 1e-9
    e = noise.numpy()
    below = frozen.logcdf(drawn) - log_ndtr(e)
    above = frozen.logsf(drawn) - log_ndtr(-e)
    assert np.abs(below[e <= 0]).max() < 5e-4
    assert np.abs(above[e >= 0]).max() < 5e-4
    middle = np.abs(e) < 2
    assert np.abs(frozen.cdf(drawn) - ndtr(e))[middle].max() < 2e-6
    median, scale = spread(table)
    assert median == pytest.approx(frozen.median(), abs=1e-5 * scale, rel=1e-6)
    assert scale == pytest.approx(
        (frozen.ppf(0.75) - frozen.ppf(0.25)) / (2 * norm.ppf(0.75)), rel=1e-4
    )


def test_draws_in_float32_pass_kolmogorov_smirnov():
    table = tabulate_quantiles(log_prob_of(CASES["student"]))
    noise = torch.randn(50, 80, generator=torch.Generator().manual_seed(2))
    drawn = from_noise(noise, table)
    assert (drawn.shape, drawn.dtype) == (noise.shape, torch.float32)
    assert kstest(drawn.flatten().numpy(), CASES["student"].cdf).pvalue > 1e-3
    ends = from_noise(torch.tensor([-9.0, -8.0, 8.0, 30.0]), table)
    assert ends.tolist() == table.float()[[0, 0, -1, -1]].tolist()


def test_what_is_no_density_is_refused():
    with pytest.raises(ValueError, match=r"log_prob must be normalised: .* is 0\.5"):
        tabulate_quantiles(lambda x: log_prob_of(norm())(x) - math.log(2))
    with pytest.raises(ValueError, match="log_prob must be a number or -inf everywhere"):
        tabulate_quantiles(lambda x: torch.log(x))
    with pytest.raises(ValueError, match="log_prob must be that of a density with mass near 0"):
        tabulate_quantiles(lambda x: torch.full_like(x, -math.inf))

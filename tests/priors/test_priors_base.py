"""What all Gaussian priors have in common: one linear map, from which everything is read."""

import copy
import math
import pickle
import time
import tracemalloc
from functools import partial

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch.utils._python_dispatch import TorchDispatchMode

from deltavae.priors import (
    Autoregressive,
    Grid,
    Matern,
    SparseGaussian,
    SquaredExponential,
    Tree,
)
from deltavae.units import bits_to_nats
from dense_gaussian import matrix_of


def second_difference(n: int) -> SparseGaussian:
    """Smooth and tied down a little: precision εI + D₂ᵀD₂."""
    return SparseGaussian(
        [(t + k, t, value) for k, value in enumerate((6.3, -4.0, 1.0)) for t in range(n - k)]
    )


def grid(n: int, across: int = 3) -> Grid:
    return Grid(Autoregressive(n // across, [0.8, 0.1]), Matern(across, 4.0, 1.5))


MAKERS = {
    "ar1": partial(Autoregressive, partials=[0.9]),
    "ar3": partial(Autoregressive, partials=[0.8, -0.5, 0.3]),
    "matern12": partial(Matern, length=6.0, nu=0.5),
    "matern32": partial(Matern, length=5.0, nu=1.5),
    "matern52": partial(Matern, length=4.0, nu=2.5),
    "squared": partial(SquaredExponential, length=3.0, jitter=1e-3),
    "grid": grid,
    "tree": partial(Tree, correlation=0.8, branching=3),
    "sparse": second_difference,
}
every_prior = pytest.mark.parametrize("make", MAKERS.values(), ids=MAKERS)


@every_prior
@pytest.mark.parametrize("n", [3, 6, 33, 66])
def test_everything_is_read_from_the_map_in_use(make, n):
    prior = make(n)
    whitening, colouring = matrix_of(prior.whiten, n), matrix_of(prior.colour, n)
    precision = whitening.T @ whitening
    np.testing.assert_allclose(prior.diagonal, precision.diagonal(), rtol=1e-11)
    sign, log_det = np.linalg.slogdet(precision)
    assert sign == 1
    assert prior.log_det == pytest.approx(log_det, rel=1e-11, abs=1e-10)
    delta = 0.5 * (np.log(precision.diagonal()).sum() - log_det)
    assert prior.committed_rate == pytest.approx(delta, rel=1e-10)
    np.testing.assert_allclose(colouring @ whitening, np.eye(n), atol=1e-11)
    np.testing.assert_allclose(
        (colouring @ colouring.T).diagonal(), prior.marginal_variance, rtol=1e-11
    )


@every_prior
def test_whitening_is_causal_in_its_order(make):
    n = 12
    whitening = matrix_of(make(n).whiten, n)
    assert (np.triu(whitening, 1) == 0).all()
    np.testing.assert_allclose(whitening.diagonal() ** -2, make(n).innovation_variance, rtol=1e-12)


@every_prior
def test_log_density_agrees_with_torch(make):
    n = 9
    prior = make(n)
    colouring = torch.from_numpy(matrix_of(prior.colour, n).copy())
    reference = torch.distributions.MultivariateNormal(
        torch.zeros(n, dtype=torch.float64), colouring @ colouring.T
    )
    x = torch.randn(4, 2, n, dtype=torch.float64, generator=torch.Generator().manual_seed(1))
    torch.testing.assert_close(prior.log_prob(x), reference.log_prob(x), rtol=1e-9, atol=1e-9)


@every_prior
def test_gradients(make):
    prior = make(9)
    x = torch.randn(2, 9, dtype=torch.float64, generator=torch.Generator().manual_seed(2))
    x.requires_grad_()
    assert torch.autograd.gradcheck(prior.whiten, x)
    assert torch.autograd.gradcheck(prior.colour, x)
    assert torch.autograd.gradgradcheck(lambda z: prior.whiten(z).square(), x)


@every_prior
def test_batches_channels_and_types(make):
    prior = make(9)
    x = torch.randn(2, 3, 4, 9, dtype=torch.float64, generator=torch.Generator().manual_seed(3))
    for function in (prior.whiten, prior.colour):
        together = function(x)
        assert together.shape == x.shape
        torch.testing.assert_close(together[1, 2, 3], function(x[1, 2, 3]), rtol=0, atol=1e-13)
        turned = function(x.transpose(0, 2).contiguous().transpose(0, 2))
        torch.testing.assert_close(turned, together, rtol=0, atol=1e-13)
        for dtype in (torch.float32, torch.bfloat16):
            rounded = function(x.to(dtype))
            assert rounded.dtype == dtype
            # In float64 within: only the result is rounded.
            assert torch.equal(rounded, function(x.to(dtype).double()).to(dtype))
        assert function(x[:0]).shape == (0, 3, 4, 9)
    with pytest.raises(ValueError, match="n=9"):
        prior.whiten(x[..., :8])
    with pytest.raises(ValueError, match="n=9"):
        prior.colour(x[..., :1])


@every_prior
def test_a_copy_computes_the_same(make):
    prior = make(9)
    x = torch.randn(9, dtype=torch.float64, generator=torch.Generator().manual_seed(4))
    for other in (make(9), copy.deepcopy(prior), pickle.loads(pickle.dumps(prior))):
        assert other.committed_rate == prior.committed_rate
        assert str(other) == str(prior)
        assert torch.equal(other.whiten(x), prior.whiten(x))
        assert torch.equal(other.colour(x), prior.colour(x))


@every_prior
def test_constants_first_used_in_inference_mode_serve_training(make):
    prior = make(9)
    with torch.inference_mode():
        prior.colour(prior.whiten(torch.ones(9)))
    x = torch.ones(9, requires_grad=True)
    prior.colour(prior.whiten(x).square()).sum().backward()
    assert x.grad is not None


FROM_RATE = {
    "ar1": partial(Autoregressive.from_rate, n=1200, partials=[0.5]),
    "ar1-negative": partial(Autoregressive.from_rate, n=1200, partials=[-0.5]),
    "ar2": partial(Autoregressive.from_rate, n=400, partials=[0.7, -0.4]),
    "ar2-slow": partial(Autoregressive.from_rate, n=1200, partials=[0.4, 0.4]),
    "matern12": partial(Matern.from_rate, n=1200, nu=0.5),
    "matern32": partial(Matern.from_rate, n=400, nu=1.5),
    "matern52": partial(Matern.from_rate, n=400, nu=2.5),
    "squared": partial(SquaredExponential.from_rate, n=400, jitter=1e-4),
    "grid": partial(Grid.from_rate, rows=24, columns=20),
    "tree": partial(Tree.from_rate, n=1500, branching=3),
    "sparse": partial(
        SparseGaussian.from_rate,
        precision=second_difference(1200).entries,
    ),
}


@pytest.mark.parametrize("from_rate", FROM_RATE.values(), ids=FROM_RATE)
@pytest.mark.parametrize("bits", [5.0, 50.0, 500.0])
def test_every_rate_that_is_asked_for_is_met(from_rate, bits):
    assert from_rate(bits_to_nats(bits)).committed_rate == pytest.approx(
        bits_to_nats(bits), rel=1e-9
    )


@pytest.mark.parametrize("from_rate", FROM_RATE.values(), ids=FROM_RATE)
def test_a_rate_out_of_reach_is_an_error_that_names_the_most(from_rate):
    with pytest.raises(ValueError, match=r"steps commit at most .* nats with"):
        from_rate(1e6)
    for delta in (0.0, -1.0, math.inf, math.nan):
        with pytest.raises(ValueError, match="positive and finite"):
            from_rate(delta)


@given(delta=st.floats(1e-3, 10.0), seed=st.integers(0, 100))
@settings(max_examples=8, deadline=None)
@pytest.mark.parametrize("name", ["ar2", "matern52", "squared", "tree"])
def test_no_mean_field_gaussian_costs_less(name, delta, seed):
    prior = FROM_RATE[name](delta, n=80)
    generator = torch.Generator().manual_seed(seed)
    mu, g = torch.randn(2, 50, prior.n, dtype=torch.float64, generator=generator)
    mu, g = mu * torch.logspace(-6, 0, 50)[:, None], g * torch.logspace(-6, 0, 50)[:, None]
    variance = (prior.conditional_scale * g.exp()) ** 2
    # ½ [tr ΛV + μᵀΛμ − n − ln det Λ − ln det V], the textbook's form
    kl = 0.5 * (
        (prior.diagonal * variance - 1 - variance.log()).sum(-1)
        + prior.whiten(mu).square().sum(-1)
        - prior.log_det
    )
    assert float(kl.min()) >= delta - 1e-9 * (1 + delta)
    assert float(kl.min()) == pytest.approx(delta, abs=1e-6 * prior.n)


class Sizes(TorchDispatchMode):
    """Remembers the largest tensor that any operation returned."""

    largest = 0

    def __torch_dispatch__(self, function, types, args=(), kwargs=None):
        result = function(*args, **(kwargs or {}))
        for tensor in result if isinstance(result, tuple | list) else (result,):
            if isinstance(tensor, torch.Tensor):
                self.largest = max(self.largest, tensor.numel())
        return result


@every_prior
def test_nothing_of_size_n_squared_is_ever_made(make):
    def use(n: int) -> None:
        x = torch.randn(2, n, generator=torch.Generator().manual_seed(5)).requires_grad_()
        prior = make(n)
        prior.colour(prior.whiten(x)).square().sum().backward()
        assert x.grad is not None

    n = 6144
    with Sizes():
        use(3)  # imports what torch imports late
    tracemalloc.start()
    try:
        with Sizes() as sizes:
            use(n)
        _, peak = tracemalloc.get_traced_memory()  # of what numpy and scipy allocate
    finally:
        tracemalloc.stop()
    assert 2 * n <= sizes.largest <= 70 * n < n**2 / 80
    assert peak < 3000 * n < n**2 * 8 / 16


@every_prior
def test_cost_is_linear_up_to_65536_steps(make):
    def seconds(n: int) -> float:
        prior = make(n)
        x = torch.randn(1, n, generator=torch.Generator().manual_seed(6)).requires_grad_()
        start = time.process_time()
        prior.colour(prior.whiten(x)).square().sum().backward()
        make(n)
        return time.process_time() - start

    small = min(seconds(8190) for _ in range(3))
    large = min(seconds(65532) for _ in range(2))  # 8 times as many; 64 times if quadratic
    assert large < 24 * small + 0.1
    assert large < 5


@pytest.mark.parametrize("name", [name for name in MAKERS if name != "tree"])
def test_away_from_the_ends_every_step_commits_the_same(name):
    first, second, third = (MAKERS[name](n).committed_rate for n in (600, 1200, 1800))
    assert third - second == pytest.approx(second - first, rel=1e-10)

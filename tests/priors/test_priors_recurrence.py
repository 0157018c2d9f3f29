"""Odd–even reduction against the recurrence as it is written."""

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from deltavae.priors.recurrence import LinearRecurrence


@given(n=st.integers(0, 70), k=st.integers(1, 80), m=st.integers(1, 4), seed=st.integers(0, 2**31))
@settings(max_examples=80, deadline=None)
def test_it_is_the_loop(n, k, m, seed):
    rng = np.random.default_rng(seed)
    transitions = rng.normal(size=(k, m, m)) / (2 * m)
    inputs = rng.normal(size=(2, n, m))
    state, expected = np.zeros((2, m)), np.empty_like(inputs)
    for t in range(n):
        state = state @ transitions[min(t, k - 1)].T + inputs[:, t]
        expected[:, t] = state
    solved = LinearRecurrence(transitions, n).solve(torch.from_numpy(inputs))
    largest = np.abs(expected).max(initial=1)  # sums of this size cancel to the smaller ones
    np.testing.assert_allclose(solved, expected, rtol=0, atol=1e-13 * largest)


@pytest.mark.parametrize("n", [1, 2, 1000, 65536])
def test_a_constant_matrix_takes_log_n_products(n):
    recurrence = LinearRecurrence(np.array([[[0.5]]]), n)
    assert len(recurrence._levels) == n.bit_length() - 1
    ones = torch.ones(n, 1, dtype=torch.float64)
    expected = 2 - 0.5 ** torch.arange(n, dtype=torch.float64)  # 1 + ½ + ¼ + …
    torch.testing.assert_close(recurrence.solve(ones)[:, 0], expected, rtol=1e-15, atol=0)

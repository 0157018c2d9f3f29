"""Counter-based noise: a function of (seed, step, index) with a normal's moments."""

import numpy as np
import scipy.stats
import torch

from deltavae.noise import counter_coin, counter_normal

INDEX = torch.arange(4000)


def test_noise_depends_on_nothing_but_seed_step_and_index():
    noise = counter_normal(3, 7, INDEX, (2, 3))
    shuffled = torch.randperm(len(INDEX), generator=torch.Generator().manual_seed(0))
    assert torch.equal(counter_normal(3, 7, INDEX[shuffled], (2, 3)), noise[shuffled])
    assert torch.equal(counter_normal(3, 7, INDEX[5:6], (2, 3)), noise[5:6])
    for other in (counter_normal(4, 7, INDEX, (2, 3)), counter_normal(3, 8, INDEX, (2, 3))):
        assert abs(np.corrcoef(other.flatten(), noise.flatten())[0, 1]) < 0.03


def test_noise_is_standard_normal_and_uncorrelated():
    noise = counter_normal(0, 11, INDEX, (50,))
    # Kolmogorov-Smirnov on 200,000 values; a p-value below 1e-3 comes by chance once in 1,000.
    assert scipy.stats.kstest(noise.flatten().numpy(), "norm").pvalue > 1e-3
    across = torch.corrcoef(noise.T) - torch.eye(50)
    assert across.abs().max() < 0.09  # 5.7 standard errors of a correlation of 4,000 pairs
    steps = torch.stack([counter_normal(0, s, INDEX[:1], (8,))[0] for s in range(2000)])
    assert (torch.corrcoef(steps.T) - torch.eye(8)).abs().max() < 0.12  # over successive steps


def test_noise_is_the_same_for_ever():
    golden = [-0.951373, -0.006364675, -0.8978692, -0.1404254]
    noise = counter_normal(1, 2, torch.tensor([0, 123_456]), (2,)).flatten()
    np.testing.assert_allclose(noise, golden, rtol=1e-5)


def test_coins_depend_on_nothing_but_seed_step_and_index():
    coins = counter_coin(3, 7, INDEX)
    shuffled = torch.randperm(len(INDEX), generator=torch.Generator().manual_seed(0))
    assert torch.equal(counter_coin(3, 7, INDEX[shuffled]), coins[shuffled])
    for other in (counter_coin(4, 7, INDEX), counter_coin(3, 8, INDEX)):
        # 2,000 of 4,000 agree by chance; 150 are 4.7 standard errors.
        assert abs((other == coins).sum().item() - 2000) < 150


def test_coins_are_fair_and_independent_of_the_noise():
    coins = torch.stack([counter_coin(0, step, INDEX) for step in range(100)])  # (steps, examples)
    heads, total = int(coins.sum()), coins.numel()
    assert scipy.stats.binomtest(heads, total).pvalue > 1e-3  # by chance once in 1,000
    across = np.corrcoef(coins[:, :50].T.numpy())
    assert np.abs(across - np.eye(50)).max() < 0.5  # five standard errors of 100 pairs
    signs = counter_normal(0, 5, INDEX, (8,)) > 0
    agreeing = (signs == coins[5][:, None]).double().mean(0)
    assert (agreeing - 0.5).abs().max() < 0.04  # five standard errors of 4,000 pairs


def test_coins_are_the_same_for_ever():
    coins = [counter_coin(1, step, torch.arange(8)).int().tolist() for step in (0, 1)]
    assert coins == [[1, 0, 0, 0, 1, 1, 0, 1], [0, 1, 0, 0, 0, 1, 0, 1]]

"""Nats, bits, bits/dim."""

import math

import pytest
import torch

from deltavae.units import bits_to_nats, nats_to_bits, nats_to_bpd


def test_one_bit_is_ln_2_nats_and_back():
    assert bits_to_nats(1.0) == math.log(2)
    assert nats_to_bits(bits_to_nats(79.447)) == pytest.approx(79.447, rel=1e-15)
    assert nats_to_bits(torch.tensor([0.0, math.log(8)])).tolist() == pytest.approx([0, 3])


def test_uniform_over_256_levels_costs_8_bits_per_dimension():
    assert nats_to_bpd(784 * math.log(256), 784) == pytest.approx(8.0, rel=1e-14)
    with pytest.raises(ValueError, match="dims must be at least 1, got 0"):
        nats_to_bpd(1.0, 0)

"""A decoder that reads latents and is given none reads zeros: same layers, no information."""

import pytest
import torch

from deltavae.decoders import GatedPixelCNN, PixelSNAIL
from deltavae.likelihoods import Categorical

SHAPE, STEPS, CHANNELS = (1, 5, 4), 5, 3


@pytest.mark.parametrize("kind", [GatedPixelCNN, PixelSNAIL])
def test_attention_reads_zeros_where_no_latents_are_given(kind):
    torch.manual_seed(0)
    likelihood = Categorical(1, 5)
    decoder = kind(SHAPE, likelihood, (STEPS, CHANNELS), channels=8, layers=3).double()
    x = torch.randint(0, 5, (2, *SHAPE), dtype=torch.uint8)
    zeros = torch.zeros(2, STEPS, CHANNELS, dtype=torch.float64)
    expected = decoder(x, zeros).detach()
    assert torch.equal(decoder(x, None), expected)
    assert not torch.equal(decoder(x, zeros + 1.0), expected)
    state, previous, found = decoder.init_state(None, len(x)), None, []
    for values in decoder.to_sequence(x).unbind(1):
        params, state = decoder.step(state, previous)
        found.append(params)
        previous = values
    torch.testing.assert_close(torch.stack(found, 1), expected, rtol=1e-10, atol=1e-10)

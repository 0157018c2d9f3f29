"""Which rows each latent step sees, by changing every pixel."""

import pytest
import torch

from deltavae.encoders import (
    AntiCausalEncoder,
    AntiCausalPixelSNAIL,
    NonCausalEncoder,
    NonCausalPixelSNAIL,
)
from deltavae.encoders.image import with_mean_from_here_on

SHAPE = (2, 6, 5)
LEVELS = 7


def influence(encoder: torch.nn.Module) -> torch.Tensor:
    """True at (t, r) where a pixel of row r changes the output of step t: exact comparison."""
    generator = torch.Generator().manual_seed(0)
    x = torch.randint(0, LEVELS, (1, *SHAPE), generator=generator, dtype=torch.uint8)
    pixels = [(c, r, k) for c in range(SHAPE[0]) for r in range(SHAPE[1]) for k in range(SHAPE[2])]
    changed = x.repeat(len(pixels), 1, 1, 1)
    for i, (c, r, k) in enumerate(pixels):
        changed[i, c, r, k] = (int(changed[i, c, r, k]) + 3) % LEVELS
    same = encoder(torch.cat([x] * len(pixels)))
    moved = (encoder(changed) != same).any(dim=2)  # (pixel, t)
    seen = torch.zeros(SHAPE[1], SHAPE[1], dtype=torch.int)
    for i, (_, r, _) in enumerate(pixels):
        seen[:, r] += moved[i].int()
    assert ((seen == 0) | (seen == SHAPE[0] * SHAPE[2])).all()  # all pixels of a row, or none
    return seen > 0


@pytest.mark.parametrize("seed", range(3))
def test_anti_causal_latent_sees_its_own_row_and_all_later_ones_only(seed):
    torch.manual_seed(seed)
    encoder = AntiCausalEncoder(SHAPE, LEVELS, 4, channels=6, layers=3, kernel_size=5).double()
    assert torch.equal(influence(encoder), torch.ones(6, 6).triu().bool())


@pytest.mark.parametrize("seed", range(3))
def test_with_a_summary_one_layer_sees_all_later_rows_and_no_earlier_one(seed):
    torch.manual_seed(seed)
    sizes = {"channels": 6, "layers": 1, "kernel_size": 3}
    near = AntiCausalEncoder(SHAPE, LEVELS, 4, **sizes).double()
    assert torch.equal(influence(near), torch.ones(6, 6).triu().tril(3).bool())
    far = AntiCausalEncoder(SHAPE, LEVELS, 4, summary=True, **sizes).double()
    assert torch.equal(influence(far), torch.ones(6, 6).triu().bool())


def test_a_summary_is_the_mean_over_the_steps_from_here_on():
    means = torch.randn(2, 5, 3, dtype=torch.float64)
    expected = torch.stack([means[:, t:].mean(1) for t in range(5)], dim=1)
    found = with_mean_from_here_on(means)
    torch.testing.assert_close(found, torch.cat([means, expected], dim=2))


@pytest.mark.parametrize("seed", range(3))
def test_anti_causal_pixelsnail_sees_its_own_row_and_through_attention_all_later_ones(seed):
    torch.manual_seed(seed)
    sizes = {"channels": 8, "layers": 2, "attention_layers": 1}
    encoder = AntiCausalPixelSNAIL(SHAPE, LEVELS, 4, **sizes).double()
    assert torch.equal(influence(encoder), torch.ones(6, 6).triu().bool())


def test_anti_causal_pixelsnail_without_attention_sees_as_far_as_its_kernels_reach():
    torch.manual_seed(0)
    encoder = AntiCausalPixelSNAIL(SHAPE, LEVELS, 4, channels=8, layers=1).double()
    reach = 4  # its own row, one of the embedding, two of the layer
    assert torch.equal(influence(encoder), torch.ones(6, 6).triu().tril(reach - 1).bool())


@pytest.mark.parametrize(
    ("cls", "sizes"),
    [
        (NonCausalEncoder, {"channels": 6, "kernel_size": 3}),
        (NonCausalPixelSNAIL, {"channels": 8}),
        (NonCausalPixelSNAIL, {"channels": 8, "attention_layers": 1}),
    ],
)
def test_non_causal_latent_sees_the_whole_image(cls, sizes):
    torch.manual_seed(0)
    assert influence(cls(SHAPE, LEVELS, 4, layers=1, **sizes).double()).all()


@pytest.mark.parametrize(
    "cls", [AntiCausalEncoder, NonCausalEncoder, AntiCausalPixelSNAIL, NonCausalPixelSNAIL]
)
def test_every_parameter_gets_a_gradient_and_one_step_per_row_comes_out(cls):
    torch.manual_seed(0)
    encoder = cls(SHAPE, LEVELS, 4, channels=8, layers=2)
    out = encoder(torch.randint(0, LEVELS, (3, *SHAPE), dtype=torch.uint8))
    assert out.shape == (3, 6, 4)
    out.square().sum().backward()
    for name, parameter in encoder.named_parameters():
        # Of the last layer the vertical stack is read through the link only.
        assert parameter.grad is not None, name
        assert parameter.grad.abs().sum() > 0, name


@pytest.mark.parametrize("cls", [AntiCausalEncoder, NonCausalEncoder])
def test_checkpointing_changes_no_gradient(cls):
    x = torch.randint(0, LEVELS, (3, *SHAPE), dtype=torch.uint8)
    gradients = []
    for checkpointing in (False, True):
        torch.manual_seed(0)
        encoder = cls(SHAPE, LEVELS, 4, channels=6, layers=3, checkpointing=checkpointing)
        calls = []
        layers = encoder.stack.layers if cls is AntiCausalEncoder else encoder.layers
        layers[1].register_forward_pre_hook(lambda *_, calls=calls: calls.append(1))
        encoder.double()(x).square().sum().backward()
        assert len(calls) == 1 + checkpointing
        gradients.append([p.grad for p in encoder.parameters()])
    for plain, again in zip(*gradients, strict=True):
        torch.testing.assert_close(plain, again, rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize("cls", [AntiCausalEncoder, NonCausalEncoder])
def test_features_have_their_channels_last_in_memory(cls):
    encoder = cls(SHAPE, LEVELS, 4, channels=6, layers=2)
    layers = encoder.stack.layers if cls is AntiCausalEncoder else encoder.layers
    seen = []
    layers[1].register_forward_hook(lambda _, inputs, output: seen.extend(inputs))
    encoder(torch.randint(0, LEVELS, (3, *SHAPE), dtype=torch.uint8))
    assert seen
    assert all(h.is_contiguous(memory_format=torch.channels_last) for h in seen)

"""PixelSNAIL's causality in pixels and latents; its caches are tested in test_sampling.py."""

import pytest
import torch

from deltavae.decoders import PixelSNAIL
from deltavae.likelihoods import DiscretisedLogisticMixture

H, W, N, D = 5, 4, 5, 3
GREY = DiscretisedLogisticMixture(1, 256, 2)
RGB = DiscretisedLogisticMixture(3, 256, 2)


def make(latent_view="rows-above", latents=True, seed=0, likelihood=RGB, **sizes):
    torch.manual_seed(seed)
    shape = (likelihood.channels, H, W)
    sizes = {"channels": 8, "layers": 3, "attention_layers": 1, "attend_every": 2, **sizes}
    latent_shape = (N, D) if latents else None
    decoder = PixelSNAIL(shape, likelihood, latent_shape, latent_view, **sizes).double()
    x = torch.randint(0, 256, (2, *shape), dtype=torch.uint8)
    z = torch.randn(2, N, D, dtype=torch.float64) if latents else None
    return decoder, x, z


@pytest.mark.parametrize("seed", range(3))
def test_row_sees_the_latents_of_its_own_and_earlier_rows_only(seed):
    decoder, x, z = make(seed=seed)
    jacobian = torch.autograd.functional.jacobian(lambda z: decoder(x, z)[0].sum(1), z)
    seen = jacobian[:, 0].abs().sum(-1).reshape(H, W, N)  # (row, column, t)
    for r in range(H):
        assert (seen[r, :, r + 1 :] == 0).all()
        assert (seen[r, :, : r + 1] > 0).all()


def test_unmasked_view_shows_every_latent_to_every_pixel():
    decoder, x, z = make("all")
    jacobian = torch.autograd.functional.jacobian(lambda z: decoder(x, z)[0].sum(1), z)
    assert (jacobian[:, 0].abs().sum(-1) > 0).all()


@pytest.mark.parametrize("likelihood", [GREY, RGB])
@pytest.mark.parametrize("latents", [True, False])
def test_pixel_sees_all_earlier_pixels_and_neither_itself_nor_later_ones(latents, likelihood):
    decoder, x, z = make(latents=latents, likelihood=likelihood, attention_layers=3)
    same = decoder(x, z)
    for position in range(H * W):
        changed = decoder.to_sequence(x).clone()
        changed[:, position] += 100  # modulo 256: every channel changes
        moved = (decoder(decoder.from_sequence(changed), z) != same).any(-1)[0]
        assert not moved[: position + 1].any()
        assert moved[position + 1 :].all()


@pytest.mark.parametrize("latents", [True, False])
def test_every_parameter_gets_a_gradient(latents):
    decoder, x, z = make(latents=latents)
    decoder.log_prob(x, z).sum().backward()
    for name, parameter in decoder.named_parameters():
        assert parameter.grad is not None, name
        assert parameter.grad.abs().sum() > 0, name


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"latent_shape": (4, 2)}, "one step per row, 5, got 4"),
        ({"attend_every": 0}, "attend_every must be at least 1, got 0"),
        ({"heads": 64}, "heads must divide half of channels = 64, got 64"),
    ],
)
def test_arguments_out_of_range_are_named(arguments, message):
    with pytest.raises(ValueError, match=message):
        PixelSNAIL((1, H, W), GREY, **arguments)

"""What stays in float32 under autocast, and what that saves."""

import pytest
import torch

from deltavae.decoders import Decoder, GatedPixelCNN, PixelSNAIL
from deltavae.likelihoods import DiscretisedLogisticMixture
from deltavae.nn.precision import as_autocast, exactly


def test_exactly_keeps_a_layer_in_the_precision_of_its_weights():
    layer, x = torch.nn.Linear(3, 2), torch.randn(5, 3)
    exact = layer(x)
    with torch.autocast("cpu", torch.bfloat16):
        assert layer(x).dtype == torch.bfloat16
        torch.testing.assert_close(exactly(layer, x, layer.weight), exact)
        assert exactly(layer, x.bfloat16(), layer.weight).dtype == torch.float32
    assert exactly(layer.double(), x.double(), layer.weight).dtype == torch.float64


def test_as_autocast_rounds_under_autocast_only():
    x = torch.randn(4)
    assert as_autocast(x) is x
    with torch.autocast("cpu", torch.bfloat16):
        assert as_autocast(x).dtype == torch.bfloat16
        assert as_autocast(x.double()).dtype == torch.float64  # as autocast does
    assert as_autocast(torch.empty(4, device="meta")).dtype == torch.float32


@pytest.mark.parametrize("kind", [GatedPixelCNN, PixelSNAIL])
def test_ends_of_a_decoder_are_exact_in_bfloat16(kind: type[Decoder]):
    """What reads the image and what writes the likelihood's parameters are those of float32."""
    torch.manual_seed(0)
    likelihood = DiscretisedLogisticMixture(1, 256)
    decoder = kind((1, 2, 3), likelihood, None, channels=8, layers=2)
    x = torch.randint(0, 256, (16, 1, 2, 3), dtype=torch.uint8)
    ends = {"head": decoder.head, "embed": _embedding(decoder)}
    calls: dict[str, list[tuple[torch.Tensor, torch.Tensor]]] = {name: [] for name in ends}
    for name, layer in ends.items():
        layer.register_forward_hook(lambda _, x, y, name=name: calls[name].append((x[0], y)))
    with torch.no_grad():
        with torch.autocast("cpu", torch.bfloat16):
            assert decoder(x, None).dtype == torch.float32
        decoder(x, None)
        (_, rounded), (_, exact) = calls["embed"]
        assert torch.equal(rounded, exact)
        given, written = calls["head"][0]
        assert given.dtype == torch.float32
        torch.testing.assert_close(written, decoder.head(given), rtol=0, atol=0)


@pytest.mark.parametrize("kind", [GatedPixelCNN, PixelSNAIL])
@pytest.mark.parametrize("latent_shape", [None, (2, 3)])
def test_stream_adds_up_in_float32_under_autocast(kind, latent_shape):
    """What goes straight on to the head is rounded by no layer on its way."""
    decoder = kind(
        (1, 2, 3), DiscretisedLogisticMixture(1, 256), latent_shape, channels=8, layers=3
    )
    streams = []
    for layer in decoder.stack.layers:
        layer.register_forward_hook(
            lambda _, x, y: streams.extend([x[-1], y[-1] if isinstance(y, tuple) else y])
        )
    z = None if latent_shape is None else torch.randn(4, *latent_shape)
    with torch.autocast("cpu", torch.bfloat16):
        decoder(torch.zeros(4, 1, 2, 3, dtype=torch.uint8), z)
    assert len(streams) == 6
    assert {stream.dtype for stream in streams} == {torch.float32}


def _embedding(decoder: Decoder) -> torch.nn.Module:
    embedding = dict(decoder.stack.named_children())
    return embedding["embed_left" if "embed_left" in embedding else "embed_horizontal"]

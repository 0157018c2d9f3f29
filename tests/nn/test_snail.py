"""The PixelSNAIL network: its attention against a dense second derivation, and its causality."""

import math

import pytest
import torch
import torch.nn.functional as F

from deltavae.nn.images import with_coordinates
from deltavae.nn.snail import PixelAttention, SnailStack, concat_elu

C, H, W = 2, 4, 5


def stack(seed=0, causal=True, **sizes):
    torch.manual_seed(seed)
    sizes = {"channels": 8, "layers": 3, "attention_layers": 2, **sizes}
    return SnailStack(C, causal=causal, **sizes).double()


def image(seed=0, batch=2):
    generator = torch.Generator().manual_seed(seed)
    return torch.rand(batch, C, H, W, generator=generator, dtype=torch.float64) * 2 - 1


def test_concat_elu_passes_both_signs():
    x = torch.tensor([[-2.0, 0.0, 3.0]]).T[None, :, :, None].double()
    expected = torch.cat([F.elu(x), F.elu(-x)], dim=1)
    torch.testing.assert_close(concat_elu(x), expected, rtol=0, atol=0)
    assert concat_elu(x).abs().amax(1)[0, 0, 0] > 0


@pytest.mark.parametrize("causal", [True, False])
def test_attention_equals_the_dense_softmax_over_the_pixels_it_may_see(causal):
    torch.manual_seed(0)
    attention = PixelAttention(C + 3, 8, heads=2, causal=causal).double()
    h, x = torch.randn(2, 8, H, W, dtype=torch.float64), with_coordinates(image())
    flat, pixels = h.flatten(2).mT, x.flatten(2).mT  # (b, p, ·)
    q, k, v = attention.features(F.elu(flat)).split(4, dim=2)
    q = q + attention.place(pixels[..., -3:])
    k = k + attention.image(pixels)[..., :4]
    v = v + attention.image(pixels)[..., 4:]
    read = torch.zeros_like(q)
    for i in range(H * W):
        seen = range(i) if causal else range(H * W)
        for head in (slice(0, 2), slice(2, 4)):
            logits = [(q[:, i, head] * k[:, j, head]).sum(1) / math.sqrt(2) for j in seen]
            if logits:
                weights = torch.stack(logits, 1).softmax(1)
                read[:, i, head] = sum(
                    w[:, None] * v[:, j, head]
                    for w, j in zip(weights.unbind(1), seen, strict=True)
                )
    both = torch.cat([F.elu(flat), F.elu(-flat)], dim=2)
    a, b = (attention.gate(both) + attention.read(F.elu(read))).chunk(2, dim=2)
    expected = h + (a * b.sigmoid()).mT.reshape(h.shape)
    torch.testing.assert_close(attention(h, x), expected, rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize("causal", [True, False])
def test_attention_turns_autocast_on_nowhere(causal):
    """In half precision inside, where all around it is float32, a GPU could not go on."""
    with torch.device("meta"):  # neither a CPU nor a device that has autocast
        attention = PixelAttention(C + 3, 8, heads=2, causal=causal)
        read = attention(torch.empty(2, 8, H, W), torch.empty(2, C + 3, H, W))
    assert (read.shape, read.dtype) == ((2, 8, H, W), torch.float32)


@pytest.mark.parametrize("attention_layers", [0, 1, 3])
@pytest.mark.parametrize("kernel_size", [2, 3])
def test_features_depend_on_earlier_pixels_only(attention_layers, kernel_size):
    net = stack(attention_layers=attention_layers, kernel_size=kernel_size)
    x = image(batch=1).requires_grad_()
    jacobian = torch.autograd.functional.jacobian(lambda x: net(x)[0].sum(0).flatten(), x)
    seen = jacobian[:, 0].abs().sum(1).flatten(1) > 0  # (pixel, pixel that it reads)
    assert not seen.triu().any()
    if attention_layers == 3:  # attention after the first layer, and layers that pass it on
        assert seen[1:].sum() == H * W * (H * W - 1) // 2


def test_without_causality_every_pixel_sees_every_other_through_attention():
    net = stack(causal=False, attention_layers=3)
    x = image(batch=1)
    jacobian = torch.autograd.functional.jacobian(lambda x: net(x)[0].sum(0).flatten(), x)
    assert (jacobian[:, 0].abs().sum(1) > 0).all()


def test_attention_is_spread_evenly_and_ends_the_network():
    assert list(stack(layers=8, attention_layers=2).attention) == ["3", "7"]
    assert list(stack(layers=5, attention_layers=2).attention) == ["1", "4"]
    assert list(stack(layers=3, attention_layers=0).attention) == []


def test_checkpointing_changes_no_gradient():
    plain, again = stack(), stack(checkpointing=True)
    assert plain.state_dict().keys() == again.state_dict().keys()
    for net in (plain, again):
        net(image()).square().sum().backward()
    for (name, a), b in zip(plain.named_parameters(), again.parameters(), strict=True):
        assert a.grad is not None, name
        assert a.grad.abs().sum() > 0, name
        torch.testing.assert_close(a.grad, b.grad, rtol=0, atol=0)


def test_checkpointing_repeats_the_dropout_of_the_forward_pass():
    grads = []
    for checkpointing in (False, True):
        net = stack(checkpointing=checkpointing, dropout=0.5).train()
        torch.manual_seed(1)
        net(image()).square().sum().backward()
        grads.append(net.layers[0].first.weight.grad)
    torch.testing.assert_close(grads[0], grads[1], rtol=0, atol=0)


def test_dropout_acts_in_training_only():
    net = stack(dropout=0.5)
    assert not torch.equal(net.train()(image()), net(image()))
    assert torch.equal(net.eval()(image()), net(image()))


@pytest.mark.parametrize(
    ("sizes", "message"),
    [
        ({"channels": 0}, "channels must be at least 1, got 0"),
        ({"layers": 0}, "layers must be at least 1, got 0"),
        ({"attention_layers": 4}, r"attention_layers must be in 0\.\.3, got 4"),
        ({"kernel_size": 1}, "kernel_size must be at least 2, got 1"),
        ({"dropout": 1.0}, r"dropout must lie in \[0, 1\), got 1"),
        ({"channels": 7}, "channels must be even where there is attention, got 7"),
        ({"heads": 3}, "heads must divide half of channels = 8, got 3"),
    ],
)
def test_sizes_out_of_range_are_named(sizes, message):
    with pytest.raises(ValueError, match=message):
        stack(**sizes)

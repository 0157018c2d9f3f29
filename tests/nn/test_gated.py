"""The shared causal stack: its exact-zero Jacobian, and every way in which it may see."""

import pytest
import torch

from deltavae.nn import GatedStack, LatentAttention, shift_down, shift_right


@pytest.mark.parametrize("kernel_size", [3, 5])
def test_stack_is_strictly_causal_in_raster_order(kernel_size):
    torch.manual_seed(0)
    h, w = 5, 4
    stack = GatedStack(2, 6, 3, kernel_size).double()
    x = torch.randn(1, 2, h, w, dtype=torch.float64)
    jacobian = torch.autograd.functional.jacobian(lambda x: stack(x).sum(1)[0], x)
    seen = jacobian.abs().sum(dim=(2, 3)).reshape(h * w, h * w)  # (pixel, input pixel)
    past = torch.ones(h * w, h * w).tril(-1).bool()
    assert (seen[~past] == 0).all()
    # With three layers every pixel sees its left and upper neighbours.
    for r in range(h):
        for c in range(w):
            if c:
                assert seen[r * w + c, r * w + c - 1] > 0
            if r:
                assert seen[r * w + c, (r - 1) * w + c] > 0
            if r and c < w - 1:  # no blind spot to the upper right
                assert seen[r * w + c, (r - 1) * w + c + 1] > 0


def test_shifts_move_by_one_and_fill_with_zeros():
    x = torch.arange(6.0).reshape(1, 1, 2, 3)
    assert shift_down(x).tolist() == [[[[0, 0, 0], [0, 1, 2]]]]
    assert shift_right(x).tolist() == [[[[0, 0, 1], [0, 3, 4]]]]


def test_attention_is_a_softmax_over_the_visible_latents():
    torch.manual_seed(1)
    attention = LatentAttention(4, (3, 2), heads=1).double()
    features = torch.randn(1, 5, 4, dtype=torch.float64)
    z = torch.randn(1, 3, 2, dtype=torch.float64)
    visible = torch.tensor([[1, 0, 0], [1, 0, 0], [1, 1, 0], [1, 1, 1], [1, 1, 1]]).bool()
    key, value = (attention.read(z) + attention.steps).chunk(2, dim=-1)
    query = attention.query(torch.nn.functional.elu(features))
    scores = (query @ key.transpose(1, 2)) / 2.0  # √4
    weights = torch.where(visible, scores.exp(), 0.0)
    expected = attention.out(weights / weights.sum(-1, keepdim=True) @ value)
    torch.testing.assert_close(attention(features, z, visible), expected, rtol=1e-12, atol=1e-12)


def test_checkpointing_changes_no_gradient():
    gradients = []
    for checkpointing in (False, True):
        torch.manual_seed(0)
        stack = GatedStack(2, 6, 3, 3, checkpointing).double()
        x = torch.randn(2, 2, 4, 5, dtype=torch.float64, requires_grad=True)
        stack(x).square().sum().backward()
        gradients.append([x.grad, *(p.grad for p in stack.parameters())])
    for plain, again in zip(*gradients, strict=True):
        assert plain.abs().sum() > 0
        torch.testing.assert_close(plain, again, rtol=1e-12, atol=1e-12)


def test_checkpointing_computes_layers_again():
    stack = GatedStack(1, 4, 3, 3, checkpointing=True)
    calls = []
    for layer in stack.layers:
        layer.register_forward_pre_hook(lambda *_: calls.append(1))
    features = stack(torch.randn(1, 1, 3, 3))
    assert len(calls) == 3
    features.sum().backward()
    assert len(calls) == 6
    with torch.no_grad():
        stack(torch.randn(1, 1, 3, 3))
    assert len(calls) == 9


@pytest.mark.parametrize(
    ("arguments", "message"),
    [((1, 0, 1, 3), "channels"), ((1, 4, 0, 3), "layers"), ((1, 4, 1, 4), "kernel_size")],
)
def test_sizes_out_of_range_are_named(arguments, message):
    with pytest.raises(ValueError, match=message):
        GatedStack(*arguments)


def test_heads_must_divide_channels():
    with pytest.raises(ValueError, match="heads must divide channels = 6, got 4"):
        LatentAttention(6, (3, 2), heads=4)

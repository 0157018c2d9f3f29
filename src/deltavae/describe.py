"""What a model costs and what its parts see, told without training it.

One training forward pass, part by part, over fake tensors (shapes without values: nothing is
computed, nothing allocated). What one more image adds is the difference between two batches:

    FLOPs         2 per multiplication and addition of convolutions, matrix products, attention and
                  the LSTM; nothing is counted for what works element by element.
    activations   bytes that autograd keeps for the backward pass, each storage once. Weights, and
                  their copies in the type of autocast, drop out of the difference.

What a position sees is read off exact zeros of ∂output/∂image in float64, on a copy of the network
with few channels: dependence follows from depth, kernels and attention, not from the width.

Deviations:
    * Attention is counted in full, as other counters do; a causal kernel can skip half of it.
    * Memory is counted on a CPU, where attention stays in float32 under autocast.
"""

import copy
import inspect
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import torch
from jaxtyping import Bool, UInt8
from torch import Tensor, nn
from torch._subclasses.fake_tensor import FakeTensorMode
from torch.overrides import TorchFunctionMode
from torch.utils.flop_counter import FlopCounterMode

from deltavae.decoders import Decoder
from deltavae.encoders import Encoder
from deltavae.latents import Latents
from deltavae.latents.whitened import WhitenedPair
from deltavae.model import DeltaVAE
from deltavae.run_folder import import_class, instantiate


@dataclass(frozen=True)
class Cost:
    """What a part costs.

    Attributes:
        parameters: Number of weights.
        forward_flops: FLOPs of a forward pass, per image.
        activation_bytes: Bytes kept for the backward pass of a training step, per image.
    """

    parameters: int
    forward_flops: int
    activation_bytes: int

    def __add__(self, other: "Cost") -> "Cost":
        return Cost(
            self.parameters + other.parameters,
            self.forward_flops + other.forward_flops,
            self.activation_bytes + other.activation_bytes,
        )


def costs(model: DeltaVAE, autocast: torch.dtype | None = None) -> dict[str, Cost]:
    """Count what the parts of a model cost.

    Args:
        model: A model on the CPU; it is not changed.
        autocast: Type of mixed precision, torch.bfloat16 or torch.float16; None: none.

    Returns:
        For encoder, latents, decoder and aux_prior, as far as the model has them, the cost; its
        parts sum to the cost of the model.
    """
    was_training = model.training
    model.train()  # with dropout
    try:
        small, large = (_count(model, batch, autocast) for batch in (2, 4))
    finally:
        model.train(was_training)
    return {
        name: Cost(
            sum(p.numel() for p in getattr(model, name).parameters()),
            (large.flops[name] - small.flops[name]) // 2,
            (large.bytes[name] - small.bytes[name]) // 2,
        )
        for name in small.flops
    }


def _count(model: DeltaVAE, batch: int, autocast: torch.dtype | None) -> "_Meter":
    # The forward pass of `DeltaVAE.forward`, with a meter at every part.
    # A pair may keep tensors that it makes on first use: a copy of it keeps the fake ones.
    latents, meter = copy.deepcopy(model.latents), _Meter()
    exact = torch.autocast("cpu", enabled=False)
    with (
        FakeTensorMode(allow_non_fake_inputs=True),
        torch.autocast("cpu", autocast, enabled=autocast is not None),
    ):
        x = torch.zeros(batch, *model.decoder.event_shape, dtype=torch.uint8)
        read = None
        if model.encoder is not None and latents is not None:
            with meter.part("encoder"):
                params = model.encoder(x)
            with meter.part("latents"), exact:
                q = latents.posterior(params)
                z = q.sample(torch.zeros_like(q.mu))
                read = latents.to_decoder(z)
                latents.rate(q, z)
        with meter.part("decoder"):
            model.decoder.log_prob(x, read)
        if read is not None and model.aux_prior is not None:
            with meter.part("aux_prior"), exact:
                model.aux_prior.rate(q, z)
    return meter


def _lstm_flops(
    x: torch.Size, of_input: torch.Size, of_state: torch.Size, *_: Any, **__: Any
) -> int:
    # Two matrix products per step and example, each for all four gates.
    return 2 * x[0] * x[1] * (of_input.numel() + of_state.numel())


def _attention_flops(
    query: torch.Size, key: torch.Size, value: torch.Size, *_: Any, **__: Any
) -> int:
    # q·k for every pair of positions, then as many weighted sums of v.
    return 2 * query.numel() * key[-2] + 2 * query[:-1].numel() * value[-2] * value[-1]


# Kernels of the CPU that torch's counter does not know.
_UNKNOWN_TO_TORCH = {
    torch.ops.aten._scaled_dot_product_flash_attention_for_cpu: _attention_flops,
    torch.ops.aten.mkldnn_rnn_layer: _lstm_flops,
}


class _Meter:
    """Counts FLOPs and kept storages, part by part."""

    def __init__(self) -> None:
        self.flops: dict[str, int] = {}
        self.bytes: dict[str, int] = {}
        self._kept: dict[int, torch.UntypedStorage] = {}  # held, so that no address returns

    @contextmanager
    def part(self, name: str) -> Iterator[None]:
        """Count what happens inside for this part."""
        before = sum(self.bytes.values())
        counter = FlopCounterMode(display=False, custom_mapping=_UNKNOWN_TO_TORCH)
        with counter, torch.autograd.graph.saved_tensors_hooks(self._keep, lambda kept: kept):
            yield
        self.flops[name] = counter.get_total_flops()
        self.bytes[name] = sum(kept.nbytes() for kept in self._kept.values()) - before

    def _keep(self, saved: Tensor) -> Tensor:
        storage = saved.untyped_storage()
        self._kept[storage._cdata] = storage
        return saved


@dataclass(frozen=True)
class PixelsSeen:
    """What the middle pixel of the last row sees of the image, through the decoder.

    Attributes:
        seen: Number of pixels that its distribution depends on.
        earlier: Number of pixels before it in raster order: all that it may see.
        rows_above: Rows up to the farthest one seen.
        columns_left: Columns to the left, up to the farthest one seen in any row.
        columns_right: The same to the right, in the rows above.
    """

    seen: int
    earlier: int
    rows_above: int
    columns_left: int
    columns_right: int


@dataclass(frozen=True)
class RowsSeen:
    """What the latents are made from.

    Attributes:
        first_step: Number of image rows that the first latent step is made from.
        last_step: The same for the last.
        rows: Rows of the image.
    """

    first_step: int
    last_step: int
    rows: int


def pixels_seen(spec: Mapping[str, Any], *, trust: bool = False) -> PixelsSeen | None:
    """Find the receptive field of an image decoder.

    Args:
        spec: Specification {class_path, init_args} of the decoder.
        trust: Take classes from outside deltavae too.

    Returns:
        The receptive field; None where the decoder is not differentiable in its input, or where
        the pixel sees none: the only pixel of an image has none before it.
    """
    decoder: Decoder = _narrow(spec, trust)
    _, h, w = decoder.event_shape
    position = (h - 1) * w + w // 2
    z = None
    if decoder.latent_shape is not None:
        z = torch.zeros(1, *decoder.latent_shape, dtype=torch.float64)
    x = torch.zeros(1, *decoder.event_shape, dtype=torch.uint8)
    depends = dependence(lambda x: decoder(x, z)[:, position], x)
    if depends is None or not depends.any():
        return None
    rows, columns = depends[0].any(0).nonzero().unbind(1)
    return PixelsSeen(
        seen=len(rows),
        earlier=position,
        rows_above=h - 1 - int(rows.min()),
        columns_left=w // 2 - int(columns.min()),
        columns_right=int(columns.max()) - w // 2,
    )


def rows_seen(
    spec: Mapping[str, Any], latents: Latents | None = None, *, trust: bool = False
) -> RowsSeen | None:
    """Find the rows that latent steps are made from.

    Args:
        spec: Specification {class_path, init_args} of the encoder of images.
        latents: Their pair: one that makes its mean from several steps of the encoder adds their
            rows; None: what the encoder gives at a step.
        trust: Take classes from outside deltavae too.

    Returns:
        The rows; None where the encoder is not differentiable in its input.
    """
    encoder: Encoder = _narrow(spec, trust)
    shape = spec["init_args"]["image_shape"]
    x = torch.zeros(1, *shape, dtype=torch.uint8)

    def step(x: Tensor, t: int) -> Tensor:
        out = encoder(x)
        return (latents.posterior(out).mu if isinstance(latents, WhitenedPair) else out)[:, t]

    first = dependence(lambda x: step(x, 0), x)
    last = dependence(lambda x: step(x, -1), x)
    if first is None or last is None:
        return None
    rows_of_first, rows_of_last = (int(seen.any(3).any(1).sum()) for seen in (first, last))
    return RowsSeen(rows_of_first, rows_of_last, shape[1])


def dependence(
    network: Callable[[Tensor], Tensor], x: UInt8[Tensor, "1 ..."]
) -> Bool[Tensor, "1 ..."] | None:
    """Tell which integers of an event an output depends on, by exact zeros of the gradient.

    Args:
        network: Event → outputs of any shape, in float64, with random weights.
        x: One event.

    Returns:
        True where the output depends on x; None where no gradient reaches what the network makes
        of its integers.
    """
    with _Leaves() as made:
        out = network(x)
    weights = torch.linspace(1.0, 2.0, out.numel(), dtype=out.dtype).view_as(out)
    leaves = [leaf for leaf in made.leaves if leaf.shape == x.shape]
    if not leaves:
        return None
    gradients = torch.autograd.grad((out * weights).sum(), leaves, allow_unused=True)
    found = [gradient != 0 for gradient in gradients if gradient is not None]
    return torch.stack(found).any(0) if found else None


class _Leaves(TorchFunctionMode):
    """Makes a leaf of every floating-point tensor that is made of the event's integers."""

    def __init__(self) -> None:
        super().__init__()
        self.leaves: list[Tensor] = []

    def __torch_function__(
        self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: Any = None
    ) -> Any:
        out = func(*args, **(kwargs or {}))
        read = [a for a in args if isinstance(a, Tensor) and a.dtype == torch.uint8]
        if read and isinstance(out, Tensor) and out.is_floating_point():
            out = out.detach().requires_grad_()
            self.leaves.append(out)
        return out


def _narrow(spec: Mapping[str, Any], trust: bool) -> Any:
    # A copy of few channels in float64, whose gradients neither vanish nor stay at a zero start.
    few = {"channels": 4, "heads": 1, "dropout": 0.0, "checkpointing": False}
    known = inspect.signature(import_class(spec["class_path"], trust=trust)).parameters
    few = {name: value for name, value in few.items() if name in known}
    with torch.random.fork_rng(devices=[]):
        arguments = {**spec["init_args"], **few}
        part: nn.Module = instantiate({**spec, "init_args": arguments}, trust=trust).double()
        for weight in part.parameters():
            if weight.ndim > 1:
                nn.init.normal_(weight, std=0.5 * weight[0].numel() ** -0.5)
    return part.eval()

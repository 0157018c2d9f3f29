"""Optimisations that can be switched off one by one, and the training steps they are measured on.

A step of a stack is its forward and backward pass alone; a step of a model is what training does
once: forward, loss, backward, clipping, AdamW, with posterior noise and auxiliary prior where
there are latents.
"""

from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, fields, replace
from unittest.mock import patch

import torch
from torch import Tensor, nn

from deltavae import AR1, DeltaVAE
from deltavae.aux_prior import AuxiliaryPrior
from deltavae.decoders import Decoder, GatedPixelCNN, PixelSNAIL
from deltavae.encoders import AntiCausalEncoder, AntiCausalPixelSNAIL, Encoder
from deltavae.likelihoods import DiscretisedLogisticMixture
from deltavae.nn import GatedStack
from deltavae.noise import counter_normal
from deltavae.units import bits_to_nats
from speed.reference import MaskedGatedStack, naive_attention

Step = Callable[[], object]
KINDS = ("GatedPixelCNN", "PixelSNAIL")
LATENT_CHANNELS = 8
DELTA = bits_to_nats(20.0)


@dataclass(frozen=True)
class Recipe:
    """How a step is computed; every field is an optimisation.

    Attributes:
        bfloat16: Autocast to bfloat16; likelihood and rate stay in float32.
        channels_last: Features with their channels last in memory.
        cropped: Kernels without the weights that a mask would set to zero.
        fused_attention: scaled_dot_product_attention, not attention written out.
        fused_adamw: One kernel for all of AdamW's arithmetic on a parameter.
        compiled: torch.compile.
    """

    bfloat16: bool = True
    channels_last: bool = True
    cropped: bool = True
    fused_attention: bool = True
    fused_adamw: bool = True
    compiled: bool = True

    def without(self, *names: str) -> "Recipe":
        """Switch optimisations off."""
        return replace(self, **dict.fromkeys(names, False))

    @contextmanager
    def active(self) -> Iterator[None]:
        """Build, call and compile a model within this."""
        with ExitStack() as stack:
            if not self.channels_last:  # what asks for the one gets the other
                stack.enter_context(patch.object(torch, "channels_last", torch.contiguous_format))
            if not self.fused_attention:
                functional = torch.nn.functional
                stack.enter_context(
                    patch.object(functional, "scaled_dot_product_attention", naive_attention)
                )
            stack.enter_context(torch.autocast("cpu", torch.bfloat16, enabled=self.bfloat16))
            yield

    def compile(self, owner: nn.Module, name: str) -> None:
        """Compile a method of a module where the recipe says so, as `fit --compile` does."""
        if self.compiled:
            vars(owner)[name] = torch.compile(getattr(owner, name), dynamic=False)


OPTIMISATIONS = tuple(field.name for field in fields(Recipe))
NAIVE = Recipe().without(*OPTIMISATIONS)


def can_compile() -> bool:
    """Tell by trying whether torch.compile works here: it needs a C++ compiler."""
    try:
        torch.compile(torch.sin)(torch.zeros(8))
    except (RuntimeError, OSError):
        return False
    return True


@dataclass(frozen=True)
class Network:
    """A decoder's class and sizes.

    Attributes:
        name: "GatedPixelCNN" or "PixelSNAIL".
        side: Rows and columns of an RGB image of 256 levels.
        channels: Width.
        layers: Depth.
        checkpointing: Compute layers again in the backward pass.
    """

    name: str
    side: int = 32
    channels: int = 64
    layers: int = 6
    checkpointing: bool = False

    @property
    def blocks(self) -> int:
        """Attention layers of PixelSNAIL: one after every fourth layer, at least one."""
        return max(1, self.layers // 4)

    @property
    def shape(self) -> tuple[int, int, int]:
        """Shape of an image."""
        return 3, self.side, self.side

    def decoder(self, latents: bool) -> Decoder:
        """Build the decoder, with or without attention to latents, one step per row."""
        pixel = DiscretisedLogisticMixture(channels=3, levels=256)
        latent_shape = (self.side, LATENT_CHANNELS) if latents else None
        sizes = {"channels": self.channels, "layers": self.layers}
        if self.checkpointing:
            sizes["checkpointing"] = True
        if self.name == "PixelSNAIL":
            blocks = self.blocks
            return PixelSNAIL(self.shape, pixel, latent_shape, attention_layers=blocks, **sizes)
        return GatedPixelCNN(self.shape, pixel, latent_shape, **sizes)

    def encoder(self, params_per_step: int) -> Encoder:
        """Build an encoder in the defaults' proportions: at most a third of the parameters."""
        channels = self.channels // 2
        if self.name == "PixelSNAIL":
            layers = max(1, self.layers // 2)
            return AntiCausalPixelSNAIL(
                self.shape, 256, params_per_step, channels=channels, layers=layers
            )
        layers = max(1, 2 * self.layers // 3)
        return AntiCausalEncoder(
            self.shape, 256, params_per_step, channels=channels, layers=layers
        )

    def model(self, latents: bool) -> DeltaVAE:
        """Build the decoder alone, or a δ-VAE with an auxiliary prior around it."""
        torch.manual_seed(0)
        if not latents:
            return DeltaVAE(self.decoder(False))
        plain = {"minimiser_units": False, "innovations": False}
        pair = AR1.from_rate(DELTA, n=self.side, d=LATENT_CHANNELS, **plain)
        prior = AuxiliaryPrior(pair.n, pair.d)
        return DeltaVAE(self.decoder(True), self.encoder(pair.params_per_step), pair, prior)


def images(batch: int, side: int) -> Tensor:
    """Draw uniformly random images."""
    generator = torch.Generator().manual_seed(0)
    return torch.randint(0, 256, (batch, 3, side, side), dtype=torch.uint8, generator=generator)


def stack_step(recipe: Recipe, network: Network, kernel_size: int, batch: int) -> Step:
    """Return the forward and backward pass of the gated stack alone."""
    torch.manual_seed(0)
    with recipe.active():
        cropped = GatedStack(3, network.channels, network.layers, kernel_size)
        stack: nn.Module = cropped if recipe.cropped else MaskedGatedStack(cropped)
        stack.to(memory_format=torch.channels_last)
        x = torch.rand(batch, *network.shape) * 2.0 - 1.0
        x = x.contiguous(memory_format=torch.channels_last)
        with torch.no_grad():
            gradient = torch.randn_like(stack(x))
    recipe.compile(stack, "forward")

    def step() -> None:
        stack.zero_grad()
        with recipe.active():
            features = stack(x)
        features.backward(gradient)

    return step


def training_step(recipe: Recipe, network: Network, batch: int, latents: bool = False) -> Step:
    """Return one step of training of a whole model on random images."""
    with recipe.active():
        model = network.model(latents)
    return step_of(recipe, model, images(batch, network.side))


def step_of(recipe: Recipe, model: DeltaVAE, x: Tensor) -> Step:
    """Return one step of training of a model on a batch of images."""
    prior = model.aux_prior
    apart = [] if prior is None else list(prior.parameters())
    own = {id(parameter) for parameter in apart}
    rest = [p for p in model.parameters() if id(p) not in own]
    groups = [group for group in (rest, apart) if group]
    optimiser = torch.optim.AdamW(
        [{"params": group} for group in groups], lr=1e-4, fused=recipe.fused_adamw
    )
    index, shape = torch.arange(len(x)), None
    if model.latents is not None:
        shape = (model.latents.n, model.latents.d)

    recipe.compile(model.decoder, "log_prob")
    if model.encoder is not None:
        recipe.compile(model.encoder, "forward")

    def step() -> None:
        optimiser.zero_grad()
        noise = None if shape is None else counter_normal(0, 0, index, shape)
        with recipe.active():
            terms = model(x, noise)
        loss = terms.neg_elbo if terms.aux_rate is None else terms.neg_elbo + terms.aux_rate
        loss.mean().backward()
        for group in groups:
            nn.utils.clip_grad_norm_(group, 1.0)
        optimiser.step()

    return step

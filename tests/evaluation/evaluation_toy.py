"""A model small enough that p(x) is an integral over a line."""

import torch
from torch import nn

from deltavae.aux_prior import AuxiliaryPrior
from deltavae.decoders import Decoder
from deltavae.encoders import Encoder
from deltavae.likelihoods import Bernoulli
from deltavae.model import DeltaVAE

POSITIONS = 4


class LogisticDecoder(Decoder):
    """x_i ~ Bernoulli(σ(Σ_tk a_tki z_tk + b_i)): given z the positions are independent."""

    def __init__(self, latent_shape, generator):
        n, d = latent_shape or (0, 0)
        super().__init__((1, 1, POSITIONS), POSITIONS, Bernoulli(), latent_shape, (0,) * n)
        self.a = nn.Parameter(1.5 * torch.randn(n, d, POSITIONS, generator=generator))
        self.b = nn.Parameter(0.5 * torch.randn(POSITIONS, generator=generator))

    def forward(self, x, z):
        logits = self.b.expand(len(x), -1)
        if z is not None:
            logits = logits + torch.einsum("bnd,ndp->bp", z, self.a)
        return logits[..., None]

    def to_sequence(self, x):
        return x.flatten(1)[..., None]

    def from_sequence(self, sequence):
        return sequence.reshape(-1, 1, 1, POSITIONS)


class LinearEncoder(Encoder):
    def __init__(self, n, k, generator):
        super().__init__()
        self.w = nn.Parameter(0.4 * torch.randn(n, k, POSITIONS, generator=generator))

    def forward(self, x):
        return torch.einsum("nkp,bp->bnk", self.w, x.flatten(1).to(self.w.dtype))


def toy_model(latents, *, aux=False, seed=0):
    generator = torch.Generator().manual_seed(seed)
    if latents is None:
        return DeltaVAE(LogisticDecoder(None, generator)).double()
    n, d = latents.n, latents.d
    prior = None
    if aux:
        prior = AuxiliaryPrior(n, d, hidden=3)
        for p in prior.parameters():
            p.data = 0.3 * torch.randn(p.shape, generator=generator)
        prior.loc += 0.4
        prior.scale *= 0.9
    decoder = LogisticDecoder((n, d), generator)
    encoder = LinearEncoder(n, latents.params_per_step, generator)
    return DeltaVAE(decoder, encoder, latents, prior).double()


def every_event(repeats=1):
    """All 2⁴ events, as uint8 images of shape (1, 1, 4), one after the other."""
    bits = torch.cartesian_prod(*[torch.arange(2)] * POSITIONS).to(torch.uint8)
    return bits.repeat_interleave(repeats, dim=0).reshape(-1, 1, 1, POSITIONS)

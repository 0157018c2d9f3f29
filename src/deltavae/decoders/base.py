"""What every decoder offers: all positions in parallel, or one position after the other.

An event x is a sequence of positions x_1..x_P (for images: pixels in raster order, C values each).

    log p(x|z) = Σ_i log p(x_i | x_<i, z_t with visible_from[t] ≤ i)

`forward` gives the parameters of all P conditionals at once; `init_state` and `step` give them one
after the other. Sampling, teacher-forced scoring, completion and compression go through `step`.
"""

from abc import ABC, abstractmethod
from dataclasses import dataclass

import torch
from jaxtyping import Float, UInt8
from torch import Tensor, nn

from deltavae.likelihoods import Likelihood


@dataclass
class State:
    """Where a batch of sequences stands; a decoder with caches keeps them in a class of its own.

    Attributes:
        position: The position that the next step predicts.
    """

    position: int


@dataclass
class Replay(State):
    """The state of a decoder without caches: all that its full forward reads.

    Attributes:
        sequence: The positions so far, zeros where none is known yet.
        z: The latents as the decoder reads them; None without latents.
    """

    sequence: UInt8[Tensor, "b p c"]
    z: Float[Tensor, "b n d"] | None


class Decoder(nn.Module, ABC):
    """An autoregressive decoder; abstract.

    Args:
        event_shape: Shape of one example.
        positions: Number P of positions of the sequence.
        likelihood: The conditional distribution of one position.
        latent_shape: Steps n and channels d of the latents; None for a decoder that reads none.
            One that does reads z = 0 where it is given none: the same layers, no information.
        visible_from: For each latent step the first position (from 0) that may see it.

    Attributes:
        visible: Which position may see which latent step, boolean, (P, n).

    Raises:
        ValueError: If visible_from does not fit latent_shape, or position 0 may see no latent.
    """

    visible: Tensor

    def __init__(
        self,
        event_shape: tuple[int, ...],
        positions: int,
        likelihood: Likelihood,
        latent_shape: tuple[int, int] | None,
        visible_from: tuple[int, ...],
    ) -> None:
        super().__init__()
        steps = 0 if latent_shape is None else latent_shape[0]
        if len(visible_from) != steps:
            raise ValueError(f"visible_from must name {steps} positions, got {len(visible_from)}")
        if steps and min(visible_from) > 0:
            raise ValueError("visible_from must let position 0 see at least one latent step")
        self.event_shape = tuple(event_shape)
        self.positions = positions
        self.likelihood = likelihood
        self.latent_shape = None if latent_shape is None else (latent_shape[0], latent_shape[1])
        self.visible_from = tuple(visible_from)
        position = torch.arange(positions)[:, None]
        first = torch.tensor(visible_from, dtype=torch.long)[None]
        self.register_buffer("visible", position >= first, persistent=False)  # (P, n)

    @abstractmethod
    def forward(
        self, x: UInt8[Tensor, "b ..."], z: Float[Tensor, "b n d"] | None
    ) -> Float[Tensor, "b p k"]:
        """Return the parameters of every conditional p(x_i | x_<i, z).

        Args:
            x: Events.
            z: Latents as the decoder reads them (`Latents.to_decoder`); None without latents.

        Returns:
            Likelihood parameters of the P positions.
        """

    def or_zero(
        self, z: Float[Tensor, "b n d"] | None, batch: int
    ) -> Float[Tensor, "b n d"] | None:
        """Return the latents that are read: z = 0 where there are to be some and none are given.

        Args:
            z: Latents as the decoder reads them, or None.
            batch: Number of events.

        Returns:
            z; zeros in its place for a decoder with a latent_shape; None for one without.
        """
        if z is not None or self.latent_shape is None:
            return z
        parameter = next(self.parameters())
        return parameter.new_zeros(batch, *self.latent_shape)

    @abstractmethod
    def to_sequence(self, x: UInt8[Tensor, "b ..."]) -> UInt8[Tensor, "b p c"]:
        """Lay an event out as the sequence of its positions."""

    @abstractmethod
    def from_sequence(self, sequence: UInt8[Tensor, "b p c"]) -> UInt8[Tensor, "b ..."]:
        """Invert `to_sequence`."""

    def log_prob(
        self,
        x: UInt8[Tensor, "b ..."],
        z: Float[Tensor, "b n d"] | None,
        positions: int | None = None,
    ) -> Float[Tensor, " b"]:
        """Return log p(x|z) in nats, summed over the event.

        Args:
            x: Events.
            z: Latents as the decoder reads them; None without latents.
            positions: Sum over the first positions only, so many; None: over all of them.

        Returns:
            Log-probability of each event; the likelihood runs in full precision.
        """
        params, sequence = self(x, z), self.to_sequence(x)
        with torch.autocast(device_type=x.device.type, enabled=False):
            return self.likelihood.log_prob(params[:, :positions], sequence[:, :positions])

    def init_state(self, z: Float[Tensor, "b n d"] | None, batch: int) -> State:
        """Begin a batch of sequences.

        Args:
            z: Latents as the decoder reads them; None without latents.
            batch: Number b of sequences.

        Returns:
            The state before position 0, which belongs to the parameters of this moment: after a
            step of training begin anew.
        """
        shape = (batch, self.positions, self.likelihood.channels)
        sequence = torch.zeros(shape, dtype=torch.uint8, device=self.visible.device)
        return Replay(0, sequence, z)

    def step(
        self, state: State, previous: UInt8[Tensor, "b c"] | None
    ) -> tuple[Float[Tensor, "b k"], State]:
        """Predict the next position: by default through one full forward.

        Args:
            state: What `init_state` or the step before returned; it may be changed in place.
            previous: The values of the position before; None at position 0.

        Returns:
            The likelihood parameters of the position, and the state after it.
        """
        assert isinstance(state, Replay)
        if previous is not None:
            state.sequence[:, state.position - 1] = previous
        params = self(self.from_sequence(state.sequence), state.z)[:, state.position]
        state.position += 1
        return params, state

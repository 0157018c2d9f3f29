"""An LSTM over the latent steps: its output at step t depends on the steps before t.

    h_t = LSTM(u_0, u_1, …, u_{t−1}),   output_t = W h_t + b,   u_0 learned.

W and b start at zero. The auxiliary prior and the learned prior share this; each owns the layers
under its own names.

Hochreiter & Schmidhuber, Long Short-Term Memory, Neural Computation 1997,
https://doi.org/10.1162/neco.1997.9.8.1735
"""

from collections.abc import Callable

import torch
from jaxtyping import Float
from torch import Tensor, nn


def recurrent_layers(d: int, hidden: int, width: int) -> tuple[nn.LSTM, nn.Linear, nn.Parameter]:
    """Make the layers, all outputs 0.

    Args:
        d: Channels of u.
        hidden: Units of the LSTM.
        width: Outputs per step.

    Returns:
        The LSTM, its output layer (W, b), and the input u_0 of the first step.
    """
    lstm = nn.LSTM(d, hidden, batch_first=True)
    out = nn.Linear(hidden, width)
    nn.init.zeros_(out.weight)
    nn.init.zeros_(out.bias)
    return lstm, out, nn.Parameter(torch.zeros(d))


def outputs(
    lstm: nn.LSTM, out: nn.Linear, start: Float[Tensor, " d"], u: Float[Tensor, "b n d"]
) -> Float[Tensor, "b n width"]:
    """Compute every step's output from the steps before it.

    Args:
        lstm: The LSTM.
        out: Its output layer.
        start: Input of the first step.
        u: All steps.

    Returns:
        Outputs; those of step t depend on u_<t only.
    """
    first = start.expand(u.shape[0], 1, -1)
    given: Tensor = out(lstm(torch.cat([first, u[:, :-1]], dim=1))[0])
    return given


def draw(
    lstm: nn.LSTM,
    out: nn.Linear,
    start: Float[Tensor, " d"],
    noise: Float[Tensor, "b n d"],
    step: Callable[[Tensor, Tensor], Tensor],
) -> Float[Tensor, "b n d"]:
    """Turn noise into u, step by step.

    Args:
        lstm: The LSTM.
        out: Its output layer.
        start: Input of the first step.
        noise: Noise of every step.
        step: Turns a step's output, (b, width), and noise, (b, d), into u_t.

    Returns:
        All steps.
    """
    u = start.expand(noise.shape[0], -1)
    steps, state = [], None
    for noise_t in noise.unbind(1):
        hidden, state = lstm(u[:, None], state)
        u = step(out(hidden[:, 0]), noise_t)
        steps.append(u)
    return torch.stack(steps, dim=1)

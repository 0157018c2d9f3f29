"""A normal whose mean and spread at every step come from an LSTM over the steps before.

    p(u) = Π_t N(u_t; m_t, s_t²),   (m_t, r_t) = W h_t + b,   ln s_t = 6 tanh(r_t/6),
    h_t = LSTM(u_0, u_1, …, u_{t−1}),   u_0 learned.

W and b start at zero, so that p starts at N(0, I); s stays within e^±6. The auxiliary prior and
the learned prior share this; each owns the layers under its own names.

Hochreiter & Schmidhuber, Long Short-Term Memory, Neural Computation 1997,
https://doi.org/10.1162/neco.1997.9.8.1735
"""

import torch
from jaxtyping import Float
from torch import Tensor, nn


def recurrent_layers(d: int, hidden: int) -> tuple[nn.LSTM, nn.Linear, nn.Parameter]:
    """Make the layers, at p = N(0, I).

    Args:
        d: Channels of u.
        hidden: Units of the LSTM.

    Returns:
        The LSTM, its output layer (W, b), and the input u_0 of the first step.
    """
    lstm = nn.LSTM(d, hidden, batch_first=True)
    out = nn.Linear(hidden, 2 * d)
    nn.init.zeros_(out.weight)
    nn.init.zeros_(out.bias)
    return lstm, out, nn.Parameter(torch.zeros(d))


def _normal(
    out: nn.Linear, output: Float[Tensor, "b t hidden"]
) -> tuple[Float[Tensor, "b t d"], Float[Tensor, "b t d"]]:
    mean, log_scale = out(output).chunk(2, dim=-1)
    return mean, 6.0 * torch.tanh(log_scale / 6.0)


def conditionals(
    lstm: nn.LSTM, out: nn.Linear, start: Float[Tensor, " d"], u: Float[Tensor, "b n d"]
) -> tuple[Float[Tensor, "b n d"], Float[Tensor, "b n d"]]:
    """Compute every step's normal given the steps before it.

    Args:
        lstm: The LSTM.
        out: Its output layer.
        start: Input of the first step.
        u: All steps.

    Returns:
        Mean m_t and log standard deviation ln s_t of p(u_t | u_<t) for every t.
    """
    first = start.expand(u.shape[0], 1, -1)
    return _normal(out, lstm(torch.cat([first, u[:, :-1]], dim=1))[0])


def draw(
    lstm: nn.LSTM, out: nn.Linear, start: Float[Tensor, " d"], noise: Float[Tensor, "b n d"]
) -> Float[Tensor, "b n d"]:
    """Turn standard normal noise into u ~ p, step by step.

    Args:
        lstm: The LSTM.
        out: Its output layer.
        start: Input of the first step.
        noise: Standard normal noise.

    Returns:
        Draws of p.
    """
    u = start.expand(noise.shape[0], 1, -1)
    steps, state = [], None
    for t in range(noise.shape[1]):
        output, state = lstm(u, state)
        mean, log_scale = _normal(out, output)
        u = mean + log_scale.exp() * noise[:, t : t + 1]
        steps.append(u)
    return torch.cat(steps, dim=1)

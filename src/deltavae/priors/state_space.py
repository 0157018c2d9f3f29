"""Stationary processes with a small state, by the innovations of their Kalman filter.

A latent state of m coordinates, the first of which is seen, with jitter or without:

    s_{t+1} = A s_t + noise of covariance Q,   z_t = s_t0 + √jitter v_t.                   (1)

The filter turns (1) into its innovations form, whose one source of noise is e_t = whiten(z)_t:

    z_t = m_t0 + √S_t e_t,   m_{t+1} = A m_t + G_t √S_t e_t,   m_0 = 0.                     (2)

Solved for e it is the whitening, with m_{t+1} = (A − G_t 1_0ᵀ) m_t + G_t z_t. An impulse at step i
leaves the state G_i behind; N_t adds up what a state costs from step t on,

    N_t = 1_0 1_0ᵀ/S_t + (A − G_t 1_0ᵀ)ᵀ N_{t+1} (A − G_t 1_0ᵀ),   N_n = 0,                 (3)

and f_i = S_i G_iᵀ N_{i+1} G_i, a sum of squares. The filter carries a root of its covariance, by
QR: what it computes stays accurate where neighbouring steps are almost equal. G and S settle
within some steps, and so does N backwards: only the steps before are computed one by one.

Anderson & Moore, Optimal Filtering, 1979, sections 5.3 and 6.5; de Jong, A cross-validation filter
for time series models, Biometrika 75(3), 1988, https://doi.org/10.1093/biomet/75.3.594
"""

from abc import ABC

import numpy as np
from jaxtyping import Float64
from torch import Tensor
from torch.nn.functional import pad

from deltavae.priors.base import Constant, GaussianPrior
from deltavae.priors.recurrence import LinearRecurrence

_SETTLED = 1e-13  # relative change per step below which a recursion has settled


class StateSpacePrior(GaussianPrior, ABC):
    """Gaussian prior in innovations form, eq. (2).

    Args:
        n: Steps, at least 1.
        transition: A.
        start_root: A square root of the covariance of s_0.
        noise_root: A square root of Q.
        jitter: Variance of the noise on what is seen, at least 0.
    """

    def __init__(
        self,
        n: int,
        transition: Float64[np.ndarray, "m m"],
        start_root: Float64[np.ndarray, "m m"],
        noise_root: Float64[np.ndarray, "m r"],
        jitter: float = 0.0,
    ) -> None:
        gains, scales = _filter(n, transition, start_root, noise_root, jitter)
        step = np.minimum(np.arange(n), len(scales) - 1)
        super().__init__(scales[step] ** 2, _feedback(n, transition, gains, scales))
        self._scales, self._gains = Constant(scales[step]), Constant(gains[step])
        self._closed = LinearRecurrence(_closed_loop(transition, gains), n - 1)
        self._open = LinearRecurrence(transition[None], n - 1)

    def _whiten(self, x: Float64[Tensor, "*shape n"]) -> Float64[Tensor, "*shape n"]:
        scales, gains = self._scales.on(x.device), self._gains.on(x.device)
        means = self._closed.solve(gains[:-1] * x[..., :-1, None])
        return (x - pad(means[..., 0], (1, 0))) / scales

    def _colour(self, noise: Float64[Tensor, "*shape n"]) -> Float64[Tensor, "*shape n"]:
        surprise = self._scales.on(noise.device) * noise
        gains = self._gains.on(noise.device)
        means = self._open.solve(gains[:-1] * surprise[..., :-1, None])
        return surprise + pad(means[..., 0], (1, 0))  # (2)


def _lower_root(rectangle: Float64[np.ndarray, "m r"]) -> Float64[np.ndarray, "m m"]:
    """Lower triangular L, diagonal not negative, with L Lᵀ = rectangle rectangleᵀ."""
    upper = np.linalg.qr(rectangle.T).R
    return upper.T * np.where(upper.diagonal() < 0, -1.0, 1.0)


def _filter(
    n: int,
    transition: Float64[np.ndarray, "m m"],
    start_root: Float64[np.ndarray, "m m"],
    noise_root: Float64[np.ndarray, "m r"],
    jitter: float,
) -> tuple[Float64[np.ndarray, "k m"], Float64[np.ndarray, " k"]]:
    """G and √S of (2) until they settle, at most n of each."""
    m = len(transition)
    gains, scales = list[np.ndarray](), list[float]()
    root = start_root
    while len(scales) < n:
        joint = np.zeros((1 + m, 1 + m))  # of what is seen and the state
        joint[0, 0], joint[0, 1:], joint[1:, 1:] = np.sqrt(jitter), root[0], root
        joint = _lower_root(joint)
        scales.append(joint[0, 0])
        gains.append(transition @ joint[1:, 0] / joint[0, 0])
        before = root
        root = _lower_root(np.hstack([transition @ joint[1:, 1:], noise_root]))
        size = np.linalg.norm(root, axis=1, keepdims=True)
        if bool((np.abs(root - before) <= _SETTLED * size).all()):
            break
    return np.array(gains), np.array(scales)


def _closed_loop(
    transition: Float64[np.ndarray, "m m"], gains: Float64[np.ndarray, "k m"]
) -> Float64[np.ndarray, "k m m"]:
    loops = np.repeat(transition[None], len(gains), axis=0)
    loops[:, :, 0] -= gains
    return loops


def _feedback(
    n: int,
    transition: Float64[np.ndarray, "m m"],
    gains: Float64[np.ndarray, "k m"],
    scales: Float64[np.ndarray, " k"],
) -> Float64[np.ndarray, " n"]:
    """Return f, backwards by (3), and at once where G, S and N have settled."""
    loops, last = _closed_loop(transition, gains), len(scales) - 1
    cost, feedback = np.zeros_like(transition), np.empty(n)
    t = n - 1
    while t >= 0:
        k = min(t, last)
        feedback[t] = scales[k] ** 2 * gains[k] @ cost @ gains[k]
        before, cost = cost, loops[k].T @ cost @ loops[k]
        cost[0, 0] += scales[k] ** -2  # (3)
        size = np.sqrt(cost.diagonal())
        if t > last and bool((np.abs(cost - before) <= _SETTLED * np.outer(size, size)).all()):
            feedback[last:t] = scales[last] ** 2 * gains[last] @ cost @ gains[last]
            t = last
        t -= 1
    return feedback

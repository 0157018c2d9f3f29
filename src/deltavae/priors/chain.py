"""Differential equations driven by white noise, in coordinates where they are stationary at I.

A process with spectral density 1/|P(iω)|², P(s) = s^m + p_1 s^{m−1} + … with all roots left of 0,
is the first coordinate of a chain in which neighbours exchange and only the last is damped and
driven (Schwarz's form):

    ds = F s dt + √(2c) 1_last dW,   F_{k,k+1} = a_k = −F_{k+1,k},   F_last,last = −c.     (1)

F + Fᵀ takes what the noise puts back, so that the stationary covariance is I: variance 1 in any
approximation. a and c are quotients of the heads r_0, r_1, … of Routh's table of P:

    c = r_1/r_0,   a_{m−1−i}² = r_{i+2}/r_i,   i = 0..m−2  (a_k for k = 1..m−1).           (2)

Parks, A new proof of the Routh–Hurwitz stability criterion using the second method of Liapunov,
Mathematical Proceedings of the Cambridge Philosophical Society 58(4), 1962,
https://doi.org/10.1017/S030500410004072X
"""

import numpy as np
from jaxtyping import Float64


def damped_chain(polynomial: Float64[np.ndarray, " m_plus_1"]) -> Float64[np.ndarray, "m m"]:
    """Return F of (1).

    Args:
        polynomial: Coefficients of P, the highest power first, m at least 1.

    Returns:
        F; the damping c is −F[−1, −1].
    """
    m = len(polynomial) - 1
    upper, lower = polynomial[0::2], polynomial[1::2]
    heads = [upper[0], lower[0]]
    while len(heads) <= m:
        short = np.pad(lower[1:], (0, len(upper) - len(lower)))
        upper, lower = lower, upper[1:] - upper[0] / lower[0] * short
        heads.append(lower[0])
    table = np.array(heads)
    couplings = np.sqrt(table[2:] / table[:-2])[::-1]  # (2)
    chain = np.diag(couplings, 1) - np.diag(couplings, -1)
    chain[-1, -1] = -table[1] / table[0]
    return chain

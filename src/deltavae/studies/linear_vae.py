"""The linear VAE against its closed form: which directions of the data collapse, and why.

With x of mean b and covariance C, eigenvalues λ_1 ≥ λ_2 ≥ …, k latents, D diagonal, Λ = I or not,

    p(x|z) = N(Wz + b, σ²I),   p(z) = N(0, Λ⁻¹),   q(z|x) = N(V(x − b), D),
    −ELBO = 1/(2σ²) [tr (I−WV) C (I−WV)ᵀ + tr W D Wᵀ] + p/2 ln 2πσ² + R,                   (1)
    R = ½ [tr ΛD + tr ΛVCVᵀ − k − ln det ΛD].

For Λ = I the optimum is probabilistic PCA's likelihood, as q is exact for orthogonal columns of W.
Column i is an eigenvector of length √(λ_i − σ²), D_i = σ²/λ_i, E μ_i² = 1 − σ²/λ_i, and so

    R_i = ½ [σ²/λ_i + (1 − σ²/λ_i) − 1 − ln σ²/λ_i] = ½ ln(λ_i/σ²) for λ_i > σ², otherwise 0,  (2)
    −ELBO* = ½ Σ_i [ln 2πv_i + λ_i/v_i],   v_i = max(λ_i, σ²) for i ≤ k, otherwise σ².     (3)

A direction collapses because the likelihood has no use for it, not because the bound is loose.
With a correlated prior (3) still bounds −ELBO, but R ≥ δ = ½ [Σ ln Λ_ii − ln det Λ]. W = V = 0
with D_i = 1/Λ_ii pays δ for nothing; by the second derivative of (1) that is stable only for

    λ_1 ≤ σ²/κ,   κ the largest eigenvalue of D^−½ Λ⁻¹ D^−½;                                (4)

AR(1), n → ∞: κ = (1+α²)/(1−α)². Above it the committed rate puts latents to use that are collapsed
under N(0, I): what z says of x brings the posterior nearer to a diagonal one, which tightens the
bound; the likelihood has no use for a direction below σ² here either.

Tipping & Bishop, Probabilistic Principal Component Analysis, JRSS B 61(3), 1999; Lucas et al.,
Don't Blame the ELBO!, NeurIPS 2019, https://arxiv.org/abs/1911.02469, sections 3 and 4.
"""

import math
from dataclasses import dataclass

import numpy as np
import torch
from jaxtyping import Float64, Int64
from scipy.optimize import minimize
from torch import Tensor

_RECORDS = 50  # in a history


@dataclass(frozen=True, eq=False)
class History:
    """How a training went.

    Attributes:
        step: Steps done: those of Adam, and, last, the end of L-BFGS, with its evaluations added.
        neg_elbo: −ELBO, nats per example.
        rates: Rate of each direction, nats.
    """

    step: Int64[Tensor, " h"]
    neg_elbo: Float64[Tensor, " h"]
    rates: Float64[Tensor, "h k"]


@dataclass(frozen=True, eq=False)
class LinearVAE:
    """A trained linear VAE; all figures in nats per example.

    Attributes:
        weight: W.
        encoder: V.
        variance: The diagonal of D.
        rates: Rate of each direction: that of the latents rotated to the singular vectors of
            W Λ^−½, the longest column first, where p(z) is N(0, I) too.
        rate: R, all latents together; not below the sum of the rates, nor below δ.
        information: I(x;z) for normally distributed x.
        neg_elbo: −ELBO.
        gap: −ELBO less the optimum (3), never negative.
        history: How the training went.
    """

    weight: Float64[Tensor, "p k"]
    encoder: Float64[Tensor, "k p"]
    variance: Float64[Tensor, " k"]
    rates: Float64[Tensor, " k"]
    rate: float
    information: float
    neg_elbo: float
    gap: float
    history: History


@dataclass(frozen=True, eq=False)
class _Problem:
    # In units of σ: C/σ², W/σ and Vσ, so that only the constant of (1) knows σ².
    covariance: Float64[Tensor, "p p"]
    precision: Float64[Tensor, "k k"]
    constant: float

    def rate(
        self, encoder: Float64[Tensor, "k p"], log_variance: Float64[Tensor, " k"]
    ) -> Float64[Tensor, ""]:
        diagonal = (self.precision.diagonal() * log_variance.exp()).sum()
        signal = (self.precision @ encoder * (encoder @ self.covariance)).sum()
        volume = log_variance.sum() + self.precision.logdet()
        return 0.5 * (diagonal + signal - len(log_variance) - volume)

    def neg_elbo(
        self,
        weight: Float64[Tensor, "p k"],
        encoder: Float64[Tensor, "k p"],
        log_variance: Float64[Tensor, " k"],
    ) -> Float64[Tensor, ""]:
        missed = -weight @ encoder
        missed.diagonal().add_(1.0)  # I − WV
        error = (missed @ self.covariance * missed).sum()
        noise = (weight.square() * log_variance.exp()).sum()
        return 0.5 * (error + noise) + self.constant + self.rate(encoder, log_variance)  # (1)

    def direction_rates(
        self,
        weight: Float64[Tensor, "p k"],
        encoder: Float64[Tensor, "k p"],
        log_variance: Float64[Tensor, " k"],
    ) -> Float64[Tensor, " k"]:
        values, vectors = torch.linalg.eigh(self.precision)
        root = vectors * values.sqrt() @ vectors.T  # Λ^½: u = Λ^½ z has the prior N(0, I)
        _, _, rotation = torch.linalg.svd(torch.linalg.solve(root, weight.T).T)
        to_direction: Tensor = rotation @ root
        variance = (to_direction.square() * log_variance.exp()).sum(1)
        mean = to_direction @ encoder
        square = (mean @ self.covariance * mean).sum(1)
        return 0.5 * (variance + square - 1 - variance.log())

    def information(
        self, encoder: Float64[Tensor, "k p"], log_variance: Float64[Tensor, " k"]
    ) -> Float64[Tensor, ""]:
        scaled = encoder * (-0.5 * log_variance).exp()[:, None]
        eye = torch.eye(len(encoder), dtype=encoder.dtype)
        return 0.5 * (eye + scaled @ self.covariance @ scaled.T).logdet()


def analytic_rates(eigenvalues: Float64[Tensor, " k"], noise: float) -> Float64[Tensor, " k"]:
    """Return the rate of each direction at the optimum, eq. (2).

    Args:
        eigenvalues: Eigenvalues λ of the data's covariance, at least 0: those of the k leading
            directions, where there are k latents.
        noise: Variance σ² of the decoder, above 0.

    Returns:
        Nats per example, 0 where λ ≤ σ².
    """
    return (eigenvalues / _positive(noise)).clamp_min(1.0).log() / 2  # (2)


def optimal_neg_elbo(
    covariance: Float64[Tensor, "p p"], noise: float, latents: int
) -> Float64[Tensor, ""]:
    """Return the least −ELBO that a linear VAE can reach, eq. (3).

    Args:
        covariance: Covariance C of the data.
        noise: Variance σ² of the decoder, above 0.
        latents: Number k of latents.

    Returns:
        Nats per example, probabilistic PCA's −log-likelihood; attained if the prior is N(0, I).
    """
    eigenvalues: Tensor = torch.linalg.eigvalsh(covariance).flip(0)
    variance = torch.full_like(eigenvalues, _positive(noise))
    variance[:latents] = eigenvalues[:latents].clamp_min(noise)
    return 0.5 * ((2 * math.pi * variance).log() + eigenvalues / variance).sum()  # (3)


def collapse_threshold(precision: Float64[Tensor, "k k"]) -> float:
    """Return the λ_1/σ² up to which using no latent is stable, eq. (4).

    Args:
        precision: Precision Λ of the prior, positive definite.

    Returns:
        1/κ, in (0, 1]: 1 for independent latents, the smaller the more they are correlated.
    """
    scale = precision.diagonal().rsqrt()
    return float(torch.linalg.eigvalsh(scale[:, None] * precision * scale)[0])  # (4)


def train_linear_vae(
    covariance: Float64[Tensor, "p p"],
    noise: float,
    latents: int,
    generator: torch.Generator,
    *,
    precision: Float64[Tensor, "k k"] | None = None,
    steps: int = 1500,
    learning_rate: float = 0.02,
) -> LinearVAE:
    """Minimise (1) over W, V and D from a random start: by Adam, then by L-BFGS.

    Args:
        covariance: Covariance C of the data.
        noise: Variance σ² of the decoder, above 0; it is not trained.
        latents: Number k of latents, at least 1.
        generator: Source of the start: normal entries of W/σ and Vσ, of variance 1/p; D = I.
        precision: Precision Λ of the prior; None: I.
        steps: Steps of Adam, at least 1.
        learning_rate: That of Adam, above 0; it falls to 0 along a cosine.

    Returns:
        The trained model.

    Raises:
        ValueError: If an argument is out of its range.
    """
    if latents < 1:
        raise ValueError(f"latents must be at least 1, got {latents}")
    if steps < 1:
        raise ValueError(f"steps must be at least 1, got {steps}")
    precision = torch.eye(latents, dtype=torch.float64) if precision is None else precision
    if precision.shape != (latents, latents):
        raise ValueError(f"precision must have {latents} rows, got {tuple(precision.shape)}")
    p = len(covariance)
    constant = 0.5 * p * math.log(2 * math.pi * _positive(noise))
    problem = _Problem(covariance / noise, precision, constant)
    parameters = [
        torch.randn(shape, generator=generator, dtype=torch.float64) / math.sqrt(p)
        for shape in ((p, latents), (latents, p))
    ]
    parameters.append(torch.zeros(latents, dtype=torch.float64))
    history = _minimise(problem, parameters, steps, learning_rate)
    weight, encoder, log_variance = parameters
    neg_elbo = float(history.neg_elbo[-1])
    return LinearVAE(
        weight=weight * math.sqrt(noise),
        encoder=encoder / math.sqrt(noise),
        variance=log_variance.exp(),
        rates=history.rates[-1],
        rate=float(problem.rate(encoder, log_variance)),
        information=float(problem.information(encoder, log_variance)),
        neg_elbo=neg_elbo,
        gap=neg_elbo - float(optimal_neg_elbo(covariance, noise, latents)),
        history=history,
    )


def _minimise(
    problem: _Problem, parameters: list[Tensor], steps: int, learning_rate: float
) -> History:
    # Changes the parameters in place.
    records: list[tuple[int, float, Tensor]] = []

    def record(step: int) -> None:
        rates = problem.direction_rates(*parameters)
        records.append((step, float(problem.neg_elbo(*parameters)), rates))

    adam = torch.optim.Adam(parameters, learning_rate)
    slower = torch.optim.lr_scheduler.CosineAnnealingLR(adam, steps)
    for step in range(steps):
        if step % max(1, steps // _RECORDS) == 0:
            record(step)
        _, gradient = _loss_and_gradient(problem, parameters)
        for parameter, part in zip(parameters, gradient, strict=True):
            parameter.grad = part
        adam.step()
        slower.step()
    record(steps)
    record(steps + _refine(problem, parameters))
    done, losses, rates = zip(*records, strict=True)
    return History(
        torch.tensor(done), torch.tensor(losses, dtype=torch.float64), torch.stack(rates)
    )


def _refine(problem: _Problem, parameters: list[Tensor]) -> int:
    # L-BFGS from where the parameters stand; returns how often it has evaluated (1).
    def unpack(flat: np.ndarray) -> list[Tensor]:
        parts = torch.split(torch.from_numpy(flat), [p.numel() for p in parameters])
        return [part.view_as(p) for part, p in zip(parts, parameters, strict=True)]

    def function(flat: np.ndarray) -> tuple[float, np.ndarray]:
        loss, gradient = _loss_and_gradient(problem, unpack(flat))
        return loss, torch.cat([part.flatten() for part in gradient]).numpy()

    start = torch.cat([p.flatten() for p in parameters]).numpy()
    found = minimize(
        function,
        start,
        jac=True,
        method="L-BFGS-B",
        options={"maxcor": 50, "maxiter": 5000, "maxfun": 10_000, "ftol": 1e-14, "gtol": 1e-9},
    )
    for parameter, part in zip(parameters, unpack(found.x), strict=True):
        parameter.copy_(part)
    return int(found.nfev)


def _loss_and_gradient(
    problem: _Problem, parameters: list[Tensor]
) -> tuple[float, tuple[Tensor, ...]]:
    leaves = [parameter.detach().requires_grad_() for parameter in parameters]
    loss = problem.neg_elbo(*leaves)
    return loss.item(), torch.autograd.grad(loss, leaves)


def _positive(noise: float) -> float:
    if not 0.0 < noise < math.inf:
        raise ValueError(f"noise must be positive and finite, got {noise}")
    return noise

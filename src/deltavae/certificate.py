"""Certificates: a pair's committed rate beside the least rate that an independent search finds.

A pair states δ = min_q KL(q ‖ p), or a lower bound of it, with a proof (`Latents.proof`). Here the
minimum is looked for from K random starts (`rate_search`), of a rate that shares nothing with δ:

    gap = (least rate found − δ)/δ:   0 where both agree, below 0 only if δ were wrong.         (1)
"""

from dataclasses import dataclass
from typing import Any, Literal, final

from deltavae.latents import Latents, MeanFieldPair
from deltavae.rate_search import NoSearchError, least_rate


@final
@dataclass(frozen=True)
class RateCertificate:
    """What is known of a pair's floor. Rates are in nats per example.

    Attributes:
        pair: Name of the pair's class.
        config: Its arguments; None where no configuration can hold them (`arguments`).
        n: Latent steps.
        d: Latent channels.
        committed_rate: δ of every example; 0 where only the mean has a floor.
        floor: "example" where no example is below δ; "mean" where a batch's mean has a floor.
        mean_rate_floor: Floor of the rate's mean over a batch: δ itself where floor is "example".
        proof: How it is proven.
        numerical_minimum: Least rate that the search found; None where there was no search.
        starts: Random starts of the search.
        interval: Proven lower and upper bound of the minimum, the lower one δ; None where δ is a
            closed form, or nothing is proven.
        proven: Whether ``proof`` is one. Where not, ``floor`` says for what the floor holds if no
            posterior has a lower rate than the one that was found or stated.
        no_search: Why there was no search; None where there was one.
    """

    pair: str
    config: dict[str, Any] | None
    n: int
    d: int
    committed_rate: float
    floor: Literal["example", "mean"]
    mean_rate_floor: float
    proof: str
    numerical_minimum: float | None
    starts: int
    interval: tuple[float, float] | None = None
    proven: bool = True
    no_search: str | None = None

    @property
    def gap(self) -> float | None:
        """Gap (1) as a share of the floor, or in nats where the floor is 0."""
        if self.numerical_minimum is None:
            return None
        return (self.numerical_minimum - self.mean_rate_floor) / (self.mean_rate_floor or 1.0)


def certify(latents: Latents, starts: int = 16, seed: int = 0) -> RateCertificate:
    """Look for a rate below the floor of a pair.

    >>> from deltavae.latents import AR1
    >>> found = certify(AR1(4, [0.5]), starts=2)
    >>> round(found.committed_rate, 6), abs(found.gap) < 1e-9
    (0.366985, True)

    Args:
        latents: The pair, which stays as it is.
        starts: Random starts K, at least 1.
        seed: Seed of the starts.

    Returns:
        The certificate.

    Raises:
        ValueError: If starts is below 1.
    """
    if starts < 1:
        raise ValueError(f"starts must be at least 1, got {starts}")
    least, no_search = None, None
    try:
        least = least_rate(latents, starts, seed)
    except NoSearchError as error:
        no_search = str(error)
    return RateCertificate(
        pair=type(latents).__name__,
        config=arguments(latents),
        n=latents.n,
        d=latents.d,
        committed_rate=latents.committed_rate,
        floor=latents.floor,
        mean_rate_floor=latents.mean_rate_floor,
        proof=latents.proof,
        numerical_minimum=least,
        starts=starts,
        interval=_interval(latents),
        proven=_proven(latents),
        no_search=no_search,
    )


def arguments(latents: Latents) -> dict[str, Any] | None:
    """Return a pair's arguments; None where there is a function among them."""
    try:
        return latents.config()
    except ValueError:
        return None


def _proven(latents: Latents) -> bool:
    if isinstance(latents, MeanFieldPair):
        return latents.certificate.certified
    return latents.proof != Latents.proof


def _interval(latents: Latents) -> tuple[float, float] | None:
    if not isinstance(latents, MeanFieldPair) or not latents.certificate.certified:
        return None
    size, one = latents.n * latents.d, latents.certificate
    return (size * one.lower, size * one.upper) if one.lower < one.upper else None

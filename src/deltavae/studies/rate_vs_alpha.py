"""The committed rate against α, and what it keeps apart (the paper's figure; nothing is trained).

Left: δ of one channel for n = 2, 8, 16. Right: for n = 2, the AR(1) prior N(0, Σ) with
Σ = [[1, α], [α, 1]], and the mean-field posterior nearest to it, N(0, (1 − α²) I), whose
divergence is δ = −½ ln(1 − α²), as ellipses of one standard deviation.

Razavi et al. 2019, section 3.1, https://arxiv.org/abs/1901.03416
Deviations: the fourth α of the ellipses, 0.99, is this project's choice.
"""

from collections.abc import Sequence

from deltavae.figures import committed_rate_and_ellipses
from deltavae.rates import committed_rate, ladder
from deltavae.studies.base import Budget, Cell, Findings, Result, Study
from deltavae.studies.tables import Table
from deltavae.units import nats_to_bits

STEPS = (2, 8, 16)
ALPHAS = (0.5, 0.8, 0.95, 0.99)

# Setting, α of the channels, n, unit, what the paper prints where it does.
_SETTINGS = (
    ("n = 2, α = 0.50", ladder(0.50, 0.50, 1), 2, "nats", None),
    ("n = 2, α = 0.80", ladder(0.80, 0.80, 1), 2, "nats", None),
    ("n = 2, α = 0.95", ladder(0.95, 0.95, 1), 2, "nats", 1.17),
    ("low rate: n = 32, d = 8, α from 0.50 to 0.95", ladder(0.50, 0.95, 8), 32, "bits", 79.44),
    ("high rate: n = 32, d = 64, α from 0.50 to 0.99", ladder(0.50, 0.99, 64), 32, "bits", 666.6),
)


class RateVsAlpha(Study):
    """δ against α, in closed form."""

    name = "rate-vs-alpha"
    title = "The committed rate against α"
    description = (
        "One channel of the AR(1) prior commits δ = ½ [(n − 2) ln(1 + α²) − ln(1 − α²)] nats, "
        "n ≥ 2: no mean-field Gaussian posterior is nearer to it. For n = 2 the ellipses show the "
        "prior and the posterior that is nearest, one standard deviation each. Everything is "
        "computed from closed forms; nothing is trained."
    )

    def cells(self, budget: Budget) -> list[Cell]:
        """Return none: the figures have a closed form."""
        return []

    def findings(self, results: Sequence[Result], budget: Budget) -> Findings:
        """Compute δ; there are no results to draw on."""
        return Findings(
            tables={"committed-rate": _rates(), "printed-by-the-paper": _printed()},
            figures={"rate-vs-alpha": committed_rate_and_ellipses(STEPS, ALPHAS)},
        )


def _rates() -> Table:
    columns = ["α", *(f"n = {n}, {unit}" for n in STEPS for unit in ("nats", "bits"))]
    rows: list[list[float]] = []
    for alpha in ALPHAS:
        nats = [committed_rate(alpha, n) for n in STEPS]
        rows.append([alpha, *(value for rate in nats for value in (rate, nats_to_bits(rate)))])
    return Table(columns, rows, "Committed rate δ of one channel.", digits={"α": 2})


def _printed() -> Table:
    rows = []
    for setting, alpha, n, unit, printed in _SETTINGS:
        nats = committed_rate(alpha, n)
        rows.append((setting, nats if unit == "nats" else nats_to_bits(nats), printed, unit))
    return Table(
        ("setting", "δ computed here", "δ printed by the paper", "unit"),
        rows,
        "Committed rate of the paper's settings, beside what it prints, where it does.",
        digits={"δ printed by the paper": 2},
    )

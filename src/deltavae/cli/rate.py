"""`rate`: δ, α, the minimiser and the price of the first bits above δ."""

import json
from typing import Any

from deltavae.configuration import ladder_rate
from deltavae.rates import committed_rate, marginal_information, minimiser
from deltavae.units import nats_to_bits


def rate(options: dict[str, Any]) -> int:
    """Print δ, α, the minimiser and what the first bits above δ buy."""
    n = options["n"]
    alpha = ladder_rate(
        n,
        options["d"],
        delta_bits=options["delta_bits"],
        delta_nats=options["delta_nats"],
        alpha=options["alpha"],
    )
    d, nats = len(alpha), committed_rate(alpha, n)
    sigma, bought = minimiser(alpha, n), marginal_information(alpha, n)
    if options["json"]:
        values = {
            "n": n,
            "d": d,
            "committed_rate_bits": nats_to_bits(nats),
            "committed_rate_nats": nats,
            "alpha": alpha.tolist(),
            "minimiser_sigma_ends": sigma[0].tolist(),
            "minimiser_sigma_inside": sigma[n // 2].tolist() if n > 2 else None,
            "marginal_information": bought.tolist(),
        }
        print(json.dumps(values, indent=2))
        return 0
    print(f"committed rate δ = {nats_to_bits(nats):.6f} bits = {nats:.6f} nats (n = {n}, d = {d})")
    print("the posterior of that rate: μ = 0, and per channel; what the first bit above δ can buy")
    print(f"  {'α':>14}  {'σ first, last':>14}  {'σ inside':>14}  {'bits of I(x;z)':>14}")
    for k, value in enumerate(alpha.tolist()):
        inside = f"{sigma[n // 2, k]:14.9f}" if n > 2 else f"{'–':>14}"
        print(f"  {value:14.9f}  {sigma[0, k]:14.9f}  {inside}  {bought[k]:14.1f}")
    return 0

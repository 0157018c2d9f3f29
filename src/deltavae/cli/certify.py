"""`certify`: a pair's committed rate, its proof, and the least rate that a search finds."""

import json
from typing import Any

from rich.console import Console
from rich.table import Table

from deltavae.certificate import RateCertificate
from deltavae.certificate import certify as certified
from deltavae.cli import CommandError
from deltavae.configuration import NO_FLOOR
from deltavae.latents import Latents
from deltavae.run_folder import import_class
from deltavae.units import bits_to_nats, nats_to_bits

_ROUNDING = 1e-8  # share of δ by which the search may be below it
_SAME = 1e-6

Options = dict[str, Any]


def certify(options: Options) -> int:
    """Print a pair's certificate."""
    asked = _asked(options)
    pair = _built(options, asked)
    found = certified(pair, options["starts"], options["seed"])
    if options["json"]:
        print(json.dumps(_figures(found, asked), indent=2, ensure_ascii=False))
    else:
        _show(found, pair.summary, asked)
    gap = found.gap
    if gap is not None and gap < -_ROUNDING:
        below = f"the search found a rate below the floor of {found.pair}, by {-gap:.3g} of it: "
        raise CommandError(
            f"{below}a bug in the pair; please report it with this command"
            if found.proven
            else f"{below}a floor without a proof, and too high"
        )
    return 0


def _asked(options: Options) -> float | None:
    bits, nats = options["delta_bits"], options["delta_nats"]
    if bits is not None and nats is not None:
        raise ValueError("delta_bits and delta_nats: give one of them")
    asked: float | None = nats if bits is None else bits_to_nats(bits)
    return asked


def _built(options: Options, asked: float | None) -> Latents:
    spec = options["latents"]
    cls = import_class(spec["class_path"], trust=options["trust"])
    own = dict(spec.get("init_args") or {})
    if asked is None and cls not in NO_FLOOR:
        raise ValueError("give delta_bits or delta_nats: the rate that the pair is to commit")
    name = "delta_nats" if options["delta_bits"] is None else "delta_bits"
    told = "" if asked is None else f"{name}={options[name]}: "
    try:
        pair: Latents = cls.from_rate(asked or 0.0, options["n"], options["d"], **own)
    except ValueError as error:
        raise ValueError(f"{told}{error}") from error
    return pair


def _figures(found: RateCertificate, asked: float | None) -> Options:
    minimum, interval = found.numerical_minimum, found.interval
    of_mean = found.floor == "mean"
    return {
        "pair": found.pair,
        "n": found.n,
        "d": found.d,
        "options": found.config,
        "asked_rate_bits": None if asked is None else nats_to_bits(asked),
        "committed_rate_bits": nats_to_bits(found.committed_rate),
        "committed_rate_nats": found.committed_rate,
        "floor": found.floor,
        "mean_rate_floor_bits": nats_to_bits(found.mean_rate_floor) if of_mean else None,
        "proof": found.proof,
        "proven": found.proven,
        "numerical_minimum_bits": None if minimum is None else nats_to_bits(minimum),
        "numerical_minimum_nats": minimum,
        "starts": found.starts,
        "no_search": found.no_search,
        "gap_relative": found.gap,
        "interval_bits": None if interval is None else [nats_to_bits(end) for end in interval],
    }


def _show(found: RateCertificate, summary: str, asked: float | None) -> None:
    table = Table(box=None, show_header=False, pad_edge=False)
    table.add_column(style="bold", no_wrap=True)
    table.add_column()
    knobs = f", {summary}" if summary else ""
    table.add_row("pair", f"{found.pair}: n = {found.n}, d = {found.d}{knobs}")
    floor = found.mean_rate_floor
    if asked is not None and abs(floor - asked) > _SAME * asked:
        table.add_row("asked", f"{_rate(asked)}; the nearest that it can commit:")
    table.add_row("floor" if found.floor == "mean" else "δ", _rate(floor))
    table.add_row("holds for", _holds(found))
    table.add_row("proof", found.proof)
    if found.interval is not None:
        table.add_row("within", " to ".join(_rate(end) for end in found.interval))
    for row in _search(found):
        table.add_row(*row)
    Console(highlight=False).print(table)


def _holds(found: RateCertificate) -> str:
    doubt = "" if found.proven else ", if no posterior has a lower rate: that is not proven"
    if found.floor == "mean":
        return f"the mean over a training batch{doubt}; no example by itself has a floor"
    return f"every example{doubt}" if found.committed_rate > 0 else "nothing to hold"


def _search(found: RateCertificate) -> list[tuple[str, str]]:
    if found.numerical_minimum is None or found.gap is None:
        return [("search", f"none: {found.no_search}")]
    starts = f"{found.starts} random start{'s' if found.starts > 1 else ''}"
    unit = "of it" if found.mean_rate_floor > 0 else "nats"
    if abs(found.gap) <= _SAME:
        word = "the search agrees" if found.proven else "the search has found no lower one either"
    elif found.gap > 0:
        word = "the search ended above: try more --starts"
    else:
        word = "BELOW the floor"
    return [
        ("search", f"{_rate(found.numerical_minimum)}, the least from {starts}"),
        ("gap", f"{found.gap:.2g} {unit}: {word}"),
    ]


def _rate(nats: float) -> str:
    return f"{nats_to_bits(nats):.6f} bits = {nats:.6f} nats"

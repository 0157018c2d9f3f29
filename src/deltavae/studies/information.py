"""Information, not only rate: which settings spend a committed rate on something said.

At R = δ the information is zero. What lies above the floor is bought at the margin: with the
posterior's scale at the minimiser, R = δ + ½ Σ_k μ_kᵀ Λ_k μ_k. So δ should be committed where
information is cheap afterwards. Tried here, at one δ, against the default:

    channels d     few channels with high α: a slow signal costs little and is seen n times;
                   many with low α: little noise to overcome in each
    ladder         α of the channels spread out, at the same δ
    plain units    the posterior in its own units in place of the minimiser's
    attention      from every pixel to the latents after every layer, with more heads
    lagging        the encoder ahead of the decoder at first
    dropout        in the decoder, PixelSNAIL only: it weakens the decoder, so the last resort

Judged by the auxiliary bound, which the decoder alone has to be compared with, and by the lower
bound on I(x;z), over paired seeds.

Razavi et al., Preventing Posterior Collapse with δ-VAEs, ICLR 2019, section 3,
https://arxiv.org/abs/1901.03416; He et al. 2019, https://arxiv.org/abs/1901.05534
"""

from collections.abc import Mapping, Sequence
from typing import Any

from deltavae.figures import scatter_with_errors
from deltavae.studies.base import Budget, Cell, Findings, Result, Study, by_labels
from deltavae.studies.density import decoder_options
from deltavae.studies.settings import CHANNELS, DATA, SEEDS, cell, component, nets, training
from deltavae.studies.statistics import Interval, mean, paired_difference
from deltavae.studies.tables import Table

RATE: Mapping[Budget, float] = {"smoke": 5.0, "cpu": 10.0, "paper": 20.0}  # δ in bits
DEFAULT = "default"
ALONE = "decoder alone"
SENSIBLE, GOAL = 0.25, 0.5  # of δ


class Information(Study):
    """Settings of the δ-VAE at one committed rate."""

    name = "information"
    title = "Information, not only rate"
    description = (
        "One committed rate, many ways to commit it. Differences are to the default, over paired "
        "seeds; I(x;z) is a lower bound, aux rate an upper one."
    )

    def cells(self, budget: Budget) -> list[Cell]:
        """Return one cell per data set, setting and seed; see `Study`."""
        return [
            cell(
                f"{data}-{RATE[budget]:g}bits-{name}",
                {"data": data, "setting": name, "bits": RATE[budget]},
                seed,
                training(budget, data),
                nets(budget),
                options,
            )
            for seed in range(SEEDS[budget])
            for data in DATA[budget]
            for name, options in settings(budget).items()
        ]

    def findings(self, results: Sequence[Result], budget: Budget) -> Findings:
        """Draw one table and one panel per data set; see `Study`."""
        panels, tables = [], {}
        for data in DATA[budget]:
            found = [result for result in results if result.cell.labels["data"] == data]
            if found:
                tables[f"settings-{data}"] = _table(data, found)
                panels.append(_points(found))
        figures = {}
        if panels:
            figures["information"] = scatter_with_errors(
                *panels,
                xlabels=[f"I(x;z) ≥, bits ({data})" for data in DATA[budget]][: len(panels)],
                ylabel="auxiliary bound − that of the default, bits/dim",
            )
        return Findings(tables=tables, figures=figures)


def settings(budget: Budget) -> dict[str, dict[str, Any]]:
    """Return the options of every setting of a budget, by name; without latents too."""
    d, bits = CHANNELS[budget], RATE[budget]

    def committed(channels: int, units: bool = True, **options: Any) -> dict[str, Any]:
        latents = component("latents.AR1", minimiser_units=units)
        return {"delta_bits": bits, "latent_channels": channels, "latents": latents, **options}

    decoder = nets(budget)["decoder"]
    close = {**decoder["init_args"], "attend_every": 1, "heads": 4}
    chosen = {
        DEFAULT: committed(d),
        ALONE: {"latents": "none"},
        "plain units": committed(d, units=False),
        f"{2 * d} channels": committed(2 * d),
        "1 channel": committed(1),
        f"{d} channels, ladder": committed(d, alpha="0.3:0.95"),
    }
    if budget == "smoke":
        return chosen
    snail = decoder_options(budget, "PixelSNAIL")["decoder"]
    return chosen | {
        f"{d // 2} channels": committed(d // 2),
        "attention after every layer": committed(
            d, decoder={"class_path": decoder["class_path"], "init_args": close}
        ),
        "lagging inference": committed(d, lagging={"inner_steps": 5, "check_every": 150}),
        "PixelSNAIL": committed(d, decoder=snail),
        "PixelSNAIL, dropout": committed(
            d,
            decoder={
                "class_path": snail["class_path"],
                "init_args": {**snail["init_args"], "dropout": 0.3},
            },
        ),
    }


def _by_seed(results: Sequence[Result], setting: str, name: str) -> dict[int, float]:
    return {
        result.cell.labels["seed"]: result.metrics[name]
        for result in results
        if result.cell.labels["setting"] == setting and result.metrics[name] is not None
    }


def _bound(results: Sequence[Result], setting: str) -> dict[int, float]:
    # The bound that is compared: the auxiliary one, or without latents the exact figure.
    return _by_seed(results, setting, "elbo_bpd" if setting == ALONE else "aux_elbo_bpd")


def _difference(results: Sequence[Result], setting: str) -> Interval | None:
    ours, default = _bound(results, setting), _bound(results, DEFAULT)
    seeds = sorted(ours.keys() & default.keys())
    if not seeds:
        return None
    return paired_difference([ours[seed] for seed in seeds], [default[seed] for seed in seeds])


def _table(data: str, results: Sequence[Result]) -> Table:
    rows = []
    for (setting,), found in by_labels(results, "setting").items():
        figures: list[Any] = [
            mean(list(values.values())) if values else None
            for values in (
                _by_seed(results, setting, name)
                for name in ("rate_bits", "aux_rate_bits", "mutual_information_bits")
            )
        ]
        information = figures[-1]
        share = None if information is None else information.value / found[0].cell.labels["bits"]
        bound = mean(list(_bound(results, setting).values()))
        difference = None if setting == DEFAULT else _difference(results, setting)
        rows.append([setting, len(found), *figures, share, bound, difference])
    columns = ["setting", "seeds", "rate, bits", "aux rate, bits", "I(x;z) ≥, bits", "I/δ ≥"]
    return Table(
        [*columns, "auxiliary bound, bits/dim", "difference"],
        rows,
        f"{data}: mean over seeds ± standard error over seeds; the difference of the auxiliary "
        f"bound to the default's, seed by seed. Asked for: I/δ ≥ {SENSIBLE}, better {GOAL}.",
        dict.fromkeys(columns[2:5], 2) | {"I/δ ≥": 2, "difference": 4},
    )


def _points(results: Sequence[Result]) -> dict[str, tuple[list[Interval], list[Interval]]]:
    points = {}
    nothing = Interval(0.0, 0.0, 0.0, 0.0, 1)
    for (setting,) in by_labels(results, "setting"):
        values = list(_by_seed(results, setting, "mutual_information_bits").values())
        difference = nothing if setting == DEFAULT else _difference(results, setting)
        if difference is not None:
            points[setting] = ([mean(values) if values else nothing], [difference])
    return points

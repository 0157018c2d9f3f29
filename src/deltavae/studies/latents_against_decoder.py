"""Can a latent-variable model beat the decoder that it contains? The paper's open question.

Three arms per data set and depth of the decoder (`arms`), trained for the same time, each at its
own best learning rate:

    δ-VAE         the decoder with latents, encoder and auxiliary prior
    same decoder  that decoder, its attention to the latents included, with z = 0 for every
                  image; fewer weights, more steps
    same weights  the same, widened until it has the δ-VAE's number of weights, all of its parts
                  counted, within 2 %

Both rivals keep the attention because layers alone can be worth as much as what latents say
(`information`): a win over them is one of information.

Same seed: same order of images and, for the same decoder, the same initial weights. What is
compared: the δ-VAE's auxiliary bound, and its importance-weighted form, against the exact figure
of the decoder alone, seed by seed, Student's 95 % interval. A declared comparison has an answer,
by the bound that was named before its seeds were run, against the arm of the same weights; its
arms are tuned at its own depth. Power: how many seeds a paired t-test needs to see WIN bits/dim
with probability 0.8, from the differences of pilots, the tuned arms on seeds of their own.

Razavi et al., Preventing Posterior Collapse with δ-VAEs, ICLR 2019, Table 1 (level, not better),
https://arxiv.org/abs/1901.03416
"""

from collections.abc import Mapping, Sequence

from deltavae.figures import intervals
from deltavae.studies.arms import (
    ARMS,
    OURS,
    PLANS,
    SAME_WEIGHTS,
    Comparison,
    Plan,
    learning_rate,
    options,
)
from deltavae.studies.base import Budget, Cell, Findings, Result, Study, by_labels
from deltavae.studies.methods import ABOUT_UNITS
from deltavae.studies.settings import cell
from deltavae.studies.statistics import Interval, mean, paired_power, seeds_needed
from deltavae.studies.summaries import (
    ABOUT_COST,
    ABOUT_INFORMATION,
    COST,
    by_seed,
    cost,
    information,
    metric,
    spread,
)
from deltavae.studies.tables import Table

WIN = 0.02  # bits/dim
TUNING_SEED = 1000
BOUNDS = {"aux_elbo_bpd": "auxiliary bound", "aux_iwae_bpd": "importance-weighted auxiliary bound"}
RIVAL = SAME_WEIGHTS  # against which the answer is given
PILOT, TUNING, COMPARISON = "pilot", "tuning", "comparison"


class LatentsAgainstDecoder(Study):
    """The δ-VAE against the decoder that it contains, at equal time."""

    name = "latents-against-decoder"
    title = "Can latents beat their own decoder?"
    description = (
        "Three arms, the same training time each: the δ-VAE; its decoder with z = 0 for every "
        "image, all layers kept; and a wider one of that kind with as many weights as all parts "
        "of the δ-VAE together. Bits/dim of test "
        "images; a difference below 0 means that the latents win. The answers are those of "
        f"the declared comparisons, whose bound against {RIVAL} was named before their seeds were "
        f"run. {ABOUT_UNITS} The learning rate is tuned for every arm by itself, at the depth of "
        "each declared comparison."
    )

    def cells(self, budget: Budget) -> list[Cell]:
        """Return the cells of the tuning, of the pilots and of the comparison; see `Study`."""
        plan = PLANS[budget]
        declared = [c for c in plan.comparisons if c.bound]
        tuning = [
            _cell(TUNING, budget, c, arm, TUNING_SEED, rate)
            for c in declared
            for rate in plan.grid
            for arm in ARMS
            if len(plan.grid) > 1
        ]
        pilots = [
            _cell(PILOT, budget, c, arm, seed)
            for c in declared
            for seed in c.pilots
            for arm in (OURS, RIVAL)
        ]
        comparison = [
            _cell(COMPARISON, budget, c, arm, seed)
            for c in plan.comparisons
            for seed in c.seeds
            for arm in ARMS
        ]
        return [*tuning, *pilots, *comparison]

    def findings(self, results: Sequence[Result], budget: Budget) -> Findings:
        """Draw the comparison; see `Study`."""
        by_role = {role: found for (role,), found in by_labels(results, "role").items()}
        main = by_role.get(COMPARISON, [])
        differences = _differences(main)
        panels: dict[str, dict[str, Interval]] = {}
        for (data, depth, arm, bound), values in differences.items():
            if len(values) > 0:
                title = f"{data}: {BOUNDS[bound]} − exact figure of"
                panels.setdefault(title, {})[f"{arm}, {_layers(depth)}"] = mean(values)
        label = f"bits/dim, 95 % interval; below 0 the latents win (goal: −{WIN})"
        tables = {"arms": _arms(main), "differences": _comparison(differences)}
        if PILOT in by_role:
            tables["power"] = _power(by_role[PILOT], PLANS[budget])
        if TUNING in by_role:
            tables["tuning"] = _tuning(by_role[TUNING], budget)
        figures = {"differences": intervals(panels, xlabel=label)} if panels else {}
        return Findings(tables, figures, _answer(differences, PLANS[budget]))


def _cell(
    role: str, budget: Budget, of: Comparison, arm: str, seed: int, rate: float | None = None
) -> Cell:
    rate = learning_rate(budget, of.data, of.depth, arm) if rate is None else rate
    name = f"{of.data}-{of.depth}-layers-{arm}-lr{rate:g}".replace("δ", "delta")
    labels = {"data": of.data, "depth": of.depth, "arm": arm, "learning_rate": rate}
    tighter = {"importance_samples": of.samples} if of.samples and role == COMPARISON else {}
    return cell(
        name.replace("VAE", "vae"),
        {"role": role, **labels},
        seed,
        options(budget, of.data, of.depth, arm),
        {"learning_rate": rate},
        tighter if arm == OURS else {},
    )


Key = tuple[str, int, str, str]


def _differences(results: Sequence[Result]) -> dict[Key, list[float]]:
    groups = by_labels(results, "data", "depth", "arm")
    differences: dict[Key, list[float]] = {}
    for (data, depth, arm), found in groups.items():
        ours = groups.get((data, depth, OURS), [])
        for bound in BOUNDS if arm != OURS else ():
            paired = _paired(ours, found, bound)
            if paired:
                differences[data, depth, arm, bound] = paired
    return differences


def _paired(ours: Sequence[Result], alone: Sequence[Result], bound: str) -> list[float]:
    bounds, exact = by_seed(ours, bound), by_seed(alone, "elbo_bpd")
    return [bounds[seed] - exact[seed] for seed in bounds if seed in exact]


def _answer(differences: Mapping[Key, Sequence[float]], plan: Plan) -> str:
    told = []
    for c in plan.comparisons:
        values = differences.get((c.data, c.depth, RIVAL, c.bound)) if c.bound else None
        if c.bound and values:
            found = mean(values)
            told.append(
                f"**{c.data}**, {_layers(c.depth)}, {BOUNDS[c.bound]} against {RIVAL}: "
                f"{_verdict(found)} ({found.value:+.4f} bits/dim, 95 % interval {found.low:+.4f} "
                f"to {found.high:+.4f}, {found.count} pairs)."
            )
    return " ".join(told)


def _layers(depth: int) -> str:
    return f"{depth} layer{'s' if depth > 1 else ''}"


def _arms(results: Sequence[Result]) -> Table:
    rows = []
    for (data, depth, arm), found in by_labels(results, "data", "depth", "arm").items():
        figures = [metric(found, name) for name in ("elbo_bpd", *BOUNDS)]
        draws = found[0].cell.options["importance_samples"] if arm == OURS else None
        row = [data, depth, arm, *cost(found), found[0].origin["steps"], len(found)]
        rows.append([*row, *figures, draws, information(found)])
    columns = ["data", "layers", "arm", *COST, "steps", "seeds"]
    bounds = ["ELBO or exact", "auxiliary bound", "importance-weighted", "draws"]
    return Table(
        [*columns, *bounds, "I(x;z) ≥, bits"],
        rows,
        "Bits/dim of test images, mean over seeds ± standard error over seeds. The figure of a "
        "decoder alone is exact. Draws: of an image's z, for the importance-weighted bound. "
        f"{ABOUT_INFORMATION} {ABOUT_COST}",
        {"training, min": 1, "I(x;z) ≥, bits": 1},
    )


def _comparison(differences: Mapping[Key, Sequence[float]]) -> Table:
    rows = []
    for (data, depth, arm, bound), values in differences.items():
        found = mean(values)
        row = [data, depth, arm, BOUNDS[bound], found, found.low, found.high]
        rows.append([*row, found.count, _verdict(found)])
    columns = ["data", "layers", "against", "bound", "difference", "from", "to", "seeds"]
    return Table(
        [*columns, "verdict"],
        rows,
        "The δ-VAE's bound less the exact figure, bits/dim, mean over paired seeds ± standard "
        "error, 95 % interval, each by itself.",
        dict.fromkeys(("difference", "from", "to"), 4),
    )


def _verdict(difference: Interval) -> str:
    if difference.count < 2 or not difference.excludes_zero:
        return "open"
    if difference.value > 0:
        return "the decoder wins"
    return "the latents win" if difference.value <= -WIN else f"the latents win by less than {WIN}"


def _power(pilots: Sequence[Result], plan: Plan) -> Table:
    groups = by_labels(pilots, "data", "depth", "arm")
    rows = []
    for c in plan.comparisons:
        if c.bound and c.pilots:
            ours, alone = (groups.get((c.data, c.depth, arm), []) for arm in (OURS, RIVAL))
            values = _paired(ours, alone, c.bound)
            sd = spread(mean(values)) if values else None
            run = len(c.seeds)
            row = [c.data, c.depth, BOUNDS[c.bound], len(values), sd]
            chance = paired_power(run, sd, WIN) if sd and run > 1 else None
            rows.append([*row, seeds_needed(sd, WIN) if sd else None, run, chance])
    columns = ["data", "layers", "bound", "pilot pairs", "standard deviation"]
    return Table(
        [*columns, f"seeds for {WIN}", "seeds run", "power with these"],
        rows,
        f"Standard deviation of the differences to {RIVAL} in pilots, which are no part of "
        f"the comparison, bits/dim; pairs that a t-test needs to see {WIN} bits/dim with "
        "probability 0.8 at the level 0.05; the probability with as many as were run.",
        {"standard deviation": 4},
    )


def _tuning(results: Sequence[Result], budget: Budget) -> Table:
    grid = PLANS[budget].grid
    rows = []
    for (data, depth, arm), found in by_labels(results, "data", "depth", "arm").items():
        bounds = {result.cell.labels["learning_rate"]: _held_out(result) for result in found}
        measured = {rate: bound for rate, bound in bounds.items() if bound is not None}
        best = f"{min(measured, key=measured.__getitem__):g}" if measured else None
        used = learning_rate(budget, data, depth, arm)
        rows.append([data, depth, arm, *map(bounds.get, grid), best, f"{used:g}"])
    columns = [f"{rate:g}" for rate in grid]
    return Table(
        ["data", "layers", "arm", *columns, "best", "used"],
        rows,
        "Learning rates: bound on held-out images at the last step, bits/dim (the δ-VAE's under "
        f"its auxiliary prior, as it is then), seed {TUNING_SEED}.",
        dict.fromkeys(columns, 4),
    )


def _held_out(result: Result) -> float | None:
    # The last measurement of the averaged weights on held-out images; None where there is none.
    def last(name: str) -> float | None:
        values = [value for value in result.log.get(name, ()) if value is not None]
        return float(values[-1]) if values else None

    distortion, aux_rate = last("val_distortion_bits"), last("val_aux_rate_bits")
    with_latents = result.cell.labels["arm"] == OURS
    if distortion is None or (with_latents and aux_rate is None):
        return None
    return (distortion + (aux_rate or 0.0)) / float(result.metrics["dims"])

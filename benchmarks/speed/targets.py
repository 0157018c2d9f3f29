"""What was asked for: the first figure of each pair is sensible, the second is the goal."""

from dataclasses import dataclass


@dataclass(frozen=True)
class Target:
    """A figure that a row of a benchmark is held against.

    Attributes:
        what: What is measured.
        target: The sensible figure; None where only a goal was set.
        goal: The goal.
        at_most: Whether smaller is better.
        unit: "×" or "%".
    """

    what: str
    target: float | None
    goal: float
    at_most: bool
    unit: str = "×"

    def verdict(self, value: float) -> str:
        """Say what a measured figure reaches: "goal", "sensible" or "not reached"."""
        for aim, name in ((self.goal, "goal"), (self.target, "sensible")):
            if aim is not None and (value <= aim if self.at_most else value >= aim):
                return name
        return "not reached"


GATED, SNAIL = "GatedPixelCNN of about 0.5 M parameters", "PixelSNAIL"
STACK, PASSES = "gated stack, C64 L6, 32×32×3", "forward passes of the batch"
TARGETS = {
    "stack-float32": Target(f"{STACK}, float32: share of torch.mm", 0.7, 0.8, False, "%"),
    "stack-bfloat16": Target(f"{STACK}, bfloat16: share of torch.mm", 0.45, 0.55, False, "%"),
    "stack-recipe": Target(
        f"{STACK}: times as fast as float32, full masked kernels", 2.0, 2.5, False
    ),
    "snail-recipe": Target(
        f"{SNAIL}, C64, 2 blocks, 32×32×3: times as fast as float32, naive attention",
        1.8,
        2.3,
        False,
    ),
    "sampling-gated-many": Target(f"sampling {GATED}, batch 64: {PASSES}", 1.0, 0.7, True),
    "sampling-gated-one": Target(f"the same, batch 1, pure PyTorch: {PASSES}", 16.0, 7.0, True),
    "sampling-gated-one-compiled": Target(
        f"the same, batch 1, compiled loop: {PASSES}", None, 3.0, True
    ),
    "sampling-snail": Target(f"sampling {SNAIL}, batch 16: {PASSES}", 3.0, 1.5, True),
    "latents": Target("step time with latents over the decoder's alone", 2.0, 1.5, True),
}

"""What a benchmark is given and what it returns; nothing here is a ratio yet."""

from dataclasses import dataclass, field

from torch import nn

from speed.recipes import Network
from speed.timing import Figure


@dataclass(frozen=True)
class Settings:
    """Sizes and patience of a run.

    Attributes:
        side: Rows and columns of an image.
        channels: Width of the networks.
        gated_layers: Depth of the gated networks.
        snail_layers: Depth of PixelSNAIL.
        batch: Images per training step.
        batches: Images drawn at a time.
        sides: Image sides over which time is followed.
        widths: Widths over which time is followed.
        depths: Depths over which time is followed.
        growth_side: Image side at which width and depth are followed.
        growth_channels: Width at which side and depth are followed.
        growth_layers: Depth at which side and width are followed.
        growth_batch: Images where growth is followed.
        repetitions: Turns of every case.
        least: Seconds of a turn, at least.
        compile: Whether torch.compile is measured too.
    """

    side: int = 32
    channels: int = 64
    gated_layers: int = 6
    snail_layers: int = 8
    batch: int = 16
    batches: tuple[int, ...] = (1, 16, 64)
    sides: tuple[int, ...] = (8, 16, 32, 64)
    widths: tuple[int, ...] = (16, 32, 64, 128)
    depths: tuple[int, ...] = (2, 4, 8, 12)
    growth_side: int = 16
    growth_channels: int = 32
    growth_layers: int = 4
    growth_batch: int = 4
    repetitions: int = 7
    least: float = 0.3
    compile: bool = True

    def network(self, name: str, *, checkpointing: bool = False) -> Network:
        """Return the network of these sizes."""
        layers = self.snail_layers if name == "PixelSNAIL" else self.gated_layers
        return Network(name, self.side, self.channels, layers, checkpointing)


QUICK = Settings(
    side=16,
    channels=32,
    gated_layers=3,
    snail_layers=4,
    batch=8,
    batches=(1, 4),
    sides=(8, 16),
    widths=(16, 32),
    depths=(2, 4),
    growth_side=8,
    growth_channels=16,
    growth_layers=2,
    growth_batch=2,
    repetitions=3,
    least=0.05,
    compile=False,
)


@dataclass(frozen=True)
class Measured:
    """What was measured, as it was measured.

    Attributes:
        seconds: For every case one time per repetition.
        facts: Counts of operations, bytes or parameters.
        profiles: For some cases the share of each operator in their time.
    """

    seconds: dict[str, list[float]]
    facts: dict[str, float] = field(default_factory=dict)
    profiles: dict[str, dict[str, float]] = field(default_factory=dict)


@dataclass(frozen=True)
class Row:
    """One line of a table.

    Attributes:
        section: Title of its table.
        label: What was measured.
        figure: The figure.
        unit: "×" or "%", or nothing.
        target: Name of what was asked for, if anything.
    """

    section: str
    label: str
    figure: Figure
    unit: str
    target: str | None = None

    @classmethod
    def exact(cls, section: str, label: str, value: float, unit: str) -> "Row":
        """A line whose figure was counted, not timed."""
        return cls(section, label, Figure(value, value, value), unit)


def parameters(module: nn.Module | None) -> int:
    """Count the parameters of a module; none of None."""
    return 0 if module is None else sum(p.numel() for p in module.parameters())

"""Training on Lightning's Trainer: module, data module, checkpoints, log, and one function."""

from deltavae.training.checkpoints import AtomicCheckpointIO, RunCheckpoint
from deltavae.training.log import CSVLog, read_log
from deltavae.training.loop import DeltaVAEDataModule, Outcome, ema, refit_prior, train
from deltavae.training.module import DeltaVAEModule, TrainingDivergedError

__all__ = [
    "AtomicCheckpointIO",
    "CSVLog",
    "DeltaVAEDataModule",
    "DeltaVAEModule",
    "Outcome",
    "RunCheckpoint",
    "TrainingDivergedError",
    "ema",
    "read_log",
    "refit_prior",
    "train",
]

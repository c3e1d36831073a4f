"""Training: a loop around a model, its record, and what may take part in it."""

from nnsparse.train.callbacks import EarlyStopping
from nnsparse.train.checkpoint import Checkpoint
from nnsparse.train.evaluation import Evaluation, evaluate
from nnsparse.train.fit import fit
from nnsparse.train.health import NonFiniteLossError, check_finite
from nnsparse.train.history import Epoch, History
from nnsparse.train.hooks import (
    Callback,
    EffectBeforeStep,
    EndCallback,
    GradientReducer,
    ReplacingUpdate,
    Stateful,
    StepCallback,
    TrainState,
    Update,
)
from nnsparse.train.logs import CSVLog, JSONLinesLog, SparsityLog
from nnsparse.train.snapshot import Snapshot

__all__ = [
    "CSVLog",
    "Callback",
    "Checkpoint",
    "EarlyStopping",
    "EffectBeforeStep",
    "EndCallback",
    "Epoch",
    "Evaluation",
    "GradientReducer",
    "History",
    "JSONLinesLog",
    "NonFiniteLossError",
    "ReplacingUpdate",
    "Snapshot",
    "SparsityLog",
    "Stateful",
    "StepCallback",
    "TrainState",
    "Update",
    "check_finite",
    "evaluate",
    "fit",
]

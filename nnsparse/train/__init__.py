"""Training: a loop around a model, its record, and what may take part in it."""

from nnsparse.train.evaluation import Evaluation, evaluate
from nnsparse.train.fit import fit
from nnsparse.train.health import NonFiniteLossError, check_finite
from nnsparse.train.history import Epoch, History
from nnsparse.train.hooks import Callback, EffectBeforeStep, ReplacingUpdate, TrainState, Update

__all__ = [
    "Callback",
    "EffectBeforeStep",
    "Epoch",
    "Evaluation",
    "History",
    "NonFiniteLossError",
    "ReplacingUpdate",
    "TrainState",
    "Update",
    "check_finite",
    "evaluate",
    "fit",
]

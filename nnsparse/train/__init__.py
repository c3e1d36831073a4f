"""Training: what a loop around a model needs."""

from nnsparse.train.health import NonFiniteLossError, check_finite

__all__ = ["NonFiniteLossError", "check_finite"]

"""What the estimators' constructor arguments may be: one table, looked at when `fit` begins, as scikit-learn wants."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from nnsparse.estimators.methods import RECIPES
from nnsparse.sparsify.recipe import Recipe

ACTIVATIONS = ("identity", "logistic", "tanh", "relu")


@dataclass(frozen=True)
class Rule:
    """What one argument may be.

    Attributes
    ----------
    expected : str
        As the message says it.
    holds : value -> bool
    hint : value -> str
        What is probably meant, or "".
    """

    expected: str
    holds: Callable[[Any], bool]
    hint: Callable[[Any], str] = lambda value: ""


def check_parameters(who: str, given: Mapping[str, Any]) -> None:
    """Refuse arguments that do not follow their rules.

    Parameters
    ----------
    who : str
        The estimator's name, for the message.
    given : mapping
        Name -> value, as `get_params(deep=False)` returns it.

    Raises
    ------
    ValueError
        Naming the first of them, what it may be, and what it is.
    """
    for name, value in given.items():
        rule = RULES.get(name)
        if rule is not None and not rule.holds(value):
            raise ValueError(
                f"{who} expects {name} as {rule.expected}; got {value!r}.{rule.hint(value)}"
            )


def layer_sizes(hidden_layer_sizes: Any) -> list[int]:
    """Return the hidden layers' numbers of neurons, of one integer or several."""
    if isinstance(hidden_layer_sizes, int | np.integer):
        return [int(hidden_layer_sizes)]
    return [int(n) for n in hidden_layer_sizes]


# ---------------------------------------------------------------- the rules


def _is_integer(value: Any) -> bool:
    return isinstance(value, int | np.integer) and not isinstance(value, bool)


def _is_real(value: Any) -> bool:
    return (_is_integer(value) or isinstance(value, float | np.floating)) and not math.isnan(value)


def _count(low: int) -> Rule:
    return Rule(f"an integer >= {low}", lambda value: _is_integer(value) and value >= low)


def _real(expected: str, holds: Callable[[float], bool]) -> Rule:
    return Rule(expected, lambda value: _is_real(value) and holds(float(value)))


def _one_of(*names: str, hint: Callable[[Any], str] = lambda value: "") -> Rule:
    listed = ", ".join(repr(name) for name in names[:-1]) + f" or {names[-1]!r}"
    return Rule(listed, lambda value: isinstance(value, str) and value in names, hint)


def _sizes(value: Any) -> bool:
    if _is_integer(value):
        return bool(value >= 1)
    listed = isinstance(value, Sequence | np.ndarray) and not isinstance(value, str)
    return listed and all(_is_integer(n) and n >= 1 for n in value)


def _percentage(value: Any) -> str:
    return " A percentage? Divide by 100." if _is_real(value) and 1 < value <= 100 else ""


def _no_lbfgs(value: Any) -> str:
    known = isinstance(value, str) and value == "lbfgs"
    return " Small data? 'adam' with more epochs (max_iter) comes nearest." if known else ""


def _recipe(value: Any) -> bool:
    return value is None or isinstance(value, Recipe) or callable(value) or _named(value)


def _named(value: Any) -> bool:
    return isinstance(value, str) and value in RECIPES


_BOOL = Rule("True or False", lambda value: isinstance(value, bool | np.bool_))
_NOT_NEGATIVE = _real("a number >= 0", lambda value: 0 <= value < math.inf)
_POSITIVE = _real("a number > 0", lambda value: 0 < value < math.inf)
_BELOW_ONE = _real("a number from 0 to below 1", lambda value: 0 <= value < 1)

RULES: Mapping[str, Rule] = {
    "hidden_layer_sizes": Rule("an integer >= 1 or a sequence of them, one per layer", _sizes),
    "activation": _one_of(*ACTIVATIONS),
    "solver": _one_of("sgd", "adam", hint=_no_lbfgs),
    "alpha": _NOT_NEGATIVE,
    "batch_size": Rule(
        "'auto' or an integer >= 1",
        lambda value: (
            (isinstance(value, str) and value == "auto") or (_is_integer(value) and value >= 1)
        ),
    ),
    "learning_rate": _one_of("constant", "invscaling", "adaptive"),
    "learning_rate_init": _POSITIVE,
    "power_t": _NOT_NEGATIVE,
    "max_iter": _count(1),
    "shuffle": _BOOL,
    "tol": _NOT_NEGATIVE,
    "verbose": Rule(
        "True, False or an integer >= 0",
        lambda value: isinstance(value, bool | np.bool_) or (_is_integer(value) and value >= 0),
    ),
    "warm_start": _BOOL,
    "momentum": _BELOW_ONE,
    "nesterovs_momentum": _BOOL,
    "early_stopping": _BOOL,
    "validation_fraction": _real("a number between 0 and 1", lambda value: 0 < value < 1),
    "beta_1": _BELOW_ONE,
    "beta_2": _BELOW_ONE,
    "epsilon": _POSITIVE,
    "n_iter_no_change": Rule(
        "an integer >= 1 or np.inf",
        lambda value: (_is_integer(value) and value >= 1) or (_is_real(value) and value == np.inf),
    ),
    "sparsity": Rule(
        "the fraction of weights that are zero, from 0 to below 1",
        lambda value: _is_real(value) and 0 <= value < 1,
        _percentage,
    ),
    "distribution": _one_of("erk", "uniform"),
    "recipe": Rule(
        f"None, a function of nnsparse.sparsify such as sparsify.rigl, what it returns, or one of {', '.join(RECIPES)}",
        _recipe,
    ),
    "class_weight": Rule(
        "None, 'balanced' or a dict {label: weight}",
        lambda value: (
            value is None
            or isinstance(value, Mapping)
            or (isinstance(value, str) and value == "balanced")
        ),
    ),
}

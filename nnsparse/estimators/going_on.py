"""Trainings that go on with a model, by `warm_start` or `partial_fit`: what they may not change, and the way back.

`guarded` and `kept` together make every training all or nothing; `parameters` has the rules of single arguments.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import wraps
from typing import Any, Concatenate, ParamSpec, TypeVar

from nnsparse import nn
from nnsparse.estimators.network import affine
from nnsparse.estimators.parameters import layer_sizes
from nnsparse.nn._state import remember

_Estimator = TypeVar("_Estimator")
_Arguments = ParamSpec("_Arguments")

# Arguments that only the first training looks at; hidden_layer_sizes, which may be written in several ways, apart.
_OF_THE_FIRST = "activation", "sparsity", "distribution"


def guarded(
    train: Callable[Concatenate[_Estimator, _Arguments], None],
) -> Callable[Concatenate[_Estimator, _Arguments], None]:
    """Return a method after whose errors the estimator is as before: a refused `fit` leaves the older model usable.

    This gives the attributes back; what a training changes inside of them is for `kept`.
    """

    @wraps(train)
    def safe(
        estimator: _Estimator, /, *args: _Arguments.args, **options: _Arguments.kwargs
    ) -> None:
        before = dict(vars(estimator))
        try:
            train(estimator, *args, **options)
        except Exception:
            vars(estimator).clear()
            vars(estimator).update(before)
            raise

    return safe


@contextmanager
def kept(estimator: Any) -> Iterator[None]:
    """Give model, optimizer and records of a fitted estimator back what they have now, if the block fails.

    Bit for bit and in the same objects. Cost: while it lasts, a copy of the weights and of what the optimizer keeps
    for them.
    """
    undo = remember(estimator.model_), estimator._optimizer._remember()
    records = [estimator.loss_curve_, estimator.validation_scores_]
    lengths = [(record, len(record)) for record in records if record is not None]
    try:
        yield
    except Exception:
        for change in undo:
            change()
        for record, length in lengths:
            del record[length:]  # they only grow
        raise


def settings_of(estimator: Any) -> dict[str, Any]:
    """Return the arguments that a model is made by, and keeps: name -> value."""
    return {name: getattr(estimator, name) for name in _OF_THE_FIRST}


def check_going_on(who: str, estimator: Any, model: nn.Sequential, first: dict[str, Any]) -> None:
    """Refuse arguments that ask for another model than the one to go on with.

    Parameters
    ----------
    who : str
        The estimator's name, for the message.
    estimator : estimator
        With its present arguments, which follow their rules.
    model : nn.Sequential
        Of the first training.
    first : dict
        `settings_of` then. Not what the model is like now: a recipe has moved its sparsity.

    Raises
    ------
    ValueError
        Naming the argument, what it was and what it is.
    """
    hidden = tuple(layer.out_features for layer in affine(model)[:-1])
    was = {"hidden_layer_sizes": hidden, **first}
    now = {
        "hidden_layer_sizes": tuple(layer_sizes(estimator.hidden_layer_sizes)),
        **settings_of(estimator),
    }
    for name, value in was.items():
        if now[name] != value:
            raise ValueError(
                f"{who} expects {name}={value!r} of the model that it goes on with; got {now[name]!r}. "
                "To begin anew, call fit with warm_start=False."
            )


def check_incremental(who: str, estimator: Any) -> None:
    """Refuse the arguments that `partial_fit` can do nothing with.

    Raises
    ------
    ValueError
        With `early_stopping` or a `recipe`.
    """
    for name, refused in (
        ("early_stopping=False", estimator.early_stopping),
        ("recipe=None", estimator.recipe is not None),
    ):
        if refused:
            raise ValueError(
                f"{who}.partial_fit expects {name}: it does not know how long the training will be. Call fit."
            )

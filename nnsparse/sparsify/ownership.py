"""Which Sparsifier a layer belongs to: the one that was made last. An earlier one is stopped when it wants to go on."""

from __future__ import annotations

from collections.abc import Iterable
from typing import final
from weakref import WeakKeyDictionary

from nnsparse.nn.module import Module

# The mark of the last claim to each layer. Neither keeps anything alive: a mark knows no layer and no Sparsifier.
_last: WeakKeyDictionary[Module, object] = WeakKeyDictionary()


@final
class Claim:
    """The right to change layers, until somebody else claims one of them.

    Two Sparsifiers on one layer would undo each other's work without a word. In a notebook, a cell that is run again
    makes a new one while the old one still exists, so the new one is not refused: the old one is.

    Parameters
    ----------
    layers : iterable of (name, Module)
    """

    def __init__(self, layers: Iterable[tuple[str, Module]]) -> None:
        self._layers = tuple(layers)
        self._mark = object()
        for _, layer in self._layers:
            _last[layer] = self._mark

    def check(self, recipe: str) -> None:
        """Refuse to go on if the claim to a layer has passed to somebody else.

        Raises
        ------
        RuntimeError
            Naming the layer. Copies of layers, which nobody claimed, are fine.
        """
        for name, layer in self._layers:
            if _last.get(layer, self._mark) is not self._mark:
                raise RuntimeError(
                    f"Sparsifier ({recipe}): another Sparsifier was made for layer {name!r} after this one, and has "
                    "taken it over. Go on with that one, in updates=[...] too. To run both, give each layers of its "
                    "own: skip=[...]."
                )

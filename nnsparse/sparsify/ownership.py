"""Which Sparsifier a layer belongs to: the one that was made last. An earlier one is stopped when it wants to go on.

What an earlier one held at zero in other layers is nobody's then: it is compressed.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import final
from weakref import ReferenceType, WeakKeyDictionary, ref

from nnsparse.nn.module import Module
from nnsparse.sparsify.context import Target, targets
from nnsparse.sparsify.holding import compress


@final
class _Mark:
    """What tells one claim from another."""

    lost = False  # whether another claim has taken one of its layers


# The mark of the last claim to each layer. Nothing is kept alive: a mark knows no layer and no Sparsifier.
_last: WeakKeyDictionary[Module, ReferenceType[_Mark]] = WeakKeyDictionary()


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
        self._mark = _Mark()
        for _, layer in self._layers:
            if (other := self._other(layer)) is not None:
                other.lost = True
            _last[layer] = ref(self._mark)

    def check(self, recipe: str) -> None:
        """Refuse to go on if the claim to a layer has passed to somebody else.

        Raises
        ------
        RuntimeError
            Naming the layer. Copies of layers, which nobody claimed, are fine.
        """
        for name, layer in self._layers:
            last = _last.get(layer)
            if last is not None and last() is not self._mark:
                raise RuntimeError(
                    f"Sparsifier ({recipe}): another Sparsifier was made for layer {name!r} after this one, and has "
                    "taken it over. Go on with that one, in updates=[...] too. To run both, give each layers of its "
                    "own: skip=[...]."
                )

    def compress_abandoned(self, model: Module, own: Sequence[Target]) -> None:
        """Compress the sparse layers that are not `own` and hold weights at zero for nobody who can go on.

        An interrupted Sparsifier leaves such layers behind: the optimizer would give those weights values again.
        """
        layers = {id(target.layer) for target in own}
        for target in targets(model):
            other = self._other(target.layer)
            if id(target.layer) not in layers and (other is None or other.lost):
                compress(target)

    def _other(self, layer: Module) -> _Mark | None:
        """Return the mark of another claim to a layer whose Sparsifier still exists."""
        last = _last.get(layer)
        mark = None if last is None else last()
        return None if mark is self._mark else mark

"""Prune a network by one recipe or several, before or while it learns handwritten digits, beside it dense.

All start from the same dense weights and see the same batches, one network after the other. What a recipe does is in
its docstring: `nnsparse.sparsify.recipes`. Try `--recipe agp one_cycle snip --sparsity 0.95 --plot pruning.png`.
"""

from __future__ import annotations

from _common import load_digits
from _sparse import Network, compare, finish, parse

import nnsparse as ns
from nnsparse import nn, sparsify

RECIPES = {
    "one_shot": sparsify.one_shot,
    "iterative": sparsify.iterative,
    "agp": sparsify.agp,
    "one_cycle": sparsify.one_cycle,
    "random": sparsify.random,
    "magnitude": sparsify.magnitude,
    "snip": sparsify.snip,
    "grasp": sparsify.grasp,
    "synflow": sparsify.synflow,
    "obd": sparsify.obd,
}


def main(argv: list[str] | None = None) -> None:
    """Train each recipe's network and the dense one, and print what became of them."""
    args = parse(argv, __doc__, RECIPES, "agp")
    name, *data = load_digits(args.data)
    sizes = [784, *args.hidden, 10]
    about = f"{name}, {'-'.join(map(str, sizes))}, sparsity {args.sparsity:.1%}"
    print(f"{about}; {len(data[0][0]):,} training images; {ns.get_num_threads()} threads")

    def prunable() -> nn.Sequential:
        """Return the network with all weights, to be pruned."""
        return sparsify.prunable(nn.mlp(sizes, rng=args.seed))

    networks = [
        Network(r, prunable, lambda epoch, r=r: RECIPES[r](args.sparsity)) for r in args.recipe
    ]
    networks.append(Network("dense", lambda: nn.mlp(sizes, rng=args.seed)))
    runs = compare(networks, args, data)
    finish(runs, about, args)


if __name__ == "__main__":
    main()

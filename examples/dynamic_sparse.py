"""Train a network that is sparse from the first step, its weights moving, beside a static and a dense one.

The sparse networks start with the same random pattern (Erdős-Rényi) and weights and see the same batches, one network
after the other. What a recipe does is in its docstring: `nnsparse.sparsify.dynamic`.
Try `--recipe set rigl granet --sparsity 0.98 --plot dynamic.png`.
"""

from __future__ import annotations

from _common import load_digits
from _sparse import Network, compare, parse
from _sparse_report import finish

import nnsparse as ns
from nnsparse import nn, sparsify

# By sparsity and steps per epoch: two papers update once per epoch (twice is better here), the others every 100 steps.
RECIPES = {
    "set": lambda sparsity, epoch: sparsify.set_(sparsity, every=max(1, epoch // 2)),
    "rigl": lambda sparsity, epoch: sparsify.rigl(sparsity),
    "snfs": lambda sparsity, epoch: sparsify.snfs(sparsity, every=max(1, epoch // 2)),
    "top_kast": lambda sparsity, epoch: sparsify.top_kast(sparsity),
    "srigl": lambda sparsity, epoch: sparsify.srigl(sparsity),
    "granet": lambda sparsity, epoch: sparsify.granet(sparsity),
}


def main(argv: list[str] | None = None) -> None:
    """Train each recipe's network, the static and the dense one, and print what became of them."""
    args = parse(argv, __doc__, RECIPES, "rigl")
    name, *data = load_digits(args.data)
    sizes = [784, *args.hidden, 10]
    about = f"{name}, {'-'.join(map(str, sizes))}, sparsity {args.sparsity:.1%}"
    print(f"{about}; {len(data[0][0]):,} training images; {ns.get_num_threads()} threads")

    def sparse() -> nn.Sequential:
        """Return the network at its first pattern; a layer that got all its weights may lose some later."""
        return sparsify.prunable(nn.mlp(sizes, sparsity=args.sparsity, rng=args.seed))

    networks = [
        Network(r, sparse, lambda epoch, r=r: RECIPES[r](args.sparsity, epoch)) for r in args.recipe
    ]
    networks.append(Network("static", sparse))
    networks.append(Network("dense", lambda: nn.mlp(sizes, rng=args.seed)))
    runs = compare(networks, args, data)
    finish(runs, about, args, data[1])


if __name__ == "__main__":
    main()

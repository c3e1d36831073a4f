"""Prune a network by one recipe or several, before or while it learns handwritten digits, beside it dense.

All start from the same dense weights and see the same batches, one network after the other. What a recipe does is in
its docstring: `nnsparse.sparsify.recipes` (`sr_ste`: `dynamic`). The sparsity of n_m and sr_ste is that of the nearest
n of m weights, 2:4 for 0.5; that of group_lasso follows from --strength.
Try `--recipe agp one_cycle snip --sparsity 0.95 --plot pruning.png`, or `--recipe neurons group_lasso`.
"""

from __future__ import annotations

import argparse
from fractions import Fraction

from _common import load_digits
from _sparse import Network, compare, parse
from _sparse_report import finish

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
    # The rounds share one short training, so fewer of them, and more of it for the ticket that is left.
    "lottery_ticket": lambda sparsity: sparsify.lottery_ticket(sparsity, rounds=4, end=0.5),
    "neurons": sparsify.neurons,
    "n_m": lambda sparsity: sparsify.n_m(*n_of_m(sparsity)),
    "sr_ste": lambda sparsity: sparsify.sr_ste(*n_of_m(sparsity)),
}


def n_of_m(sparsity: float) -> tuple[int, int]:
    """Return n and m, from 4 to 100, with n / m near 1 − sparsity: 2:4 for 0.5, 1:10 for 0.9."""
    share = Fraction(1 - sparsity).limit_denominator(100)
    times = -(-4 // share.denominator)
    return times * share.numerator, times * share.denominator


def main(argv: list[str] | None = None) -> None:
    """Train each recipe's network and the dense one, and print what became of them."""
    own = argparse.ArgumentParser(add_help=False)
    own.add_argument("--strength", type=float, default=3e-3, help="of group_lasso's penalty, λ")
    args = parse(argv, __doc__, [*RECIPES, "group_lasso"], "agp", [own])
    makers = {**RECIPES, "group_lasso": lambda sparsity: sparsify.group_lasso(args.strength)}
    name, *data = load_digits(args.data)
    sizes = [784, *args.hidden, 10]
    about = f"{name}, {'-'.join(map(str, sizes))}, sparsity {args.sparsity:.1%}"
    print(f"{about}; {len(data[0][0]):,} training images; {ns.get_num_threads()} threads")

    def prunable() -> nn.Sequential:
        """Return the network with all weights, to be pruned."""
        return sparsify.prunable(nn.mlp(sizes, rng=args.seed))

    networks = [
        Network(r, prunable, lambda epoch, r=r: makers[r](args.sparsity)) for r in args.recipe
    ]
    networks.append(Network("dense", lambda: nn.mlp(sizes, rng=args.seed)))
    runs = compare(networks, args, data)
    finish(runs, about, args, data[1])


if __name__ == "__main__":
    main()

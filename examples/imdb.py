"""Tell good film reviews from bad ones: an embedding, its mean over a review, and sparse hidden layers.

Beside the network with random sparse hidden layers train the same one dense, and, with --recipe, one whose sparsity
moves. The reviews are IMDb's 50 000; where they cannot be had, embedded, generated ones stand in.
Try `--ngrams 2 --vocabulary 200000`, or `--hidden 1024 1024 1024 --recipe rigl agp`. With `--features 2048` nothing is
trained: frozen features of 1024 reviews are written, for `python -m benchmarks.thesis --features 2048
--features-from imdb-2048.npz`.
"""

from __future__ import annotations

import argparse
from pathlib import Path

import numpy as np
from _common import at_least, load_reviews, output_file
from _sparse import Data, Network, compare, parse
from _sparse_report import finish

import nnsparse as ns
from nnsparse import nn, optim, sparsify

# By sparsity; what each does is in the docstrings of `nnsparse.sparsify`.
RECIPES = {
    "static": None,
    "agp": sparsify.agp,
    "set": sparsify.set_,
    "rigl": sparsify.rigl,
    "granet": sparsify.granet,
}
REVIEWS = 1024  # whose features the thesis took


def options() -> argparse.ArgumentParser:
    """Return what this example asks beside the options that all have."""
    p = argparse.ArgumentParser(add_help=False)
    p.add_argument("--ngrams", type=int, choices=[1, 2], default=1, help="words, or bigrams too")
    p.add_argument("--vocabulary", type=at_least(3), default=32_000, help="rows of the embedding")
    p.add_argument("--length", type=at_least(1), default=800, help="words kept of a review")
    p.add_argument("--dim", type=at_least(1), default=64, help="columns of the embedding")
    p.add_argument("--features", type=at_least(1), metavar="N", help="write N frozen features")
    p.add_argument("--out", type=output_file, help="where to; default imdb-N.npz")
    return p


def network(args: argparse.Namespace, sparsity: float | None) -> nn.Sequential:
    """Return embedding, mean, hidden layers of this sparsity (None: dense) and an output for each class."""
    sizes = [args.dim, *args.hidden, 2]
    embedding = nn.EmbeddingBag(args.vocabulary, args.dim, padding_idx=0, rng=args.seed)
    head = nn.mlp(sizes, sparsity=sparsity, rng=args.seed)
    if sparsity is not None:
        head = sparsify.prunable(head)
    return nn.Sequential(embedding, *head)


def write_features(data: Data, args: argparse.Namespace) -> None:
    """Write the means of frozen random embeddings of the first reviews, as the thesis' timing takes them."""
    (x, y), _ = data
    bag = nn.EmbeddingBag(args.vocabulary, args.features, padding_idx=0, rng=args.seed)
    path = args.out or Path(f"imdb-{args.features}.npz")
    np.savez_compressed(path, x=bag.predict(x[:REVIEWS]), y=y[:REVIEWS])
    print(f"{path}: {args.features} features of {min(REVIEWS, len(x))} reviews")


def main(argv: list[str] | None = None) -> None:
    """Train the networks and print what became of them."""
    defaults = {"hidden": [512, 512], "sparsity": 0.95, "epochs": 2, "lr": 0.002, "batch_size": 64}
    choices = ("auto", "imdb", "generated")
    args = parse(argv, __doc__, RECIPES, "static", [options()], choices, defaults)
    reviews = {"vocabulary": args.vocabulary, "ngrams": args.ngrams, "max_length": args.length}
    name, *data = load_reviews(args.data, **reviews)
    if args.features:
        write_features(data, args)
        return
    about = f"{name}, {args.vocabulary}-{args.dim}-{'-'.join(map(str, args.hidden))}-2"
    about += f", hidden layers {args.sparsity:.1%} sparse"
    print(f"{about}; {len(data[0][0]):,} training reviews; {ns.get_num_threads()} threads")

    def adam(model: nn.Sequential) -> optim.Adam:
        return optim.Adam(model.parameters(), lr=args.lr)

    networks = []
    for name in dict.fromkeys([*args.recipe, "static"]):
        recipe = RECIPES[name] and (lambda epoch, make=RECIPES[name]: make(args.sparsity))
        networks.append(Network(name, lambda: network(args, args.sparsity), recipe, adam))
    networks.append(Network("dense", lambda: network(args, None), optimizer=adam))
    runs = compare(networks, args, data)
    finish(runs, about, args, data[1])


if __name__ == "__main__":
    main()

"""Learn handwritten digits with sparse hidden layers, beside the same network dense.

The experiment of the thesis: 784-256-[256]x3-10, the layers between hidden ones pruned at random.
Four networks train side by side on the same batches: sparse; the same weights dense, with masks;
dense on our own kernels; and dense on NumPy. On several processes the sparse one trains alone:

    mpirun -n 2 python examples/mnist.py --distributed
"""

from __future__ import annotations

import argparse
import json

import numpy as np
from _common import Run, load_digits, output_file, picture_file, plot_runs, results_table
from _distributed import train_together
from tqdm import tqdm

import nnsparse as ns
from nnsparse import nn
from nnsparse.data import DataLoader


def networks(args: argparse.Namespace) -> list[Run]:
    """Return the four runs: sparse, masked (same weights), dense, and the same dense on NumPy."""
    sizes = [784, *args.hidden, 10]
    pruned = [None, *[args.sparsity] * (len(args.hidden) - 1), None]
    sparse = nn.mlp(sizes, sparsity=pruned, dtype=args.dtype, rng=args.seed)
    dense = nn.mlp(sizes, dtype=args.dtype, rng=args.seed)
    models = {
        f"sparse ({args.sparsity:.0%})": sparse,
        "dense, masked": nn.Sequential(*(copy(layer, nn.Linear) for layer in sparse)),
        "dense": dense,
        "dense, NumPy": nn.Sequential(*(copy(layer, nn.NumpyLinear) for layer in dense)),
    }
    runs = [Run(name, model, args.lr, args.momentum) for name, model in models.items()]
    for a, b in zip(sparse, runs[1].model, strict=True):
        if isinstance(a, nn.SparseLinear):
            runs[1].masks.append((b.weight, a.weight.topology.to_dense().astype(args.dtype)))
    return runs


def copy(layer: nn.Module, kind: type[nn.Linear] | type[nn.NumpyLinear]) -> nn.Module:
    """Return an affine layer's weights in a dense layer of the given kind; other layers as they are."""
    if not hasattr(layer, "in_features"):
        return layer
    dense = layer.to_dense() if isinstance(layer, nn.SparseLinear) else layer
    twin = kind(dense.in_features, dense.out_features, dtype=dense.dtype)
    twin.load_state_dict(dense.state_dict())
    return twin


def parse(argv: list[str] | None) -> argparse.Namespace:
    """Read and check the options."""
    p = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.ArgumentDefaultsHelpFormatter
    )
    p.add_argument("--data", choices=["auto", "mnist", "digits"], default="auto")
    p.add_argument("--sparsity", type=float, default=0.8, help="of the layers between hidden ones")
    p.add_argument("--hidden", type=int, nargs="+", default=[256] * 4, help="hidden layers' sizes")
    p.add_argument("--epochs", type=int, default=20)
    p.add_argument("--batch-size", type=int, default=64)
    p.add_argument("--lr", type=float, default=0.01)
    p.add_argument("--momentum", type=float, default=0.0)
    p.add_argument("--dtype", choices=["float32", "float64"], default="float32")
    p.add_argument("--seed", type=int, default=0)
    p.add_argument("--threads", type=int, help="per process; default: all cores, shared equally")
    p.add_argument("--distributed", action="store_true", help="run on the processes of mpirun")
    p.add_argument("--json", type=output_file, help="write options, table and every loss there")
    p.add_argument("--plot", type=picture_file, help="draw curves there (needs matplotlib)")
    args = p.parse_args(argv)
    if len(args.hidden) < 2 or min(args.hidden) < 1:
        p.error("--hidden expects two sizes or more, each at least 1")
    if args.epochs < 1 or args.batch_size < 1 or args.seed < 0:
        p.error("--epochs and --batch-size expect at least 1, --seed at least 0")
    if not 0 <= args.sparsity <= 1:
        p.error(f"--sparsity expects a fraction from 0 to 1; got {args.sparsity:g}")
    if not (0 < args.lr < float("inf") and 0 <= args.momentum < 1):
        p.error("--lr expects a number above 0, --momentum one from 0 to below 1")
    try:
        ns.set_num_threads(ns.get_num_threads() if args.threads is None else args.threads)
    except ValueError as error:
        p.error(f"--threads: {error}")
    return args


def main(argv: list[str] | None = None) -> None:
    """Train the four networks and print what became of them."""
    args = parse(argv)
    if args.distributed:
        return train_together(lambda: networks(args)[0], args)
    name, train, test = load_digits(args.data)
    about = f"{name}: {len(train[0]):,} training and {len(test[0]):,} test images"
    print(f"{about}; {ns.get_num_threads()} threads")
    runs = networks(args)
    loader = DataLoader(train, batch_size=args.batch_size, rng=args.seed)
    with tqdm(total=args.epochs * len(runs) * len(loader), unit="step", mininterval=0.5) as bar:
        for epoch in range(args.epochs):
            for run in runs:  # they take turns, so that a noisy machine disturbs all alike
                loader.epoch = epoch
                run.epoch(loader, test, bar)
    print(results_table(runs))
    sparse, masked = (np.reshape(run.losses, (args.epochs, -1)) for run in runs[:2])
    gap = float(np.abs(sparse.mean(1) - masked.mean(1)).max())
    print(f"largest gap between the sparse and the masked loss, epoch by epoch: {gap:.1e}")
    print(
        f"                                                      step by step: {np.abs(sparse - masked).max():.1e}"
    )
    if args.json:
        options = {key: str(value) for key, value in vars(args).items()}
        losses = {run.name: run.losses for run in runs}
        results = [run.summary() for run in runs]
        args.json.write_text(
            json.dumps(
                {"data": name, "options": options, "gap": gap, "results": results, "losses": losses}
            )
        )
    if args.plot:
        plot_runs(runs, about, args.plot)
    if runs[0].accuracy[-1] < 0.5:
        raise SystemExit(
            "The sparse network did not learn. Try another --lr or a lower --sparsity."
        )
    return None


if __name__ == "__main__":
    main()

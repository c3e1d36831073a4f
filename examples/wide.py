"""Train a network too wide for any dense matrix: ten million neurons on a laptop's memory.

A dense layer between two layers of 3.4 million neurons would have 11 560 000 000 000 weights, 46 TB; with ten inputs a
neuron it has 34 million. The data are generated: rows of a million features of which a hundred are not zero, and few
tell the class. By default the network has 100 000 neurons and takes seconds. Ten million of them, below 20 GB:

    python examples/wide.py --neurons 10200000 --samples 1024 --epochs 2

and the cost against width, one process each: python examples/wide.py --widths 100000 1000000 10000000 --plot cost.png
"""

from __future__ import annotations

import argparse
import json
import time

import numpy as np
from _common import at_least, output_file, picture_file
from _wide import CLASSES, cost_table, network, peak_gb, planted, plot_cost, scaling, sizes, tell

import nnsparse as ns
from nnsparse import nn, optim, sparsify, train
from nnsparse.data import DataLoader
from nnsparse.sparsify import Sparsifier

RECIPES = {"none": None, "set": sparsify.set_, "rigl": sparsify.rigl}


def parse(argv: list[str] | None) -> argparse.Namespace:
    """Read and check the options."""
    p = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    p.add_argument("--neurons", type=at_least(100), default=100_000, help="hidden ones, in all")
    p.add_argument("--hidden-layers", type=at_least(1), default=3)
    p.add_argument("--inputs-per-neuron", type=at_least(1), default=10)
    p.add_argument("--features", type=at_least(200), help="default: a tenth of the neurons")
    p.add_argument("--samples", type=at_least(32), default=2048, help="to train on")
    p.add_argument("--batch-size", type=at_least(1), default=32)
    p.add_argument("--epochs", type=at_least(1), default=2)
    p.add_argument("--lr", type=float, default=0.01)
    p.add_argument(
        "--recipe", choices=RECIPES, default="none", help="moves weights up to four times"
    )
    p.add_argument("--seed", type=at_least(0), default=0)
    p.add_argument("--widths", type=at_least(100), nargs="+", metavar="N", help="cost by neurons")
    p.add_argument("--json", type=output_file, help="write options and results there")
    p.add_argument("--plot", type=picture_file, help="draw cost by width there (with --widths)")
    args = p.parse_args(argv)
    if not 0 < args.lr < float("inf"):
        p.error("--lr expects a number above 0")
    if args.neurons < 100 * args.hidden_layers:
        p.error("--neurons expects 100 for each of --hidden-layers, or more")
    if args.plot and not args.widths:
        p.error("--plot draws the cost by width: give --widths too")
    args.features = args.features or max(200, args.neurons // 10)
    return args


def learn(args: argparse.Namespace) -> dict[str, object]:
    """Make data and network, train it, and return what it cost."""
    rng = np.random.default_rng(args.seed)
    data, test = planted(args.samples, 256, args.features, rng)
    layers, before = sizes(args.neurons, args.hidden_layers, args.features), peak_gb()
    start = time.perf_counter()
    try:
        model = network(layers, args.inputs_per_neuron, rng)
    except ValueError as error:  # more memory than there is
        raise SystemExit(str(error)) from None
    optimizer = optim.SGD(model.parameters(), lr=args.lr, momentum=0.9)
    loader = DataLoader(data, batch_size=args.batch_size, rng=args.seed)
    total, updates = args.epochs * len(loader), []
    if recipe := RECIPES[args.recipe]:
        chosen = recipe(every=-(-total // 5))
        updates.append(Sparsifier(model, optimizer, chosen, total, rng=args.seed))
    report = ns.memory_report(model)  # the plans are built here
    seconds = time.perf_counter() - start
    weights = sum(p.size for p in model.parameters())
    print(
        f"{'-'.join(map(str, layers))}: {weights:,} parameters, made in {seconds:.1f} s, ", end=""
    )
    print(f"{report.total / 1e9:.2f} GB; dense {4e-9 * np.dot(layers[1:], layers[:-1]):,.0f} GB")
    loss_fn = nn.CrossEntropyLoss()
    history = train.fit(
        model, loss_fn, optimizer, loader, epochs=args.epochs, validation=test, updates=updates,
        callbacks=[tell],
    )  # fmt: skip
    if history.interrupted:
        raise SystemExit(130)
    return {
        "neurons": sum(layers[1:-1]), "weights": weights, "layers": layers,
        "build_seconds": seconds, "ms_per_step": 1e3 * float(np.median(history["step_seconds"])),
        "epoch_seconds": history["seconds"].tolist(), "losses": history["step_loss"].tolist(),
        "test_accuracy": float(history["validation_accuracy"][-1]),
        "bytes_before": before * 1e9, "peak_bytes": peak_gb() * 1e9,
    }  # fmt: skip


def main(argv: list[str] | None = None) -> None:
    """Train one network, or several of different widths, and print what became of it."""
    args = parse(argv)
    if args.widths:
        names = "hidden_layers", "inputs_per_neuron", "samples", "batch_size", "epochs", "recipe"
        options = [f"--{name.replace('_', '-')}={getattr(args, name)}" for name in names]
        rows = scaling(args.widths, options)
        print(cost_table(rows))
    else:
        rows = [learn(args)]
    if args.json:
        args.json.write_text(json.dumps(rows if args.widths else rows[0]) + "\n")
    if args.plot:
        plot_cost(rows, args.plot)
    if min(float(row["test_accuracy"]) for row in rows) < 3 / CLASSES:
        raise SystemExit("A network did not learn. Try another --lr, or more --samples.")


if __name__ == "__main__":
    main()

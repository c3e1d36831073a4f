"""Learn handwritten digits on a RadiX-Net, beside a random topology of the same density and the dense network.

A RadiX-Net is sparse and regular before any training, with as many paths between any two ends as between two others.
The default is LeNet-300-100 at 90 % sparsity, `--radices 2 2` at 50 %; a dense layer to the 10 digits comes last.
Pictures are padded with zeros to a multiple of the radices' product. All networks see the same batches, in turns.
"""

from __future__ import annotations

import argparse
import json

import numpy as np
from _common import Run, at_least, load_digits, output_file, picture_file, plot_runs, results_table
from tqdm import tqdm

from nnsparse import Topology, nn, optim
from nnsparse.data import DataLoader
from nnsparse.radix import RadixNet

PUBLISHED = "Published, LeNet-300-100, Adam 1e-3, batch 500, 5 epochs: 90 % sparse 91.05 %, 50 % 95.22 %, dense 96.86 %"


def sparse(topologies: list[Topology], seed: int) -> nn.Sequential:
    """Return sparse layers with ReLU, and a dense one to the 10 digits."""
    rng = np.random.default_rng(seed)
    layers: list[nn.Module] = []
    for t in topologies:
        layers += [nn.SparseLinear(t.shape[1], t.shape[0], topology=t, rng=rng), nn.ReLU()]
    return nn.Sequential(*layers, nn.Linear(topologies[-1].shape[0], 10, rng=rng))


def parse(argv: list[str] | None) -> tuple[argparse.Namespace, RadixNet]:
    """Read and check the options."""
    p = argparse.ArgumentParser(description=__doc__)
    p.add_argument("--radices", type=int, nargs="+", action="append", help="may be given again")
    p.add_argument("--hidden", type=int, nargs="+", default=[300, 100], help="one size per radix")
    p.add_argument("--data", choices=["auto", "mnist", "digits"], default="auto")
    p.add_argument("--epochs", type=at_least(1), default=5)
    p.add_argument("--batch-size", type=at_least(1), default=500)
    p.add_argument("--lr", type=float, default=1e-3, help="of Adam")
    p.add_argument("--seed", type=at_least(0), default=0)
    p.add_argument("--json", type=output_file, help="write options, table and every loss there")
    p.add_argument("--plot", type=picture_file, help="draw curves there (needs matplotlib)")
    args = p.parse_args(argv)
    args.radices = args.radices or [[10, 10]]
    if not 0 < args.lr < float("inf"):
        p.error("--lr expects a number above 0")
    try:
        nodes = RadixNet(args.radices).n_nodes
        return args, RadixNet(args.radices, [-(-784 // nodes) * nodes, *args.hidden])
    except ValueError as error:
        p.error(str(error))


def main(argv: list[str] | None = None) -> None:
    """Train the three networks and print what became of them."""
    args, net = parse(argv)
    name, *data = load_digits(args.data)
    about = f"{name}, {'-'.join(map(str, net.widths))}-10, radices {args.radices}"
    print(f"{about}: density {net.density:.1%}, {net.n_paths} paths from each input to each unit")
    radix = Topology.radix_net(net.radices, net.widths)
    random = [Topology.random(t.shape, nnz=t.nnz, rng=args.seed) for t in radix]
    models = {"RadiX-Net": sparse(radix, args.seed), "random": sparse(random, args.seed)}
    models["dense"] = nn.mlp([*net.widths, 10], rng=args.seed)
    runs = [Run(what, model, args.lr, 0.0) for what, model in models.items()]
    for run in runs:
        run.optimizer = optim.Adam(run.model.parameters(), lr=args.lr)
    train, test = ((np.pad(x, ((0, 0), (0, net.widths[0] - x.shape[1]))), y) for x, y in data)
    loader = DataLoader(train, batch_size=args.batch_size, rng=args.seed)
    with tqdm(total=args.epochs * len(runs) * len(loader), unit="step", mininterval=0.5) as bar:
        for epoch in range(args.epochs):
            for run in runs:
                loader.epoch = epoch
                run.epoch(loader, test, bar)
    print(results_table(runs) + "\n" + PUBLISHED)
    if args.json:
        result = {"data": name, "options": {key: str(value) for key, value in vars(args).items()}}
        result["results"] = [run.summary() for run in runs]
        result["losses"] = {run.name: run.losses for run in runs}
        args.json.write_text(json.dumps(result) + "\n")
    if args.plot:
        plot_runs(runs, about, args.plot)
    if min(run.accuracy[-1] for run in runs) < 0.5:
        raise SystemExit(
            "A network did not learn. Try another --lr, or a smaller product of radices."
        )


if __name__ == "__main__":
    main()

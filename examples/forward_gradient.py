"""Learn digits without backpropagation, by the forward gradient, beside the same network with it.

A step draws v ~ N(0, I), finds the slope of the loss along v in one forward pass, and takes slope·v
for the gradient (Baydin et al., Gradients without Backpropagation, 2022). On average it is that, and
no activation is kept; but its noise grows with the number of weights: it learns far slower.
"""

import argparse
import time
import tracemalloc

import numpy as np
from _common import Run, load_digits, plot_runs, table

import nnsparse as ns
from nnsparse import data, nn, tiles

RATES = {"forward gradient": (0.001, 0.003, 0.01), "backpropagation": (0.3, 1.0, 3.0)}


def differentiate(method, model, x, y, rng):
    """Fill each parameter's `grad` with its gradient or an estimate of it; return the loss."""
    loss_fn, parameters = nn.CrossEntropyLoss(), list(model.parameters())
    if method == "backpropagation":
        model.zero_grad()
        loss = loss_fn(model(x), y)
        loss.backward()
        return loss.item()
    directions = [rng.standard_normal(p.shape, p.dtype) for p in parameters]
    loss, slope = ns.jvp(lambda: loss_fn(model(x), y), parameters, directions)
    for parameter, v in zip(parameters, directions, strict=True):
        parameter.grad = slope * v
    return loss.item()


def train(method, lr, epochs, train_data, test):
    run = Run(method, nn.mlp([784, 128, 128, 10], sparsity=0.9, rng=0), lr, momentum=0.0)
    rng, loader = np.random.default_rng(1), data.DataLoader(train_data, batch_size=128, rng=2)
    for _ in range(epochs):
        for x, y in loader:
            start = time.perf_counter()
            run.losses.append(differentiate(method, run.model, x, y, rng))
            if not run.losses[-1] < 10:  # it diverges
                return run
            run.optimizer.step()
            run.seconds.append(time.perf_counter() - start)
        run.accuracy.append(float((run.model.predict(test[0]).argmax(1) == test[1]).mean()))
    return run


def peak(method, depth):
    """Return the MB that a pass over 128 samples takes at most, directions and all."""
    model, x = nn.mlp([784, *[128] * depth, 10], sparsity=0.9), np.zeros((128, 784), np.float32)
    differentiate(method, model, x, [0] * 128, np.random.default_rng(0))  # makes plans, kernels
    tiles.pool.clear()
    tracemalloc.start()
    differentiate(method, model, x, [0] * 128, np.random.default_rng(0))
    found = f"{tracemalloc.get_traced_memory()[1] / 1e6:.1f} MB"
    tracemalloc.stop()
    return found


def main(argv=None):
    p = argparse.ArgumentParser(description=__doc__)
    p.add_argument("--data", choices=["auto", "mnist", "digits"], default="auto")
    p.add_argument("--epochs", type=int, default=5)
    p.add_argument("--plot", help="draw curves into this file (needs matplotlib)")
    args = p.parse_args(argv)
    name, *split = load_digits(args.data)
    rows, best = ["method|rate|loss|test|ms/step|4 layers|32 layers"], []
    for method, rates in RATES.items():
        runs = [train(method, lr, args.epochs, *split) for lr in rates]
        run = min(runs, key=lambda run: (-len(run.losses), np.mean(run.losses[-100:])))
        row = f"{method}|{run.optimizer.lr:g}|{np.mean(run.losses[-100:]):.3f}|{run.accuracy[-1]:.1%}|"
        rows.append(f"{row}{1e3 * np.median(run.seconds):.2f}|{peak(method, 4)}|{peak(method, 32)}")
        best.append(run)
    print(f"{name}, {len(run.losses)} steps each, best of {len(rates)} rates; peak memory by depth")
    print(table([row.split("|") for row in rows]), "\nForward gradients learn far slower.")
    if args.plot:
        plot_runs(best, name, args.plot)
    if not np.mean(best[0].losses[-20:]) < 0.98 * best[0].losses[0]:
        raise SystemExit("The forward gradient did not learn: give it more epochs.")


if __name__ == "__main__":
    main()

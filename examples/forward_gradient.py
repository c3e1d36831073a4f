"""Learn digits without backpropagation, by the forward gradient, beside the same network with it.

A step takes slope·v for the gradient, where one forward pass finds the loss's slope along v ~ N(0, I) (Baydin et al.,
Gradients without Backpropagation, 2022): right on average, nothing is kept, but many weights make it noisy.
"""

import argparse
import time

import numpy as np
from _common import Run, at_least, load_digits, peak_bytes, picture_file, plot_runs, table

from nnsparse import data, grad, jvp, nn

RATES = {"forward gradient": (0.001, 0.003, 0.01), "backpropagation": (0.3, 1.0, 3.0)}


def differentiate(method, model, x, y, rng):
    """Fill each parameter's `grad` with its gradient or an estimate of it; return the loss."""
    loss_fn, parameters = nn.CrossEntropyLoss(), list(model.parameters())
    if method == "backpropagation":
        loss = loss_fn(model(x), y)
        gradients = grad(loss, parameters)
    else:
        directions = [rng.standard_normal(p.shape, p.dtype) for p in parameters]
        loss, slope = jvp(lambda: loss_fn(model(x), y), parameters, directions)
        gradients = [slope * v for v in directions]
    for parameter, gradient in zip(parameters, gradients, strict=True):
        parameter.grad = gradient
    return loss.item()


def train(method, lr, args, train_data, test):
    run = Run(method, nn.mlp([784, 128, 128, 10], sparsity=0.9, rng=args.seed), lr, momentum=0.0)
    rng = np.random.default_rng(args.seed + 1)
    loader = data.DataLoader(train_data, batch_size=128, rng=args.seed + 2)
    for _ in range(args.epochs):
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
    rng = np.random.default_rng(0)
    return f"{peak_bytes(lambda: differentiate(method, model, x, [0] * 128, rng)) / 1e6:.1f} MB"


def main(argv=None):
    p = argparse.ArgumentParser(description=__doc__)
    p.add_argument("--data", choices=["auto", "mnist", "digits"], default="auto")
    p.add_argument("--epochs", type=at_least(1), default=5)
    p.add_argument("--seed", type=at_least(0), default=0)
    p.add_argument("--plot", type=picture_file, help="draw curves there (needs matplotlib)")
    args = p.parse_args(argv)
    name, *split = load_digits(args.data)
    rows, best = ["method|rate|loss|test|ms/step|4 layers|32 layers"], []
    for method, rates in RATES.items():
        runs = [train(method, lr, args, *split) for lr in rates]
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

"""The Sparse DNN Graph Challenge: which images still live behind 120 layers and more, and how fast that is found.

Networks are made, exactly, or read from a folder of the official files; images are MNIST's training pictures made
larger, or an official file. Official categories are compared where they lie in $NNSPARSE_DATA/graphchallenge. Try
`--neurons 4096`, `--layers 1920 --variant filter`, `--neurons 65536 --variant filter --limit 10000`.
"""

from __future__ import annotations

import argparse
import json
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
from _common import at_least, input_file, load_digits, output_file, table

import nnsparse as ns
from nnsparse import graph_challenge as gc
from nnsparse.datasets import data_home
from nnsparse.graph_challenge.inference import VARIANTS, Result, run

# Nominal edges per second by neurons and layers, 60 000 official images; shared/design/GRAPH_CHALLENGE.md has sources.
PUBLISHED = {
    "seed paper, V100, cuSPARSE, filter": {
        (1024, 120): 8.56e10, (1024, 480): 8.92e10, (1024, 1920): 9.06e10, (4096, 120): 6.7e10,
        (16384, 120): 3.9e10,
    },
    "SuiteSparse:GraphBLAS, Xeon, 2 threads": {
        (1024, 120): 18.6e9, (1024, 480): 21.7e9, (1024, 1920): 22.7e9, (4096, 120): 18.5e9,
        (4096, 480): 20.8e9, (4096, 1920): 21.4e9,
    },
    "SNICIT, A6000": {(1024, 120): 17.6e12},
}  # fmt: skip


def parse(argv: list[str] | None) -> argparse.Namespace:
    """Read and check the options."""
    p = argparse.ArgumentParser(description=__doc__)
    p.add_argument("--neurons", type=int, choices=gc.BIAS, default=1024)
    p.add_argument("--layers", type=at_least(1), default=120, help="officially 120, 480 or 1920")
    p.add_argument("--variant", nargs="+", choices=VARIANTS, default=list(VARIANTS))
    p.add_argument("--data", choices=["auto", "mnist", "digits"], default="auto")
    p.add_argument("--images", type=input_file, help="an official file, instead of --data")
    p.add_argument("--weights", type=Path, help="a folder of official files n1024-l1.tsv ...")
    p.add_argument("--categories", type=input_file, help="an official file to compare with")
    p.add_argument("--limit", type=at_least(1), default=60_000, help="the first images only")
    p.add_argument("--batch", type=at_least(1), help="most images at a time")
    p.add_argument("--memory", type=float, default=4.0, help="GB for weights and activations")
    p.add_argument("--threads", type=at_least(1), default=ns.get_num_threads())
    p.add_argument("--json", type=output_file, help="write all figures and categories there")
    return p.parse_args(argv)


def open_images(args: argparse.Namespace, pictures: np.ndarray) -> Any:
    """Return the images anew: one matrix, or blocks of rows where a matrix would take gigabytes."""
    n, whole = args.neurons, args.neurons <= 4096
    if not args.images:
        make = gc.challenge_images if whole else gc.challenge_blocks
        return make(pictures, round(n**0.5))
    if whole:
        return gc.read_images(args.images, n)[: args.limit]
    blocks = gc.read_image_blocks(args.images, n)
    starts = range(0, args.limit, 1024)  # images of a block
    return (block[: args.limit - start] for start, block in zip(starts, blocks, strict=False))


def report(args: argparse.Namespace, results: list[Result]) -> None:
    """Print a table of all variants, and published figures."""
    rows = [["", "images", "live", "inference", "edges/s", "work/s", "prepare", "read", "memory"]]
    for r in results:
        rows.append([r.variant, f"{r.n_images:,}", f"{r.categories.size:,}", f"{r.seconds:.2f} s"])
        rows[-1] += [f"{r.rate:.2e}", f"{r.work_rate:.2e}", f"{r.prepare_seconds:.2f} s"]
        rows[-1] += [f"{r.read_seconds:.2f} s", f"{r.nbytes / 1e6:.0f} MB"]
    case = (args.neurons, args.layers)
    for name, figures in PUBLISHED.items():
        if case in figures:
            rows.append([name, "60,000", "", "", f"{figures[case]:.2e}", *[""] * 4])
    print("\n" + table(rows))
    print("edges: images times weights of all layers; work: only what the variant has to multiply")
    print(f"live after layer 1, 2 ...: {', '.join(map(str, results[0].rows[:12]))} ...")


def compare(args: argparse.Namespace, found: np.ndarray) -> int | None:
    """Print how many categories are official ones; return that number, None without an official file."""
    name = f"neuron{args.neurons}-l{args.layers}-categories.tsv"
    path = args.categories or data_home() / "graphchallenge" / name
    if not args.categories and not path.is_file():
        return None
    official = gc.read_categories(path)
    official = official[official < args.limit]
    common = int(np.intersect1d(official, found).size)
    print(f"{path.name}: {official.size} official, {found.size} here, {common} in common")
    return common


def main(argv: list[str] | None = None) -> None:
    """Run all variants, compare them and print what they took."""
    args = parse(argv)
    name, pictures = str(args.images), np.empty((0, 784), np.float32)
    if not args.images:
        name, (pictures, _), _ = load_digits(args.data)
    try:
        ns.set_num_threads(args.threads)
        size = (args.neurons, args.layers)
        net = gc.folder(args.weights, *size) if args.weights else gc.network(*size)
        print(f"{name}; {size[0]} neurons, {size[1]} layers; {args.threads} threads", flush=True)
        results = []
        for variant in args.variant:
            print(f"{variant} ...", flush=True)
            images = open_images(args, pictures[: args.limit])
            limits = {"batch": args.batch, "memory": round(args.memory * 1e9)}
            results.append(run(net, images, variant=variant, **limits))
    except (ValueError, OSError) as error:
        raise SystemExit(f"{type(error).__name__}: {error}") from None
    report(args, results)
    common = compare(args, results[0].categories)
    if args.json:
        arrays = [{"categories": r.categories.tolist(), "rows": r.rows.tolist()} for r in results]
        rows = [{**asdict(r), "rate": r.rate, **a} for r, a in zip(results, arrays, strict=True)]
        options = {key: str(value) for key, value in vars(args).items()}
        args.json.write_text(json.dumps({"options": options, "results": rows, "common": common}))
    odd = [np.setxor1d(r.categories, results[0].categories).size for r in results]
    if max(odd) > 1e-3 * results[0].n_images:
        raise SystemExit(f"The variants disagree: {dict(zip(args.variant, odd, strict=True))}")


if __name__ == "__main__":
    main()

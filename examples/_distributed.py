"""One network on several processes, each with its part of every mini-batch: what `--distributed` does."""

from __future__ import annotations

import argparse
import json
from collections.abc import Callable
from contextlib import redirect_stdout
from dataclasses import asdict
from io import StringIO

from _common import Run, load_digits, plot_runs

import nnsparse as ns
from nnsparse import distributed, nn
from nnsparse.data import DataLoader
from nnsparse.train import fit


def train_together(make: Callable[[], Run], args: argparse.Namespace) -> None:
    """Train the network that `make` returns, the same on all ranks; rank 0 prints, writes and draws."""
    with distributed.job(threads=args.threads) as comm:
        if comm.Get_rank():
            with redirect_stdout(StringIO()):
                _train(make(), args, comm, shown=False)
        else:
            _train(make(), args, comm, shown=True)


def _train(run: Run, args: argparse.Namespace, comm: distributed.Communicator, shown: bool) -> None:
    with distributed.rank_0_first(comm):  # it may have to download
        name, train, test = load_digits(args.data)
    parallel = distributed.DataParallel(run.model, comm)
    about = f"{name}: {parallel.size} ranks, {ns.get_num_threads()} threads each"
    print(about)
    loader = parallel.shard(DataLoader(train, batch_size=args.batch_size, rng=args.seed))
    history = fit(
        run.model,
        nn.CrossEntropyLoss(),
        run.optimizer,
        loader,
        epochs=args.epochs,
        validation=test,
        updates=[parallel],
        progress=shown,
    )
    parallel.check()
    report = parallel.report()
    print(history)
    print(report)
    run.losses, run.seconds = history["step_loss"].tolist(), history["step_seconds"].tolist()
    run.accuracy = history["validation_accuracy"].tolist()
    if shown and args.json:
        options = {key: str(value) for key, value in vars(args).items()}
        found = {"data": name, "options": options, "history": history.to_dict()}
        args.json.write_text(json.dumps({**found, "report": asdict(report)}))
    if shown and args.plot:
        plot_runs([run], about, args.plot)
    if run.accuracy[-1] < 0.5 and not history.interrupted:
        raise SystemExit("The network did not learn. Try another --lr or a lower --sparsity.")

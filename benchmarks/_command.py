"""The command line that makes a result, from its settings: what the README says beside each table."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import fields
from typing import Any

from benchmarks import accuracy, challenge, kernels, startup, text, training

Result = Mapping[str, Any]

SETTINGS: Mapping[str, Any] = {
    "kernels": kernels.Settings,
    "training": training.Settings,
    "startup": startup.Settings,
    "accuracy": accuracy.Settings,
    "text": text.Settings,
    "challenge": challenge.Settings,
}


def command(result: Result) -> str:
    """Return the command line that makes a result: what differs from the defaults, and threads."""
    s, words = result["settings"], ["python -m benchmarks." + result["benchmark"]]
    for field in fields(SETTINGS[result["benchmark"]]):
        if field.name in ("pause", "jobs", "state") or field.name not in s:
            continue  # no option, not yet one, or without influence
        value, name = s[field.name], "--" + field.name.replace("_", "-")
        default = json.loads(json.dumps(field.default))
        if field.name == "n_out":
            default = s["n_in"]
        if value == default and field.name != "threads":
            continue
        if isinstance(value, list):
            separator = " " if field.name in ("sparsity", "cases") else ","
            each = ["x".join(map(str, v)) if isinstance(v, list) else str(v) for v in value]
            words.append(f"{name} {separator.join(each)}")
        else:
            switch = name if value is True else f"--no-{name[2:]}" if value is False else ""
            words.append(switch or f"{name} {value}")
    return " ".join(words)

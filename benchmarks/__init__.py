"""Timings of nnsparse against its rivals, on the reader's own machine: `python -m benchmarks --list`.

Each part is a module with `Settings` (a frozen dataclass), `measure(settings) -> dict` (ready for
JSON), `report(result) -> str` (Markdown), `plot(result, path)`, `PART`, which holds these, and
`main(argv) -> int`, and runs alone: `python -m benchmarks.kernels --help`. `__main__` runs them
together with the settings of `_suite`. Shared pieces: `_common` (interleaved timing, statistics,
tables, JSON), `_program` (what every measurement does, command lines), `_machine` (what it ran on,
threads, control figures), `_rivals` (the layer step as each rival computes it), `_networks` (the
training step, of the networks in `_task`), `_images` (MNIST or digits), `_allocations` (what a step
asks the system for) and `_plain` (the documents' own sparse layers).
"""

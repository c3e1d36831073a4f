"""Timings of nnsparse against its rivals, on the reader's own machine.

Each part is a module with `Settings` (a frozen dataclass), `measure(settings) -> dict` (ready for
JSON), `report(result) -> str` (Markdown), `plot(result, path)` and `main(argv) -> int`, and runs
alone: `python -m benchmarks.kernels --help`. Shared pieces: `_common` (interleaved timing,
statistics, tables, JSON, command line), `_machine` (what it ran on, threads, control figures) and
`_rivals` (the layer step as each rival computes it).
"""

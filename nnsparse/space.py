"""Whether there is room for what is about to be allocated: asked before, because afterwards nobody can answer.

Linux grants memory that it does not have and ends the process that uses it. So whatever grows with a product of sizes
that a user gives asks here first.
"""

from __future__ import annotations

from pathlib import Path

SMALL = 2**26  # bytes that nobody asks for: 64 MB
_MEMINFO = Path("/proc/meminfo")
# Of a control group: its limit, what it uses, and the part of that which is only a copy of files.
_CGROUPS = (
    (Path("/sys/fs/cgroup"), "memory.max", "memory.current", "file"),
    (
        Path("/sys/fs/cgroup/memory"),
        "memory.limit_in_bytes",
        "memory.usage_in_bytes",
        "total_cache",
    ),
)


def available() -> int | None:
    """Return the bytes that this process can still get, swap included; None where the system does not tell.

    That is what Linux thinks available, or what the control group (a container) has left if that is less.
    """
    try:
        free = _numbers(_MEMINFO)
        found = [1024 * (free["MemAvailable:"] + free["SwapFree:"])]
    except (OSError, ValueError, KeyError):
        return None
    for folder, limit, usage, files in _CGROUPS:
        try:
            most = int((folder / limit).read_text())
            used = int((folder / usage).read_text()) - _numbers(folder / "memory.stat")[files]
        except (OSError, ValueError, KeyError):  # no such group, or "max": no limit
            continue
        found.append(max(0, most - used))
    return min(found)


def _numbers(path: Path) -> dict[str, int]:
    """Return what lines "name number ..." of a file say."""
    lines = (line.split() for line in path.read_text().splitlines())
    return {words[0]: int(words[1]) for words in lines if len(words) > 1}


def check_room(what: str, nbytes: int, hint: str) -> None:
    """Refuse to begin what cannot end well.

    Parameters
    ----------
    what : str
        What needs the memory, the subject of the message.
    nbytes : int
        The least that it needs.
    hint : str
        What to do instead, a sentence.

    Raises
    ------
    ValueError
        If it is more than is available. Never where the system does not tell.
    """
    if nbytes < SMALL:
        return
    left = available()
    if left is not None and nbytes > left:
        raise ValueError(
            f"{what} needs about {gigabytes(nbytes)}, {gigabytes(left)} available. {hint}"
        )


def gigabytes(nbytes: int) -> str:
    """Return bytes as text: 12.3 GB, 46,240 GB (of 10⁹ bytes)."""
    size = nbytes / 1e9
    return f"{size:,.0f} GB" if size >= 100 else f"{size:.1f} GB"

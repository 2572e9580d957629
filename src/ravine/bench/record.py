"""What every benchmark's record holds: environment, and rows that compare."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from typing import Any

from ravine.bench.timing import STREAM_BYTES
from ravine.errors import unknown_name
from ravine.training.environment import environment

OURS = "ravine"
"""The case that is compared with the peers; cases whose name begins so are no peers."""

STREAM = "stream limit"
"""The case that is `ravine.bench.timing.stream`, which no row goes without."""

Row = dict[str, Any]


def chosen(kind: str, wanted: Iterable[str], known: Mapping[str, Any]) -> list[str]:
    """Return the names that are wanted, all that are known where none is.

    Raises:
        UnknownNameError: for a name that is not known.
    """
    names = list(wanted)
    for name in names:
        if name not in known:
            raise unknown_name(f"benchmark {kind}", name, known)
    return names or list(known)


def compared(times: Mapping[str, float], moved: int, unable: Mapping[str, str]) -> Row:
    """Return what the times of the cases say.

    Args:
        times: seconds by case, ours and the stream limit's among them.
        moved: the bytes that must be read and written.
        unable: why a peer is missing.
    """
    times = dict(times)
    limit = STREAM_BYTES / times.pop(STREAM)
    peers = [name for name in times if not name.startswith(OURS)]
    best = min(peers, key=times.__getitem__, default=None)
    return {
        "microseconds": {case: round(taken * 1e6, 2) for case, taken in times.items()},
        "best_peer": best,
        "ratio": None if best is None else round(times[best] / times[OURS], 3),
        "bytes": moved,
        "stream_limit_bytes_per_second": round(limit),
        "share_of_limit": round(moved / times[OURS] / limit, 3),
        "unable": dict(unable),
    }


def recorded(
    kind: str, rows: Iterable[Callable[[], Row]], device: str, on_row: Callable[[Row], None]
) -> dict[str, Any]:
    """Measure the rows and report each."""
    measured: list[Row] = []
    for measure in rows:
        measured.append(measure())
        on_row(measured[-1])
    return {
        "kind": kind,
        "environment": environment(),
        "device": device,
        "rows": measured,
    }

"""What every benchmark's record holds: environment, stream limits, and rows that compare."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from typing import Any

from ravine.bench.timing import stream_limit
from ravine.errors import unknown_name
from ravine.training.environment import environment

OURS = "ravine"
"""The case that is compared with the peers; cases whose name begins so are no peers."""

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
        times: seconds by case, ours among them.
        moved: the bytes that must be read and written.
        unable: why a peer is missing.
    """
    peers = [name for name in times if not name.startswith(OURS)]
    best = min(peers, key=times.__getitem__, default=None)
    return {
        "microseconds": {case: round(taken * 1e6, 2) for case, taken in times.items()},
        "best_peer": best,
        "ratio": None if best is None else round(times[best] / times[OURS], 3),
        "bytes": moved,
        "unable": dict(unable),
    }


def recorded(
    kind: str,
    groups: Iterable[Iterable[Callable[[], Row]]],
    device: str,
    on_row: Callable[[Row], None],
) -> dict[str, Any]:
    """Measure the rows, and the stream limit before and after each group of them.

    A row is reported with its share of the limit measured last before it, and recorded with that
    of the faster one around it: what else the machine does can only make a limit smaller.
    """
    limits = [stream_limit(device=device)]
    rows: list[Row] = []
    for group in groups:
        before = len(rows)
        for measure in group:
            rows.append(_with_share(measure(), limits[-1]))
            on_row(rows[-1])
        limits.append(stream_limit(device=device))
        for row in rows[before:]:
            _with_share(row, max(limits[-2:]))
    return {
        "kind": kind,
        "environment": environment(),
        "device": device,
        "stream_limit_bytes_per_second": [round(limit) for limit in limits],
        "rows": rows,
    }


def _with_share(row: Row, limit: float) -> Row:
    row["share_of_limit"] = round(row["bytes"] / (row["microseconds"][OURS] * 1e-6) / limit, 3)
    return row

"""Time an optimizer's step on a GPU against torch.optim's fused and foreach, 1e6 to 1e9 weights.

    python benchmarks/gpu_steps.py
    python benchmarks/gpu_steps.py --sizes 1e6 1e8 --rules Adam RMSprop --dtype bfloat16

All candidates run in one process, in turn, and the ratio is taken within a round. A time is that
between two events on the device around several steps, so it holds the host's part where that is the
longer one (small models). The share is the bytes that the rule must move, divided by the time, and
by the bandwidth that a plain copy reached before in the same process (and once more after, to see
whether it held). The result is written to benchmarks/results/gpu_steps.json.
"""

from __future__ import annotations

import argparse
import json
import platform
import statistics
from pathlib import Path

import torch

import ravine
from ravine import optim

RESULTS = Path(__file__).parent / "results" / "gpu_steps.json"

# The rule's options; torch's class for them; how often each weight's bytes cross memory in a step.
RULES = {
    "SGD": ({"lr": 1e-3}, torch.optim.SGD, 3),
    "momentum": ({"lr": 1e-3, "momentum": 0.9}, torch.optim.SGD, 5),
    "RMSprop": ({"lr": 1e-3}, torch.optim.RMSprop, 5),
    "Adam": ({"lr": 1e-3}, torch.optim.Adam, 7),
    "AdamW": ({"lr": 1e-3}, torch.optim.AdamW, 7),
}
CLASSES = {"momentum": "SGD"}
TENSORS = 100
"""Tensors of a model; half the weights lie in one of them, the others share the rest."""


def parameters(weights: int, dtype: torch.dtype) -> list[torch.nn.Parameter]:
    """Return weights with gradients, in tensors of uneven sizes."""
    small = max(1, weights // 2 // (TENSORS - 1))
    made = []
    for size in [weights - small * (TENSORS - 1)] + [small] * (TENSORS - 1):
        weight = torch.nn.Parameter(torch.randn(size, device="cuda", dtype=dtype))
        weight.grad = torch.randn_like(weight)
        made.append(weight)
    return made


def milliseconds(action, repeat: int) -> float:
    """Return the time of one call between two events on the device."""
    start, end = (torch.cuda.Event(enable_timing=True) for _ in range(2))
    torch.cuda.synchronize()
    start.record()
    for _ in range(repeat):
        action()
    end.record()
    torch.cuda.synchronize()
    return start.elapsed_time(end) / repeat


def copy_bandwidth(size: int = 2**30) -> float:
    """Return bytes a second, read and written, of a plain copy; the best of ten."""
    source = torch.empty(size, dtype=torch.uint8, device="cuda")
    target = torch.empty_like(source)
    target.copy_(source)
    best = min(milliseconds(lambda: target.copy_(source), 5) for _ in range(10))
    return 2 * size / best * 1e3


def candidates(rule: str, weights: list[torch.nn.Parameter]) -> dict[str, torch.optim.Optimizer]:
    """Return the optimizers that can run this rule, by name."""
    options, torch_class, _ = RULES[rule]
    found = {"ravine": getattr(optim, CLASSES.get(rule, rule))(weights, **options, backend="gpu")}
    for way in ("fused", "foreach"):
        try:
            found[f"torch {way}"] = torch_class(weights, **options, **{way: True})
        except (TypeError, RuntimeError):  # torch has not fused every rule
            continue
    return found


def measure(rule: str, size: int, dtype: torch.dtype, rounds: int) -> list[dict]:
    """Time every candidate, in turn, each with its own state over the same weights."""
    weights = parameters(size, dtype)
    times: dict[str, list[float]] = {}
    missing = {}
    optimizers = candidates(rule, weights)
    for name, optimizer in list(optimizers.items()):
        try:
            for _ in range(3):
                optimizer.step()
        except torch.cuda.OutOfMemoryError:
            missing[name] = "out of memory"
            optimizer.state.clear()
            del optimizers[name]
            torch.cuda.empty_cache()
    repeat = max(3, min(200, int(2e9 / size)))
    for _ in range(rounds):
        for name, optimizer in optimizers.items():
            times.setdefault(name, []).append(milliseconds(optimizer.step, repeat))
    rows = [{"candidate": name, "failed": reason} for name, reason in missing.items()]
    for name, values in times.items():
        row = {
            "candidate": name,
            "milliseconds": statistics.median(values),
            "smallest": min(values),
            "largest": max(values),
        }
        if "ravine" in times:
            ratios = [a / b for a, b in zip(values, times["ravine"], strict=True)]
            row["times_ravine"] = statistics.median(ratios)
        rows.append(row)
    return [{"rule": rule, "weights": size, **row} for row in rows]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--sizes", nargs="+", type=float, default=[1e6, 1e7, 1e8, 1e9])
    parser.add_argument("--rules", nargs="+", choices=RULES, default=list(RULES))
    parser.add_argument("--dtype", choices=["float32", "bfloat16", "float16"], default="float32")
    parser.add_argument("--rounds", type=int, default=7)
    chosen = parser.parse_args()
    if not torch.cuda.is_available():
        print("There is no GPU here that PyTorch can use: nothing was measured or written.")
        return
    dtype = getattr(torch, chosen.dtype)
    before = copy_bandwidth()
    rows = []
    for size in map(int, chosen.sizes):
        for rule in chosen.rules:
            for row in measure(rule, size, dtype, chosen.rounds):
                if "milliseconds" in row:
                    row["bytes"] = RULES[rule][2] * dtype.itemsize * size
                    speed = row["bytes"] / row["milliseconds"] * 1e3
                    row["share_of_copy"] = speed / before
                rows.append(row)
                print(
                    f"{size:>13,} {rule:9} {row['candidate']:14} "
                    + (
                        f"{row['milliseconds']:9.3f} ms  {row['share_of_copy']:6.1%} of copy  "
                        f"{row.get('times_ravine', 1):5.2f} x ravine"
                        if "milliseconds" in row
                        else row["failed"]
                    )
                )
            torch.cuda.empty_cache()
    record = {
        "what": "optimizer step on a GPU",
        "dtype": chosen.dtype,
        "gpu": torch.cuda.get_device_name(),
        "torch": torch.__version__,
        "ravine": ravine.__version__,
        "python": platform.python_version(),
        "copy_bytes_per_second": {"before": before, "after": copy_bandwidth()},
        "rows": rows,
    }
    RESULTS.parent.mkdir(exist_ok=True)
    RESULTS.write_text(json.dumps(record, indent=1) + "\n", encoding="utf-8")
    print(f"written to {RESULTS.name}")


if __name__ == "__main__":
    main()

"""The optimizer step against torch's ways of doing it: `python benchmarks/steps.py`.

Each row is one model and one rule; every way gets weights and gradients of its own, and they take
turns in one process. `share of limit` is the time that the bytes of the step need at the measured
stream limit, divided by the time taken: 1 is as fast as memory.
"""

from __future__ import annotations

import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch

sys.path.insert(0, str(Path(__file__).parent))
from measure import arguments, interleaved, line, save, stream_limit

from ravine import optim, update_rule
from ravine.engine.functions import sqrt

MODELS: dict[str, list[tuple[int, ...]]] = {
    "9k weights, 6 tensors": [(64, 100), (100,), (100, 20), (20,), (20, 10), (10,)],
    "2M weights, 159 tensors": [(128, 100)] * 155 + [(128,)] * 4,
    "42M weights, 52 tensors": [(900, 900)] * 52,
}


@update_rule
def own_adam(w, g, m, v, *, t, lr, beta1=0.9, beta2=0.999, eps=1e-8):
    m = beta1 * m + (1 - beta1) * g
    v = beta2 * v + (1 - beta2) * g * g
    return w - lr * (m / (1 - beta1**t)) / (sqrt(v / (1 - beta2**t)) + eps), m, v


Maker = Callable[[list[torch.nn.Parameter]], torch.optim.Optimizer]

# rule -> (bytes a weight and step, ours, peers)
RULES: dict[str, tuple[int, Maker, dict[str, Maker]]] = {
    "SGD": (
        12,
        lambda p: optim.SGD(p, lr=1e-3),
        {
            "default": lambda p: torch.optim.SGD(p, lr=1e-3),
            "foreach": lambda p: torch.optim.SGD(p, lr=1e-3, foreach=True),
            "fused": lambda p: torch.optim.SGD(p, lr=1e-3, fused=True),
        },
    ),
    "SGD momentum": (
        20,
        lambda p: optim.SGD(p, lr=1e-3, momentum=0.9),
        {
            "default": lambda p: torch.optim.SGD(p, lr=1e-3, momentum=0.9),
            "foreach": lambda p: torch.optim.SGD(p, lr=1e-3, momentum=0.9, foreach=True),
            "fused": lambda p: torch.optim.SGD(p, lr=1e-3, momentum=0.9, fused=True),
        },
    ),
    "RMSprop": (
        20,
        lambda p: optim.RMSprop(p, lr=1e-3),
        {
            "default": lambda p: torch.optim.RMSprop(p, lr=1e-3),
            "foreach": lambda p: torch.optim.RMSprop(p, lr=1e-3, foreach=True),
        },
    ),
    "Adam": (
        28,
        lambda p: optim.Adam(p, lr=1e-3),
        {
            "default": lambda p: torch.optim.Adam(p, lr=1e-3),
            "foreach": lambda p: torch.optim.Adam(p, lr=1e-3, foreach=True),
            "fused": lambda p: torch.optim.Adam(p, lr=1e-3, fused=True),
        },
    ),
    "AdamW": (
        28,
        lambda p: optim.AdamW(p, lr=1e-3),
        {
            "default": lambda p: torch.optim.AdamW(p, lr=1e-3),
            "foreach": lambda p: torch.optim.AdamW(p, lr=1e-3, foreach=True),
            "fused": lambda p: torch.optim.AdamW(p, lr=1e-3, fused=True),
        },
    ),
    "Adam in a user's six lines": (
        28,
        lambda p: own_adam(p, lr=1e-3),
        {"built-in": lambda p: optim.Adam(p, lr=1e-3)},
    ),
}


class Clipped:
    """torch's clipping and step, as a training loop calls them."""

    def __init__(self, weights: list[torch.nn.Parameter], **options: Any) -> None:
        self.weights = weights
        self.optimizer = torch.optim.AdamW(weights, lr=1e-3, **options)

    def step(self) -> None:
        torch.nn.utils.clip_grad_norm_(self.weights, 1.0)
        self.optimizer.step()


RULES["AdamW + clip_norm"] = (
    32,
    lambda p: optim.AdamW(p, lr=1e-3, clip_norm=1.0),
    {  # type: ignore[dict-item]
        "default": Clipped,
        "foreach": lambda p: Clipped(p, foreach=True),
        "fused": lambda p: Clipped(p, fused=True),
    },
)


def prepared(make: Maker, shapes: list[tuple[int, ...]]) -> Callable[[], object]:
    """Return the step of an optimizer over fresh weights with gradients."""
    weights = [torch.nn.Parameter(torch.randn(shape) * 0.1) for shape in shapes]
    for weight in weights:
        weight.grad = torch.randn_like(weight)
    return make(weights).step


def main() -> None:
    quick = arguments(__doc__ or "").quick
    limits = [stream_limit()]
    rows = []
    line("", "ours us", "best peer us", "peer", "ratio", "GB/s")
    for model, shapes in MODELS.items():
        count = sum(torch.Size(shape).numel() for shape in shapes)
        for rule, (bytes_each, ours, peers) in RULES.items():
            cases = {"ours": prepared(ours, shapes)}
            cases |= {name: prepared(make, shapes) for name, make in peers.items()}
            times = interleaved(cases, seconds=0.6 if quick else 6.0)
            best = min(peers, key=lambda name: times[name])
            ratio = times[best] / times["ours"]
            rows.append(
                {
                    "model": model,
                    "rule": rule,
                    "microseconds": {name: round(t * 1e6, 2) for name, t in times.items()},
                    "best_peer": best,
                    "ratio": round(ratio, 3),
                    "bytes": count * bytes_each,
                }
            )
            line(
                f"{model.split(' ')[0]} {rule}",
                f"{times['ours'] * 1e6:.1f}",
                f"{times[best] * 1e6:.1f}",
                best,
                f"{ratio:.2f}",
                f"{count * bytes_each / times['ours'] / 1e9:.1f}",
            )
        limits.append(stream_limit())
    for row in rows:
        seconds = row["microseconds"]["ours"] * 1e-6
        row["share_of_limit"] = round(row["bytes"] / seconds / max(limits), 3)
    print("stream limit, GB/s: " + ", ".join(f"{limit / 1e9:.1f}" for limit in limits))
    if not quick:
        result = {"stream_limit_bytes_per_second": limits, "rows": rows}
        print(save("steps", result, "python benchmarks/steps.py"))


if __name__ == "__main__":
    main()

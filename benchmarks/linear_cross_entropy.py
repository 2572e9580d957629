"""The head of a language model, forward and backward: `python benchmarks/linear_cross_entropy.py`.

2048 samples of width 768 and 32768 classes in float32 against the pair F.linear + cross_entropy (torch's
and ours) and torch's own chunked F.linear_cross_entropy. The ways take turns in one process; gradients
are dropped before each call. Memory is what torch has allocated at most at one time during a call less
the two gradients, as a share of the logits in float32: on the CPU from the profiler's record.

On a GPU, if there is one, 8192 samples of width 2304 and 256000 classes in bfloat16 (the head of Gemma 2 of
2 billion weights), with events of the device; Cut Cross-Entropy takes part where it is installed. The
gradients that no way can do without are 1217 MB there.
"""

from __future__ import annotations

import sys
from collections.abc import Callable
from importlib import import_module
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

sys.path.insert(0, str(Path(__file__).parent))
from measure import arguments, line, save

from ravine.bench.timing import interleaved
from ravine.losses import buffers, cross_entropy, linear_cross_entropy

DEVICE = "cuda" if torch.cuda.is_available() else "cpu"
SAMPLES, WIDTH, CLASSES = (8192, 2304, 256000) if DEVICE == "cuda" else (2048, 768, 32768)
KIND = torch.bfloat16 if DEVICE == "cuda" else torch.float32
Loss = Callable[[Tensor, Tensor, Tensor], Tensor]


def torch_chunked(hidden: Tensor, weight: Tensor, target: Tensor) -> Tensor:
    """Return torch's own, in chunks of its choice."""
    options = torch.nn.LinearCrossEntropyOptions()
    return F.linear_cross_entropy(hidden, weight, target, options=options)


WAYS: dict[str, Loss] = {
    "ours": linear_cross_entropy,
    "F.linear + our cross_entropy": lambda h, w, t: cross_entropy(F.linear(h, w), t),
    "F.linear + F.cross_entropy": lambda h, w, t: F.cross_entropy(F.linear(h, w), t),
}
if hasattr(F, "linear_cross_entropy"):
    WAYS["F.linear_cross_entropy, chunked"] = torch_chunked
if DEVICE == "cuda" and find_spec("cut_cross_entropy") is not None:
    WAYS["cut_cross_entropy"] = import_module("cut_cross_entropy").linear_cross_entropy


def prepared(
    loss: Loss, hidden: Tensor, weight: Tensor, target: Tensor, frozen: bool
) -> Callable[[], None]:
    """Return one forward and backward over inputs of its own."""
    own = hidden.clone().requires_grad_(), weight.clone().requires_grad_(not frozen)

    def run() -> None:
        for t in own:
            t.grad = None
        loss(*own, target).backward()

    return run


def extra_bytes(loss: Loss, hidden: Tensor, weight: Tensor, target: Tensor, frozen: bool) -> int:
    """Return what a call has allocated at most at one time, less the gradients it leaves."""
    prepared(loss, hidden, weight, target, frozen)()
    own = hidden.clone().requires_grad_(), weight.clone().requires_grad_(not frozen)
    gradients = sum(t.nbytes for t in own if t.requires_grad)
    if DEVICE == "cuda":
        torch.cuda.reset_peak_memory_stats()
        before = torch.cuda.memory_allocated()
        loss(*own, target).backward()
        return torch.cuda.max_memory_allocated() - before - gradients
    buffers._kept.clear()  # memory that our cross_entropy would use again without allocating it
    held = peak = 0
    # Nothing made before is freed inside: the record has no size for it, or a wrong one.
    with torch.profiler.profile(profile_memory=True) as seen:
        loss(*own, target).backward()
    for event in seen.profiler.kineto_results.events():  # type: ignore[union-attr]
        if event.name() == "[memory]":
            held += event.nbytes()
            peak = max(peak, held)
    return peak - gradients


def main() -> None:
    quick = arguments(__doc__ or "").quick
    torch.manual_seed(0)
    samples = SAMPLES // 4 if quick else SAMPLES
    made: dict[str, Any] = {"device": DEVICE, "dtype": KIND}
    hidden, weight = (torch.randn(size, WIDTH, **made) for size in (samples, CLASSES))
    weight *= WIDTH**-0.5
    target = torch.randint(CLASSES, (samples,), device=DEVICE)
    half_ignored = torch.where(torch.rand(samples, device=DEVICE) < 0.5, -100, target)
    logits = samples * CLASSES * 4
    rows = []
    for title, labels, frozen in (
        ("all gradients", target, False),
        ("half of the targets ignored", half_ignored, False),
        ("head frozen", target, True),
    ):
        line(title, "ms", "to ours", "MB besides", "of the logits")
        cases = {
            name: prepared(loss, hidden, weight, labels, frozen) for name, loss in WAYS.items()
        }
        times = interleaved(cases, seconds=2.0 if quick else 60.0, device=DEVICE)
        for name, loss in WAYS.items():
            extra = extra_bytes(loss, hidden, weight, labels, frozen)
            rows.append(
                {
                    "case": title,
                    "way": name,
                    "milliseconds": round(times[name] * 1e3, 1),
                    "ratio": round(times[name] / times["ours"], 3),
                    "extra_bytes": extra,
                    "share_of_logits": round(extra / logits, 4),
                }
            )
            line(
                f"  {name}",
                f"{times[name] * 1e3:.0f}",
                f"{times[name] / times['ours']:.2f}",
                f"{extra / 1e6:.1f}",
                f"{extra / logits:.3f}",
            )
    if not quick:
        shape = {"samples": samples, "width": WIDTH, "classes": CLASSES, "type": str(KIND)}
        result = {"shape": shape, "rows": rows}
        name = "linear_cross_entropy" + ("_cuda" if DEVICE == "cuda" else "")
        print(save(name, result, "python benchmarks/linear_cross_entropy.py"))


if __name__ == "__main__":
    main()

"""Muon against torch.optim.Muon, over matrices of equal shapes and of one each: `python benchmarks/muon.py`.

On a GPU, if there is one, with events of the device. Ours multiplies matrices of one shape in one batch;
torch's goes from matrix to matrix.
"""

from __future__ import annotations

import sys
from pathlib import Path

import torch

sys.path.insert(0, str(Path(__file__).parent))
from measure import arguments, line, save

from ravine.bench.timing import interleaved
from ravine.optim import Muon

SHAPES = {
    "cpu": {
        "64 of 100 x 128": [(100, 128)] * 64,
        "12 of 384 x 384": [(384, 384)] * 12,
        "one each": [(100, 128), (128, 256), (256, 384), (384, 384), (512, 128)],
    },
    "cuda": {
        "48 of 1024 x 1024": [(1024, 1024)] * 48,
        "24 of 1024 x 4096": [(1024, 4096)] * 24,
        "one each": [(1024, 1024), (1024, 4096), (2048, 2048), (4096, 4096), (512, 1024)],
    },
}


def weights(shapes: list[tuple[int, ...]], device: str) -> list[torch.nn.Parameter]:
    """Return matrices with gradients."""
    made = [torch.nn.Parameter(torch.randn(shape, device=device)) for shape in shapes]
    for w in made:
        w.grad = torch.randn_like(w)
    return made


def main() -> None:
    seconds = 1.0 if arguments(__doc__ or "").quick else 10.0
    device = "cuda" if torch.cuda.is_available() else "cpu"
    rows = []
    line(device, "ours", "torch.optim", "times")
    for name, shapes in SHAPES[device].items():
        options = {"lr": 1e-4, "weight_decay": 0.0}
        cases = {
            "ravine": Muon(weights(shapes, device), **options).step,
            "torch": torch.optim.Muon(weights(shapes, device), **options).step,
        }
        times = interleaved(cases, seconds=seconds, device=device)
        ratio = times["torch"] / times["ravine"]
        rows.append({"matrices": name, "seconds": times, "ratio": ratio})
        ours, theirs = (f"{times[case] * 1e3:.2f} ms" for case in ("ravine", "torch"))
        line(name, ours, theirs, f"{ratio:.2f}")
    if seconds > 1:
        print(save(f"muon_{device}", {"device": device, "rows": rows}, "python benchmarks/muon.py"))


if __name__ == "__main__":
    main()

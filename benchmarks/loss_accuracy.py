"""Writes the table of docs/losses.md: the largest errors of the elementwise losses, ours and torch's.

    python benchmarks/loss_accuracy.py

Points, exact numbers and units are those of tests/ulp_grid.py.
"""

from __future__ import annotations

import math
import sys
from pathlib import Path

import torch

ROOT = Path(__file__).parents[1]
sys.path.insert(0, str(ROOT / "tests"))

from loss_table import ROWS
from ulp_grid import exact_of, grid, ours, torchs, worst

PAGE = ROOT / "docs" / "losses.md"
BEGIN, END = "<!-- accuracy -->\n", "<!-- end -->\n"
WRITTEN_OUT = {
    "asymmetric", "focal", "gamma", "hinge", "log_cosh", "perceptron", "quantile",
    "squared_hinge", "tweedie",
}  # fmt: skip


def shown(error: float) -> str:
    if math.isinf(error):
        return "inf or NaN"
    return f"{error:.2f}" if error < 100 else f"{error:.0e}".replace("e+0", "e")


def main() -> None:
    lines = [
        "| loss | value | slope | torch, value | torch, slope |",
        "| --- | --- | --- | --- | --- |",
    ]
    for row in ROWS:
        if row.rows:
            continue
        x, y = grid(row)
        exact = exact_of(row, x, y)
        errors = [*worst(row, x, y, ours(row, x, y), exact)]
        errors += worst(row, x, y, torchs(row, x, y), exact)
        options = ", ".join(f"{name}={value}" for name, value in row.options.items())
        name = f"`{row.loss}({options})`" + (" *" if row.loss in WRITTEN_OUT else "")
        lines.append(f"| {name} | " + " | ".join(map(shown, errors)) + " |")
    text = PAGE.read_text()
    before, after = text.split(BEGIN)[0], text.split(END)[1]
    table = "\n".join(lines)
    PAGE.write_text(
        f"{before}{BEGIN}Measured with torch {torch.__version__.split('+')[0]}.\n\n{table}\n{END}{after}"
    )


if __name__ == "__main__":
    main()

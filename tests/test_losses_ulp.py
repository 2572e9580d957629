"""No elementwise loss is more than 4 units of the last place off, anywhere in float32."""

from __future__ import annotations

import pytest
from loss_table import ROWS
from ulp_grid import exact_of, grid, ours, worst

POINTS = [row for row in ROWS if not row.rows]


@pytest.mark.parametrize("row", POINTS, ids=str)
def test_value_and_slope_within_4_ulp(row):
    x, y = grid(row)
    value, slope = worst(row, x, y, ours(row, x, y), exact_of(row, x, y))
    assert value <= 4, (value, slope)
    assert slope <= 4, (value, slope)

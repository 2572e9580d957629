"""A formula of the engine over an array, compiled as a kernel is."""

from __future__ import annotations

import numpy as np

from ravine.engine import kernel_cache
from ravine.engine.cpu_pool import Kernel

_SOURCE = """
from ravine.engine.{module} import {name}

number = {number}

def kernel(head_address):
    head = address_to_array(head_address, 3, int64)
    x = address_to_array(head[0], head[2], number)
    y = address_to_array(head[1], head[2], number)
    for i in range(head[2]):
        y[i] = {name}(x[i])
"""


def source(module: str, name: str, number: str) -> str:
    """Return the text of the loop."""
    return _SOURCE.format(module=module, name=name, number=number)


def applied(module: str, name: str, x: np.ndarray) -> np.ndarray:
    """Return the formula of each number, in the type of the array."""
    y = np.empty_like(x)
    head = np.array([x.ctypes.data, y.ctypes.data, x.size])
    kernel = Kernel(*kernel_cache.function(source(module, name, str(x.dtype)), "kernel"))
    kernel.serial(head.ctypes.data)
    return y

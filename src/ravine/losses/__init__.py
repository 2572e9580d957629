"""Losses: one file each, as a function and as a module.

    from ravine.losses import huber, Huber
    huber(output, target, delta=2.0)
    loss = Huber(delta=2.0)

Every loss takes (input, target), and by keyword its hyperparameters, ``weight`` (one for each sample,
>= 0; the mean is the weighted mean, so that a weight of 0 leaves a sample out), ``reduction`` ("mean",
"sum", "none") and ``normalizer`` (what the sum is divided by instead of the weights' sum, for exact
means under gradient accumulation). ``check="off"`` spares the look at values (targets, weights) for
those who have measured that they cannot afford it; types and shapes are checked all the same. A wrong
value then gives a wrong number, and a class out of range makes the loss of its row NaN, and with it a
sum or mean: nothing outside of the tensors is read or written. Losses of float16 and bfloat16 input are
computed, and returned, in float32. Nothing is broadcast. `triplet` and `contrastive` take other tensors
than (input, target), in the order of their documentation. A loss is added by adding a file; `LOSSES`
finds it.
"""

from __future__ import annotations

import importlib
import pkgutil
from typing import Any

from ravine.losses.linear_cross_entropy import LinearCrossEntropy, linear_cross_entropy
from ravine.losses.modules import LossModule, module_class

__all__ = ["FUNCTIONS", "LOSSES", "LinearCrossEntropy", "LossModule", "linear_cross_entropy"]


def _found() -> dict[str, Any]:
    functions = {}
    for module in pkgutil.iter_modules(__path__):
        if module.ispkg:  # the kernels
            continue
        # A loss lies in the file of its name; the machinery's files hold none.
        imported = importlib.import_module(f"{__name__}.{module.name}")
        candidate = getattr(imported, module.name, None)
        if hasattr(candidate, "module"):
            functions[module.name] = candidate
    return functions


FUNCTIONS: dict[str, Any] = _found()
"""Every loss function by its name."""

_MODULES: dict[str, type[LossModule]] = {
    function.module: module_class(function, __name__) for function in FUNCTIONS.values()
}

LOSSES: dict[str, type[LossModule]] = {
    name: _MODULES[function.module] for name, function in FUNCTIONS.items()
}
"""The module class of every loss by the name of its function, for expressions and listings."""

globals().update(FUNCTIONS)
globals().update(_MODULES)
__all__ += [*FUNCTIONS, *_MODULES]  # noqa: PLE0604


def __getattr__(name: str) -> Any:  # tells type checkers what the names above are
    raise AttributeError(f"ravine.losses has no loss {name!r}")

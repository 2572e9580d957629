"""Watching a training loop of anyone's: cheap measurements, findings as warnings.

The package is also the function: ``with ravine.watch(model, optimizer) as w:`` makes a `Watch`.
"""

import sys
from types import ModuleType
from typing import Any

from ravine.watch.finding import CODES, Finding, FindingWarning, Trial, text_of
from ravine.watch.watcher import Watch

__all__ = ["CODES", "Finding", "FindingWarning", "Trial", "Watch", "text_of"]


class _Callable(ModuleType):
    def __call__(self, *args: Any, **options: Any) -> Watch:
        return Watch(*args, **options)


sys.modules[__name__].__class__ = _Callable

"""Why training fails: probes measure, checks suspect, replays prove.

The package is also the function: ``ravine.diagnose(task)`` is `diagnose`.
"""

import sys
from types import ModuleType
from typing import Any

from ravine.diagnose.diagnose import diagnose
from ravine.diagnose.diagnosis import Diagnosis
from ravine.diagnose.explain import explain
from ravine.watch.finding import CODES, Finding, Trial

__all__ = ["CODES", "Diagnosis", "Finding", "Trial", "diagnose", "explain"]


class _Callable(ModuleType):
    def __call__(self, *args: Any, **options: Any) -> Diagnosis:
        return diagnose(*args, **options)


sys.modules[__name__].__class__ = _Callable

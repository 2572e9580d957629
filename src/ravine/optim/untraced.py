"""Methods that torch.compile keeps out of."""

from __future__ import annotations

import functools
import sys
from collections.abc import Callable
from typing import Any, TypeVar

from torch._compile import _disable_dynamo

Method = TypeVar("Method", bound=Callable[..., Any])


def untraced(method: Method) -> Method:
    """Keep torch.compile out of a method, as torch does with those of its optimizers.

    torch's own wrapper loads torch._dynamo at the first call, which takes 140 MB and two seconds:
    here only where something else has loaded it, since nothing is traced before.
    """
    disabled = _disable_dynamo(method)

    @functools.wraps(method)
    def called(*args: Any, **kwargs: Any) -> Any:
        return (disabled if "torch._dynamo" in sys.modules else method)(*args, **kwargs)

    return called  # type: ignore[return-value]


def unwrapped(method: Method) -> Method:
    """Return one of torch's methods that has torch's wrapper, with ours instead."""
    return untraced(getattr(method, "__wrapped__", method))

"""The state of one weight, a dictionary that notes when something in it is replaced.

A step writes to the memory of the state's tensors; were one replaced unnoticed
(``optimizer.state[w]["exp_avg"] = ...``), the step would go on with the old one. To look at every
entry at every step would cost a tenth of it on a small model; to note the edit costs it nothing.
"""

from __future__ import annotations

from typing import Any


def _noting(name: str) -> Any:
    method = getattr(dict, name)

    def edit(self: WatchedState, *args: Any, **kwargs: Any) -> Any:
        self.edits.append(name)
        return method(self, *args, **kwargs)

    edit.__name__ = name
    edit.__doc__ = method.__doc__
    return edit


class WatchedState(dict[str, Any]):
    """A dictionary that appends to ``edits`` whenever it is changed."""

    def __init__(self, content: dict[str, Any], edits: list[str]) -> None:
        super().__init__(content)
        self.edits = edits

    def __reduce__(self) -> Any:
        return dict, (dict(self),)  # copies and files hold plain dictionaries

    __setitem__ = _noting("__setitem__")
    __delitem__ = _noting("__delitem__")
    __ior__ = _noting("__ior__")
    clear = _noting("clear")
    pop = _noting("pop")
    popitem = _noting("popitem")
    setdefault = _noting("setdefault")
    update = _noting("update")

"""The state, in dictionaries that note when something in them is replaced.

A step writes to the memory of the state's tensors; were one replaced unnoticed
(``optimizer.state[w]["exp_avg"] = ...``), the step would go on with the old one. To look at every
entry at every step would cost a tenth of it on a small model; to note the edit costs it nothing.
"""

from __future__ import annotations

from collections import defaultdict
from typing import Any


def _noting(name: str) -> Any:
    method = getattr(dict, name)

    def edit(self: _Noting, *args: Any, **kwargs: Any) -> Any:
        self.note(name)
        return method(self, *args, **kwargs)

    edit.__name__ = name
    edit.__doc__ = method.__doc__
    return edit


class _Noting:
    """Comes before `dict` among the bases of a class: whatever changes the dictionary is noted."""

    def note(self, edit: str) -> None:
        """Note a change."""
        raise NotImplementedError

    __setitem__ = _noting("__setitem__")
    __delitem__ = _noting("__delitem__")
    __ior__ = _noting("__ior__")
    clear = _noting("clear")
    pop = _noting("pop")
    popitem = _noting("popitem")
    setdefault = _noting("setdefault")
    update = _noting("update")


class WatchedState(_Noting, dict[str, Any]):
    """A dictionary that appends to ``edits`` whenever it is changed."""

    def __init__(self, content: dict[str, Any], edits: list[str]) -> None:
        super().__init__(content)
        self.edits = edits

    def note(self, edit: str) -> None:
        """Note a change."""
        self.edits.append(edit)

    def __reduce__(self) -> Any:
        return dict, (dict(self),)  # copies and files hold plain dictionaries


class WatchedStates(_Noting, defaultdict[Any, Any]):
    """The state of all weights, which counts how often entries were put in, replaced or taken out.

    An entry that comes to be because it was looked up is not counted, but makes it longer.
    """

    changes = 0

    def note(self, edit: str) -> None:
        """Note a change."""
        self.changes += 1

    def __reduce__(self) -> Any:
        return defaultdict, (self.default_factory,), None, None, iter(self.items())


def watched(state: Any) -> Any:
    """Return a state that is watched where it is as torch makes it, else what was given."""
    return WatchedStates(state.default_factory, state) if type(state) is defaultdict else state

"""Write the few types of a configuration as TOML: the standard library only reads it."""

from __future__ import annotations

import json
from typing import Any

from ravine.errors import ConfigError

__all__ = ["printable", "to_comment", "to_toml"]


def to_toml(value: Any) -> str:
    """Write a value of a configuration.

    Args:
        value: text, a number, a truth value or a list of these.

    Raises:
        ConfigError: TOML has no form for the value.

    >>> to_toml(["dropout(0.1)", 3, 1e-5, True])
    '["dropout(0.1)", 3, 1e-05, true]'
    """
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, int | float):
        return repr(value)  # inf, nan and exponents are written in the same way there
    if isinstance(value, str) and not any("\ud800" <= c <= "\udfff" for c in value):
        # The escapes of JSON are among TOML's, which wants DEL escaped as well.
        return json.dumps(value, ensure_ascii=False).replace("\x7f", "\\u007f")
    if isinstance(value, list | tuple):
        return f"[{', '.join(map(to_toml, value))}]"
    raise ConfigError(
        "a value cannot be written as TOML",
        got=repr(value),
        expected="text, a number, true or false, or a list of these",
    )


def to_comment(text: str) -> str:
    """Write words as the rest of a line; a name with a line end in it must not begin a new one.

    >>> to_comment("run\\nepochs = 9")
    '# run epochs = 9'
    """
    return f"# {printable(text)}"


def printable(text: str) -> str:
    """Return a text on one line, with a space for what cannot be shown."""
    return " ".join("".join(c if c.isprintable() else " " for c in text).split())

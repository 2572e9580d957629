"""Names of test cases that are the same in every process, as pytest -n wants them."""

from __future__ import annotations

import re


def named(value: object) -> str:
    """Return an object's repr without the address in it."""
    return re.sub(r" at 0x[0-9a-f]+", "", repr(value)).strip("'")

"""What a finding means: the page of its code."""

from __future__ import annotations

from importlib import resources

from ravine.errors import unknown_name
from ravine.watch.finding import CODES

__all__ = ["explain"]


def explain(code: str) -> str:
    """Return the page of a finding, in Markdown.

    Args:
        code: a code such as "GRAD-VANISH", in upper or lower case, or a name such as
            "vanishing-gradient".

    Raises:
        UnknownNameError: there is no such finding; the nearest is named.

    >>> explain("lr-too-high").splitlines()[0]
    '# LR-HIGH: lr-too-high'
    """
    wanted = CODES.get(code, code.upper())
    if wanted not in CODES.values():
        raise unknown_name("finding", code, [*CODES.values(), *CODES])
    page = resources.files("ravine.diagnose") / "pages" / f"{wanted}.md"
    return page.read_text(encoding="utf-8")

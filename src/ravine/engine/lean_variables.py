"""Which variables of a program are held in a lean format, and whose random bits are whose."""

from __future__ import annotations

from collections.abc import Mapping

from ravine.engine.lean import Lean, Stored, layout
from ravine.engine.program import Specialised


class LeanVariables:
    """What the generators of kernels know of the lean variables of a program.

    Attributes:
        arrays: the variables that lie in memory.
        columns: the columns of the kernel's table of addresses.
        forms: how the lean variables are held, by name.
        codes: those of them that are codes under scales.
        place: which of the variables that are rounded each one is: 0, 1, ...
        written: those rounded that are codes, in order.
        coded: whether anything is held as codes, so that the kernel must go block by block.
    """

    def __init__(
        self, program: Specialised, types: Mapping[str, Stored], totals: tuple[str, ...]
    ) -> None:
        self.arrays = tuple(name for name in program.variables if name not in totals)
        self.columns = layout(self.arrays, types)
        self.forms = {n: form for n in self.arrays if isinstance(form := types[n], Lean)}
        self.codes = {name: form for name, form in self.forms.items() if form.octaves}
        rounded = [name for name in program.stores if name in self.forms]
        self.place = {name: k for k, name in enumerate(rounded)}
        self.written = [name for name in rounded if name in self.codes]
        self.coded = bool(self.codes)

    def word(self, name: str) -> int:
        """Return which word of an element's random bits is a variable's: two share one."""
        return self.place[name] // 2

    def words(self) -> list[int]:
        """Return the words of random bits that an element needs."""
        return sorted({self.word(name) for name in self.place})

    def bits(self, name: str) -> str:
        """Return the expression of a variable's random bits."""
        end = "high" if self.place[name] % 2 else "low"
        return f"{end}{self.forms[name].random_bits}(word_{self.word(name)})"

    def prefix(self, name: str) -> str:
        """Return how the functions of a variable's codes begin."""
        return "signed" if self.codes[name].signed else "nonnegative"

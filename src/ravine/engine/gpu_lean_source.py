"""What the source of a GPU kernel has more where variables are held in a lean format.

A program instance holds whole blocks of those that share a scale, so that it finds their largest numbers,
and with them the new scales, without a second pass.
"""

from __future__ import annotations

from ravine.engine.lean import BLOCK, KEY, NEXT_WORD, scales_column
from ravine.engine.lean_variables import LeanVariables


class GpuLeanSource(LeanVariables):
    """Lines for a Triton kernel; all of them empty where nothing is lean."""

    def imports(self) -> str:
        """Return what the module's header has more."""
        return "\nfrom ravine.engine.gpu_lean import *" if self.forms else ""

    def kind(self, name: str) -> str:
        """Return the type behind a variable's pointer; nothing if the variable is not lean."""
        form = self.forms.get(name)
        return "" if form is None else "uint8" if form.octaves else "int16"

    def arguments(self) -> list[str]:
        """Return what the function of a block is given of each column of its tensor's record."""
        arrays = [f"at_{name}" for name in self.arrays]
        scales = [f"scales_of_{name}" for name in self.codes]
        return [*arrays, *scales, *(["key", "offset"] if self.forms else [])]

    def found(self) -> list[str]:
        """Return the lines that find the scales and the key of a block."""
        lines = []
        for name in self.codes:
            place = self.columns.index(scales_column(name))
            pointer = f"tl.load(record + {place}).to(tl.pointer_type(tl.float32))"
            lines.append(f"scales_of_{name} = {pointer} + offset // {BLOCK}")
        if self.forms:
            lines.append(f"key = tl.load(record + {self.columns.index(KEY)})")
        return lines

    def before(self) -> list[str]:
        """Return the lines that draw random bits and read scales."""
        lines = [
            f"word_{k} = random_word(key, offset + {k * NEXT_WORD}, lane)" for k in self.words()
        ]
        return lines + [
            f"scale_{name} = load_scales(scales_of_{name}, left, MASKED, BLOCK)"
            for name in self.codes
        ]

    def load(self, name: str) -> str:
        """Return the form of an element as float32; nothing if the variable is not lean."""
        if name in self.codes:
            return f"{self.prefix(name)}_number({{}}, scale_{name})"
        return "float32_of({})" if name in self.forms else ""

    def settle(self, name: str) -> list[str]:
        """Return the lines ahead of storing a variable: its float32 numbers, and their scales."""
        if name not in self.forms:
            return []
        lines = [f"x_{name} = tl.broadcast_to(x_{name}.to(tl.float32), (BLOCK,))"]
        if name in self.codes:
            lines += [
                f"scale_{name} = {self.prefix(name)}_scales(x_{name}, scale_{name}, inside)",
                f"store_scales(scales_of_{name}, scale_{name}, left, MASKED, BLOCK)",
            ]
        return lines

    def store(self, name: str) -> str:
        """Return the form in which a number is stored; nothing if the variable is not lean."""
        if name not in self.forms:
            return ""
        if name not in self.codes:
            return f"bfloat16_at_random({{}}, {self.bits(name)})"
        return f"{self.prefix(name)}_code({{}}, {self.bits(name)}, scale_{name})"

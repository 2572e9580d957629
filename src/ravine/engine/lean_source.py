"""What the source of a CPU kernel has more where variables are held in a lean format.

A block of `ravine.engine.lean.BLOCK` elements gets its codes under the scales that it has, in the one
loop that computes everything: the divider is at work while the rounding is done (AdamW, one core of a
busy machine: 0.69 ns a weight in two loops, 0.62 in one). The new numbers are kept in a buffer on the
stack as well, in the first cache. Where their largest then asks for another scale, their codes are made
again from there.
"""

from __future__ import annotations

from ravine.engine.lean import BLOCK, KEY, NEXT_WORD, WEYL, scales_column
from ravine.engine.lean_variables import LeanVariables


class LeanSource(LeanVariables):
    """Lines for a kernel; all of them empty where nothing is lean."""

    def kind(self, name: str) -> str | None:
        """Return the type of an element in memory, or None if the variable is not lean."""
        form = self.forms.get(name)
        return None if form is None else "uint8" if form.octaves else "uint16"

    def load(self, name: str) -> str:
        """Return the expression of an element as float32; nothing if the variable is not lean."""
        form = self.forms.get(name)
        if form is None:
            return ""
        if not form.octaves:
            return f"bfloat16_to_float32(array_{name}[i])"
        return f"{self.prefix(name)}_number(array_{name}[i], scale_{name})"

    def store(self, name: str) -> list[str]:
        """Return the lines that store a new number; nothing if the variable is not lean."""
        if name not in self.forms:
            return []
        bits = self.bits(name)
        if name not in self.codes:
            return [f"array_{name}[i] = float32_to_bfloat16_at_random(float32(x_{name}), {bits})"]
        prefix = self.prefix(name)
        return [
            f"x_{name} = float32(x_{name})",
            f"array_{name}[i] = {prefix}_code(x_{name}, {bits}, scale_{name})",
            f"new_{name}[i] = x_{name}",
            f"top_{name} = {_LARGER[prefix]}(top_{name}, x_{name})",
        ]

    def drawn(self) -> list[str]:
        """Return the lines that draw an element's random bits."""
        lines = []
        for k in self.words():
            lines += [
                f"word_{k} = random_word(place_{k}, high_key)",
                f"place_{k} = next_place(place_{k})",
            ]
        return lines

    def functions(self) -> list[str]:
        """Return the functions that make the codes of a block under a new scale."""
        return [
            _AGAIN.format(
                name=name,
                prefix=self.prefix(name),
                word=self.word(name),
                bits=self.bits(name),
            )
            for name in self.written
        ]

    def once(self) -> list[str]:
        """Return the lines that make the buffers."""
        return [
            f"new_{name} = address_to_array(stack_bytes({4 * BLOCK}), {BLOCK}, float32)"
            for name in self.written
        ]

    def for_chunk(self) -> list[str]:
        """Return the lines that find the scales and the key of a chunk."""
        lines = []
        for name in self.codes:
            column = f"addresses[{self.columns.index(scales_column(name))} * tensors + tensor]"
            lines.append(
                f"scales_{name} = address_to_array({column} + offset // {BLOCK} * 4, "
                f"(length + {BLOCK - 1}) // {BLOCK}, float32)"
            )
        if self.place:
            lines += [
                f"key = addresses[{self.columns.index(KEY)} * tensors + tensor]",
                "low_key = key >> 4",
            ]
            lines.append("high_key = key >> 36")
        return lines

    def before(self) -> list[str]:
        """Return the lines ahead of a block's first pass."""
        lines = [
            f"key_{k} = low_key + (offset + start + {k * NEXT_WORD}) * {WEYL}" for k in self.words()
        ]
        if self.coded:
            lines.append(f"block = start // {BLOCK}")
        lines += [f"scale_{name} = scales_{name}[block]" for name in self.codes]
        lines += [f"place_{k} = first_place(key_{k})" for k in self.words()]
        return lines + [f"top_{name} = int32(0)" for name in self.written]

    def after(self) -> list[str]:
        """Return the lines that end a block."""
        lines = []
        for name in self.written:
            prefix = self.prefix(name)
            if prefix == "nonnegative":  # below 0, or -0.0?
                lines += [
                    f"if top_{name} < 0:",
                    f"    top_{name} = int32(0)",
                    "    for i in range(count):",
                    f"        top_{name} = larger_positive(top_{name}, new_{name}[i])",
                ]
            key = f"key_{self.word(name)}, high_key"
            lines += [
                f"fitting = {prefix}_scale(top_{name}, scale_{name})",
                f"if fitting != scale_{name}:",
                f"    scales_{name}[block] = fitting",
                f"    again_{name}(new_{name}, array_{name}, count, fitting, {key})",
            ]
        return lines


_LARGER = {"signed": "larger", "nonnegative": "larger_nonnegative"}

_AGAIN = """def again_{name}(values, codes, count, scale, low_key, high_key):
    place = first_place(low_key)
    for i in range(count):
        word_{word} = random_word(place, high_key)
        place = next_place(place)
        codes[i] = {prefix}_code(values[i], {bits}, scale)
"""

"""Numbers in a CPU kernel that is being compiled, and how one kind becomes another."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from llvmlite import ir

from ravine.engine.words import KINDS

FLOATS = ("float32", "float64")


@dataclass(frozen=True)
class Value:
    """A number: what it is (a key of `KINDS`), and the instruction that makes it."""

    kind: str
    code: Any


@dataclass(frozen=True)
class Array:
    """Numbers of one kind behind an address."""

    kind: str
    first: Any


def decided(value: Value) -> bool | None:
    """Return what a condition is, if that is known when the kernel is compiled."""
    constant = value.kind == "bool" and isinstance(value.code, ir.Constant)
    return bool(value.code.constant) if constant else None


class Conversions:
    """Puts conversions in place.

    Attributes:
        builder: where instructions go.
        number: the kind of the arithmetic.
    """

    builder: Any
    number: str

    def conversion(self, value: Value, kind: str) -> Value:
        if isinstance(value.code, ir.Constant):
            return Value(kind, KINDS[kind](value.code.constant))
        if value.kind.startswith("int") and kind in FLOATS:
            return Value(kind, self.builder.sitofp(value.code, KINDS[kind]))
        return self.cast(value, kind)

    def cast(self, value: Value, kind: str) -> Value:
        """Return a number as one of another kind; integers are cut to the width."""
        old, new = KINDS[value.kind], KINDS[kind]
        if old == new:
            return Value(kind, value.code)
        if value.kind == "bool" and kind in FLOATS:
            return Value(kind, self.builder.uitofp(value.code, new))
        if value.kind in FLOATS and kind in FLOATS:
            change = self.builder.fptrunc if kind == "float32" else self.builder.fpext
            return Value(kind, change(value.code, new))
        if value.kind in FLOATS or kind in FLOATS:
            raise TypeError(f"{value.kind} where {kind} should be")
        if old.width > new.width:
            return Value(kind, self.builder.trunc(value.code, new))
        unsigned = value.kind.startswith("u") or value.kind == "bool"
        change = self.builder.zext if unsigned else self.builder.sext
        return Value(kind, change(value.code, new))

    def as_number(self, value: Any) -> Any:
        """Return a condition as a number, anything else as it is."""
        return self.cast(value, self.number) if value.kind == "bool" else value

    def alike(self, a: Value, b: Value) -> tuple[Value, Value]:
        """Return two numbers as numbers of one kind."""
        if a.kind == b.kind:
            return a, b
        if a.kind == "bool":
            return self.cast(a, b.kind), b
        if b.kind == "bool":
            return a, self.cast(b, a.kind)
        if isinstance(b.code, ir.Constant):
            return a, Value(a.kind, KINDS[a.kind](b.code.constant))
        raise TypeError(f"{a.kind} beside {b.kind}")

    def truth(self, value: Value) -> Any:
        if value.kind == "bool":
            return value.code
        if value.kind not in FLOATS:
            return self.builder.icmp_signed("!=", value.code, KINDS[value.kind](0))
        return self.builder.fcmp_unordered("!=", value.code, KINDS[value.kind](0.0))

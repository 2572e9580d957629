"""The language of hand-written kernels: a part that is compiled does what Python does with its text."""

from __future__ import annotations

import ctypes
import re
import threading
import types

import numpy as np
import pytest
import torch

from ravine.engine import cpu_compiler, kernel_language, machine_code
from ravine.engine.cpu_pool import Kernel
from ravine.engine.kernel_language import (
    Part,
    float64,
    int64,
    largest,
    part_any_zero,
    part_apart,
    part_as_written,
    part_reordered,
    read,
    stack_bytes,
    write,
)
from ravine.engine.vector_formulas import exp_of_negative
from ravine.engine.words import KINDS

ENOUGH = 99  # a name of the module

# --- parts ---------------------------------------------------------------------------------------


@part_as_written
def share(x, whole, number):
    return number(0) if whole == number(0) else x / whole


@part_as_written
def placed(x, low, high, number, closed):
    """How far x is outside of an interval, and where."""
    if x != x:
        return number(-1), int64(0)
    where = int64(3)
    if x < low or (closed and x == low):
        gap, where = x - low, int64(1)
    elif x > high and not (closed and x == high):
        gap = share(x - high, high, number)
    else:
        return number(0), int64(2)
    return gap, where


@part_apart
def walked(xs, out, count, number, closed):
    """Walk over numbers up to one that is `ENOUGH`."""
    total = seen = number(0)
    inside, rounds = int64(0), int64(0)
    kept = stack_bytes(8)
    for i in range(count):
        x = read(xs, i, number)
        write(kept, 0, x, number)
        if x == number(3):
            continue
        if x == number(ENOUGH):
            break
        value, where = placed(read(kept, 0, number), number(-1), number(1), number, closed)
        if where == 2 and closed:
            inside += 1
        else:
            inside = -(2 - inside)
        total += value if where != 0 else -number(7.5)
        for j in range(1, i // 4 + 1, 2):
            total -= number(j)
        write(out, i, total, number)
        seen += number(1) if closed else number(2)
        if not closed:
            seen -= number(0.25)
    while True:
        rounds += 1
        if rounds * rounds >= count:
            break
    return total, seen, inside + rounds


@part_reordered
def sum_of_exp(xs, count, number):
    total = number(0)
    for i in range(count):
        total += exp_of_negative(read(xs, i, number))
    return total


@part_any_zero
def peak(xs, count, number):
    result = number(float64(-ENOUGH))
    for i in range(count):
        result = largest(result, read(xs, i, number))
    return result


# --- how they are run ----------------------------------------------------------------------------


def text(body, number="float64"):
    lines = "".join(f"    {line}\n" for line in body.splitlines())
    parts = "from test_kernel_language import peak, sum_of_exp, walked\n\n"
    return cpu_compiler.compiled(
        f"{parts}number = {number}\n\ndef kernel(head_address):\n"
        f"    head = address_to_array(head_address, 4, int64)\n{lines}",
        "kernel",
    )


def run(body, *arrays, number="float64"):
    """Run a kernel; head is the table of the arrays' addresses, and the length of the first."""
    kernel = Kernel(*machine_code.linked(machine_code.made(text(body, number)), "kernel"))
    head = np.array([*(a.ctypes.data for a in arrays), len(arrays[0])])
    kernel.serial(head.ctypes.data)
    return kernel, head


def as_python(part, number):
    """The same text, run by Python on arrays in the place of addresses."""
    names = part.function.__globals__ | {
        "float64": np.float64,
        "int64": int,
        "read": lambda array, i, kind: array[i],
        "write": lambda array, i, x, kind: array.__setitem__(i, x),
        "stack_bytes": lambda size: np.empty(size, number),
    }
    for name, one in names.items():
        if isinstance(one, Part):
            names[name] = types.FunctionType(one.function.__code__, names)
    return names[part.function.__name__]


# --- tests ---------------------------------------------------------------------------------------


@pytest.mark.parametrize("closed", [True, False])
@pytest.mark.parametrize("number", [np.float32, np.float64])
def test_a_part_does_what_python_does(number, closed):
    xs = np.random.default_rng(5).choice([-1, 1, 0.1, 3, -7, 9, np.nan, np.inf], 60).astype(number)
    for end in (60, 41, 0):
        xs[end:] = ENOUGH
        ours, theirs = np.zeros(63, number), np.zeros(63, number)
        body = f"""total, seen, inside = walked(head[0], head[1], head[2], number, {closed})
write(head[1], 60, total, number)
write(head[1], 61, seen, number)
write(head[1], 62, number(inside), number)"""
        run(body, xs, ours, number=np.dtype(number).name)
        theirs[60:] = as_python(walked, number)(xs, theirs, 60, number, closed)
        np.testing.assert_array_equal(ours, theirs)


def test_what_is_known_is_decided_before_it_is_compiled():
    def walk(closed):
        code = text(f"a, b, c = walked(head[0], head[1], head[2], number, {closed})")
        return re.search(r"define internal void @\"placed.*?\n}", code, re.DOTALL)[0]

    assert walk(True).count("fcmp") == walk(False).count("fcmp") + 2
    assert "contract" not in walk(True)


def test_only_a_sum_is_reordered_and_no_formula():
    code = text("write(head[0], 0, sum_of_exp(head[1], head[2], number), number)", "float32")
    assert re.findall(r"(\w+) (?:\w+ )*reassoc", code) == ["fadd"]
    assert re.search(r"fmul contract <\d+ x float>", str(machine_code.optimised(code)))


@pytest.mark.parametrize("number", ["float32", "float64"])
def test_the_largest_is_nan_where_one_is(number):
    xs, out = np.linspace(-5, 4, 1000).astype(number), np.zeros(1, number)
    body = "write(head[1], 0, peak(head[0], head[2], number), number)"
    run(body, xs, out, number=number)
    assert out[0] == 4
    xs[333] = np.nan
    run(body, xs, out, number=number)
    assert np.isnan(out[0])


@pytest.mark.parametrize("kind", ["bfloat16", "float16"])
def test_half_precision_is_torchs(kind):
    """All halves become float32 and come back; float32 of every kind, and ties, are rounded."""
    dtype = getattr(torch, kind)
    every = np.arange(65536, dtype=np.uint16)
    wide, back = np.empty(65536, np.float32), np.empty(65536, np.uint16)
    body = f"""for i in range(head[3]):
    write(head[1], i, read(head[0], i, {kind}), float32)
    write(head[2], i, read(head[1], i, float32), {kind})"""
    run(body, every, wide, back)
    expected = torch.from_numpy(every.view(np.int16)).view(dtype).float()
    torch.testing.assert_close(torch.from_numpy(wide), expected, rtol=0, atol=0, equal_nan=True)
    number = ~expected.isnan().numpy()
    np.testing.assert_array_equal(back[number], every[number])
    assert torch.from_numpy(back[~number].view(np.int16)).view(dtype).isnan().all()

    random = np.random.default_rng(3).integers(0, 2**32, 300_000, dtype=np.uint64)
    # Every second one is a tie, or next to a tie.
    tie = np.uint64(0x8000 if kind == "bfloat16" else 0x1000)
    random[::2] = (random[::2] & ~np.uint64(0x1FFF)) | tie
    x = random.astype(np.uint32).view(np.float32)
    stored = np.empty(len(x), np.uint16)
    run(
        f"for i in range(head[2]):\n    write(head[1], i, read(head[0], i, float32), {kind})",
        x,
        stored,
    )
    got, expected = (
        torch.from_numpy(stored.view(np.int16)).view(dtype),
        torch.from_numpy(x).to(dtype),
    )
    torch.testing.assert_close(got, expected, rtol=0, atol=0, equal_nan=True)


def test_atomic_add_returns_the_old_value_and_loses_none():
    body = """total = 0
for i in range(200000):
    total += atomic_add(head[0], 1)
old = atomic_add(head[1], total)"""
    counter, sums = np.zeros(1, np.int64), np.zeros(1, np.int64)
    kernel, head = run(body, counter, sums)
    threads = [threading.Thread(target=kernel.serial, args=(head.ctypes.data,)) for _ in range(2)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert counter[0] == 600_000
    assert sums[0] == 600_000 * 599_999 // 2


def test_every_word_that_parts_import_is_one_of_the_compiler():
    names = set(kernel_language.__all__) - {"Part", "SIDE", *KINDS}
    words = {name for name in names if not name.startswith("part")}
    assert all(hasattr(cpu_compiler._Compiler, f"call_{name}") for name in words)


def test_functions_in_c_are_called_with_whole_numbers():
    seen = []
    kind = ctypes.CFUNCTYPE(ctypes.c_int, *[ctypes.c_int64] * 3)
    function = kind(lambda *numbers: seen.append(numbers) or -5)
    numbers = np.array([ctypes.cast(function, ctypes.c_void_p).value, 2**60, 0])
    words = (f"read(head[0], {k}, int64)" for k in range(2))
    run(f"write(head[0], 2, int64(int32(c_call({', '.join(words)}, -7, 2))), int64)", numbers)
    assert seen == [(2**60, -7, 2)]
    assert numbers[2] == -5


@pytest.mark.parametrize("writes", [False, True])
def test_a_line_may_be_asked_for_where_there_is_none(writes: bool):
    body = f"""prefetch(read(head[0], 0, int64), {writes})
write(head[0], 1, int64(8), int64)"""
    numbers = np.array([16, 7])
    run(body, numbers)
    assert numbers.tolist() == [16, 8]
    made = machine_code.optimised(text(body, "float64"))
    assert re.search(rf"call void @llvm.prefetch.*, i32 {int(writes)}, i32 3, i32 1\)", str(made))


@pytest.mark.parametrize("kind", kernel_language.SIDE)
def test_a_tile_is_turned_and_nothing_else_is_touched(kind):
    side = kernel_language.SIDE[kind]
    sizes = [
        (side, side),
        (1, 1),
        (side, 3),
        (5, side),
        (side - 1, 2),
        (4, side + 9),
        (side + 9, 4),
    ]
    for count, length in [*sizes, (0, 5), (5, 0)]:
        source = np.arange(count * (length + 3) + 1, dtype=kind).reshape(-1)[: count * (length + 3)]
        target = np.full((length + 1, count + 2), -1.0, dtype=kind)
        lines = np.array([length + 3, count + 2]) * source.itemsize
        body = f"""turn(
    head[0], read(head[2], 0, int64), head[1], read(head[2], 1, int64), {count}, {length}, {kind}
)"""
        run(body, source, target, lines, number=kind)
        expected = np.full_like(target, -1.0)
        high, wide = min(count, side), min(length, side)
        tile = source.reshape(count, length + 3)[:high, :wide]
        expected[:wide, :high] = tile.T
        np.testing.assert_array_equal(target, expected)


def test_a_whole_number_is_a_condition():
    out = np.array([3, 0, 9, 9])
    run(
        """for k in range(2):
    if read(head[0], k, int64):
        write(head[0], 2 + k, int64(1), int64)
    else:
        write(head[0], 2 + k, int64(2), int64)""",
        out,
    )
    assert out.tolist() == [3, 0, 1, 2]

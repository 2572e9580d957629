"""The kernel that looks at weights and their gradients in one call; see `ravine.engine.gradient_addresses`.

It calls what CPython and DLPack give away as C functions, so it runs with the interpreter's lock held.
"""

from __future__ import annotations

from typing import Any

from ravine.engine.kernel_language import (
    c_call,
    int32,
    int64,
    part_as_written,
    read,
    stack_bytes,
    uint8,
    write,
)

SAME, CHANGED, OTHERWISE = 0, 1, 2
"""What `look` answers."""


@part_as_written
def look(head: Any) -> Any:
    """Return `SAME` if all gradients lie where they lay, `CHANGED` if not: their addresses are written.

    `OTHERWISE` where a weight is not where or as large as it was, where it has no gradient, or one of
    another type, device or layout, or one that has no address.
    """
    count, weights = read(head, 0, int64), read(head, 1, int64)
    known, found = read(head, 2, int64), read(head, 3, int64)
    grad, none = read(head, 4, int64), read(head, 5, int64)
    item, attribute, release = read(head, 6, int64), read(head, 7, int64), read(head, 8, int64)
    forget, describe = read(head, 9, int64), read(head, 10, int64)
    one, other = stack_bytes(48), stack_bytes(48)
    answer = int64(SAME)
    for k in range(count):
        weight = c_call(item, weights, k)
        gradient = c_call(attribute, weight, grad)
        if gradient == 0:  # an error of a class of someone's own
            c_call(forget)
            return int64(OTHERWISE)
        address = int64(-1)
        if gradient != none:
            if int32(c_call(describe, weight, one)) != int32(0) or int32(
                c_call(describe, gradient, other)
            ) != int32(0):
                c_call(forget)
            elif alike(one, other, read(known, 2 * k, int64), read(known, 2 * k + 1, int64)):
                address = read(other, 0, int64) + read(other, 5, int64)
        c_call(release, gradient)
        if address < 0:
            return int64(OTHERWISE)
        if address != read(found, k, int64):
            answer = int64(CHANGED)
            write(found, k, address, int64)
    return answer


@part_as_written
def alike(one: Any, other: Any, address: Any, bits: Any) -> Any:
    """Return whether a DLTensor begins at an address, has so many bits, and another lies as it does.

    In a DLTensor are, by byte: 0 the address, 8 the device, 16 how many dimensions (int32), 20 the type
    (its second byte tells the bits of an element), 24 the address of the sizes, 32 of the strides, and
    40 the bytes from the address to the first element.
    """
    if read(one, 0, int64) + read(one, 5, int64) != address:
        return int64(0)
    if read(one, 1, int64) != read(other, 1, int64) or read(one, 2, int64) != read(other, 2, int64):
        return int64(0)
    sizes, strides = read(one, 3, int64), read(one, 4, int64)
    other_sizes, other_strides = read(other, 3, int64), read(other, 4, int64)
    seen = int64(read(one, 21, uint8))
    for d in range(int64(read(one, 4, int32))):
        size = read(sizes, d, int64)
        if size != read(other_sizes, d, int64):
            return int64(0)
        # Where there is only one, nothing hangs on the way to the next.
        if size != 1 and read(strides, d, int64) != read(other_strides, d, int64):
            return int64(0)
        seen *= size
    return int64(1) if seen == bits else int64(0)

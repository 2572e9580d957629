"""What chunks of classes hold in memory, at the size of a language model, counted without numbers."""

from __future__ import annotations

import weakref

import pytest
import torch
from hypothesis import example, given
from hypothesis import strategies as st
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from ravine.losses import linear_classes, linear_products
from ravine.losses.linear_chunks import Batch, Terms
from ravine.losses.linear_class_memory import MOST_BYTES, TILE, groups
from ravine.losses.linear_classes import AT_ONCE, Head, arrived, gradients, results, visit
from ravine.losses.linear_cross_entropy import ROWS


class Bytes(TorchDispatchMode):
    """Counts what is allocated, and what of it is there at most at one time."""

    def __init__(self):
        super().__init__()
        self.held = self.most = 0
        self.known = {}

    def __torch_dispatch__(self, function, types, given=(), named=None):
        found = function(*given, **(named or {}))
        old = {t.untyped_storage()._cdata for t in tree_leaves((given, named)) if is_tensor(t)}
        for t in tree_leaves(found):
            if is_tensor(t) and t.untyped_storage()._cdata not in old:
                self.add(t.untyped_storage())
        return found

    def add(self, storage):
        key, size = storage._cdata, storage.nbytes()
        if key in self.known:
            return

        def gone(_):
            del self.known[key]
            self.held -= size

        self.known[key] = weakref.ref(storage, gone)
        self.held += size
        self.most = max(self.most, self.held)


def is_tensor(x):
    return isinstance(x, torch.Tensor)


def besides(rows, width, classes, kept=None, soft=False, wanted=(True, True, True), **options):
    """Return the most bytes forwards, and those on the way back besides the gradients."""
    made = {"dtype": torch.bfloat16, "device": "meta"}
    hidden, weight = torch.empty(rows, width, **made), torch.empty(classes, width, **made)
    bias = torch.empty(classes, **made)
    target = torch.empty((rows, classes) if soft else rows, device="meta")
    target = target if soft else target.to(torch.int64)
    if kept is not None:
        kept = torch.empty(kept, dtype=torch.int64, device="meta")
    values = {"class_weight": None, "label_smoothing": 0.0, "ignore_index": -100}
    terms = Terms(ROWS, values | options, None, 1e-4)
    head = Head(hidden, weight, bias, Batch(target, None, kept), terms, wanted)
    with Bytes() as there:
        known = visit(head)
        shown = results(head, known)
        forwards, there.most, between = there.most, there.held, there.held
        assert sum(t.nbytes for t in shown) <= between < 100 * rows
        one = torch.empty((), dtype=torch.float64, device="meta")
        found = gradients(head, known, *arrived(head, known, one, None))
        left = sum(t.nbytes for t in found if t is not None)
        assert there.held <= between + left + 100 * rows
    return forwards, there.most - left


MB = 1e6


class Operations(TorchDispatchMode):
    """Keeps the names of all operations."""

    def __init__(self):
        super().__init__()
        self.names = []

    def __torch_dispatch__(self, function, types, given=(), named=None):
        self.names.append(str(function))
        return function(*given, **(named or {}))


@pytest.mark.parametrize("kind", [torch.bfloat16, torch.float16], ids=str)
def test_products_are_of_half_precision_and_float32(kind):
    """One row is added apart: torch takes it for a bias."""
    left, right = (torch.empty(size, dtype=kind, device="meta") for size in ((3, 4), (4, 5)))
    out = torch.empty(3, 9, device="meta")[:, :5]
    with Operations() as seen:
        linear_products.put(out, left, right)
        linear_products.add(out, left, right)
        linear_products.add(out[:1], left[:1], right)
    names = [name for name in seen.names if "mm" in name]
    assert names == ["aten.mm.dtype_out", "aten.addmm.dtype_out", "aten.mm.dtype"]


def test_the_counter_counts():
    with Bytes() as there:
        x = torch.empty(1000, device="meta")
        y = (x + 1).view(10, 100)
        del x
        y.add_(1)
        assert (there.held, there.most) == (4000, 8000)
        del y
    assert (there.held, there.most) == (0, 8000)


@pytest.mark.slow
def test_plain_operations_hold_less_than_a_twentieth_of_the_logits():
    forwards, back = besides(8192, 256, 32768)
    logits = 8192 * 32768 * 4
    assert forwards < 0.05 * logits and back < 0.06 * logits


@pytest.fixture
def in_one_launch(monkeypatch):
    """Leave out what plain operations allocate between the products; a kernel allocates nothing."""
    for name in ("look", "turn"):
        monkeypatch.setattr(linear_classes, name, lambda *_: None)


@pytest.mark.usefixtures("in_one_launch")
@pytest.mark.parametrize("options", [{}, {"label_smoothing": 0.1}], ids=["plain", "smoothed"])
def test_bytes_of_a_language_model(options):
    """8192 rows of width 2304 and 256000 classes: 1217 MB of gradients, 8389 MB of logits in float32."""
    by_rows, own, slack = 4 * 8192 * 2304, 4 * 768 * (8192 + 2304), 4 * MB
    forwards, back = besides(8192, 2304, 256000, **options)
    assert 0 < forwards - 4 * 4096 * 8192 < slack  # a few numbers a row and a class
    assert forwards < 2 * 256000 * 2304 / 4
    assert 0 < back - max(by_rows, own + by_rows // 2) < slack
    assert back < 80 * MB
    # 2000 of the rows are left out, the others copied: 28 MB, which are gone at the end.
    _, some = besides(8192, 2304, 256000, kept=6192, **options)
    copied, by_copied = 2 * 6192 * 2304, 4 * 6192 * 2304
    at_the_end = by_copied + 2 * AT_ONCE * 2304
    assert some < max(at_the_end, copied + MOST_BYTES + by_copied - by_rows // 2) + slack
    forwards, frozen = besides(8192, 2304, 256000, wanted=(True, False, False), **options)
    own = 4 * 768 * 8192
    assert forwards < own + slack and frozen < max(by_rows, own + by_rows // 2) + slack
    _, alone = besides(8192, 2304, 256000, wanted=(False, True, False), **options)
    assert alone < MOST_BYTES + slack


@given(
    rows=st.integers(1, 10**5),
    width=st.integers(1, 8192),
    classes=st.integers(1, 300_000),
    lends=st.booleans(),
)
@example(8192, 2304, 256000, True)
def test_chunks_are_all_classes_and_find_their_room(rows, width, classes, lends):
    found = groups(rows, width, classes, lends)
    assert [g.first for g in found] == [0, *(g.last for g in found[:-1])]
    assert found[-1].last == classes and not found[-1].lent
    for size, first, last, lent in found:
        numbers = size * (rows + width)
        assert first < last and (size % TILE == 0 or size == classes)
        if lent:
            assert lends and size > found[-1].size and last % size == 0
            assert 4 * numbers <= 2 * (classes - last) * width
            assert 4 * numbers <= 2 * classes * width / 4
            assert 2 * last * width % 256 == 0  # where the lent memory begins
        else:
            assert 4 * numbers <= MOST_BYTES or size <= TILE


def test_sizes_of_chunks():
    sizes = [(8192, 2304), (512, 512), (10**6, 64), (1, 1)]
    assert [groups(*size, 256000, False)[0].size for size in sizes] == [768, 8192, 128, 256000]
    assert groups(8192, 2304, 256000, True) == [
        (4096, 0, 217088, True),
        (768, 217088, 256000, False),
    ]

"""What chunks of classes hold in memory, at the size of a language model, counted without numbers."""

from __future__ import annotations

import weakref

import pytest
import torch
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from ravine.losses import linear_classes
from ravine.losses.linear_chunks import Batch, Terms
from ravine.losses.linear_classes import Head, arrived, gradients, results, visit
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
    head = Head(hidden, weight, bias, Batch(target, None, kept), terms)
    with Bytes() as there:
        known = visit(head)
        shown = results(head, known)
        forwards, there.most, between = there.most, there.held, there.held
        assert sum(t.nbytes for t in shown) <= between < 100 * rows
        one = torch.empty((), dtype=torch.float64, device="meta")
        found = gradients(head, known, *arrived(head, known, one, None), wanted)
        left = sum(t.nbytes for t in found if t is not None)
        assert there.held <= between + left + 100 * rows
    return forwards, there.most - left


MB = 1e6


def test_the_counter_counts():
    with Bytes() as there:
        x = torch.empty(1000, device="meta")
        y = (x + 1).view(10, 100)
        del x
        y.add_(1)
        assert (there.held, there.most) == (4000, 8000)
        del y
    assert (there.held, there.most) == (0, 8000)


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
    chunk, by_rows = 4 * 768 * 8192, 4 * 8192 * 2304
    slack = 4 * MB  # a few numbers a row and a class
    forwards, back = besides(8192, 2304, 256000, **options)
    assert chunk < forwards < chunk + slack
    part = 4 * 768 * 2304
    assert back < max(by_rows, chunk + part + by_rows // 2) + slack
    assert back < 80 * MB
    # 2000 of the rows are left out, the others copied: 28 MB, which are gone at the end.
    _, some = besides(8192, 2304, 256000, kept=6192, **options)
    copied, by_copied = 2 * 6192 * 2304, 4 * 6192 * 2304
    parts = linear_classes.MOST_BYTES
    assert (
        some < max(by_copied + 2 * 4096 * 2304, copied + parts + by_copied - by_rows // 2) + slack
    )
    _, frozen = besides(8192, 2304, 256000, wanted=(True, False, False))
    assert frozen < max(by_rows, chunk + by_rows // 2) + slack
    _, alone = besides(8192, 2304, 256000, wanted=(False, True, False))
    assert alone < chunk + part + slack


def test_classes_in_a_chunk():
    sizes = [(8192, 2304), (512, 512), (10**6, 64), (1, 1)]
    found = [linear_classes.chunk_classes(*size, 256000) for size in sizes]
    assert found == [768, 8192, 128, 256000]

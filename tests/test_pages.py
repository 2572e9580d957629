"""Memory of state: the form that torch.empty_like gives, beside each other, given back."""

from __future__ import annotations

import copy
import gc
import pickle

import pytest
import torch
from safetensors.torch import load, save

from ravine.engine import pages
from ravine.optim import Adam

SHAPES = [
    torch.zeros(300, 400),
    torch.zeros(300, 400).T,
    torch.zeros(2, 3, 64, 64).to(memory_format=torch.channels_last),
    torch.zeros(2, 100, 100)[:, ::2],  # with gaps
    torch.zeros(1, 9000).expand(4, 9000),
    torch.zeros(20_000),
    torch.zeros(3),
    torch.zeros(()),
    torch.zeros(0, 5),
]
HUGE_PAGES = pytest.mark.skipif(
    pages._advice is None, reason="this system has no huge pages to ask for"
)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64, torch.bfloat16, torch.uint8])
def test_the_form_is_that_of_torch(dtype: torch.dtype) -> None:
    for like in SHAPES:
        made, wanted = pages.empty_like(like, dtype), torch.empty_like(like, dtype=dtype)
        assert made.shape == wanted.shape
        assert made.stride() == wanted.stride()
        assert made.dtype is dtype
        assert made.untyped_storage().nbytes() == wanted.untyped_storage().nbytes()
        assert made.numel() == 0 or made.data_ptr() % pages.LINE == 0
        assert not made.requires_grad
        assert not made._is_view()


def test_tensors_do_not_overlap_and_are_saved_alone() -> None:
    like = torch.zeros(5000)
    made = [pages.empty_like(like, torch.float32).fill_(k) for k in range(300)]
    assert all(bool((one == k).all()) for k, one in enumerate(made))
    assert len(pickle.dumps(made[0])) < 25_000
    assert copy.deepcopy(made[7]).equal(made[7])
    assert load(save({"a": made[1], "b": made[2]}))["b"].equal(made[2])  # refuses shared memory


def test_more_than_a_block() -> None:
    made = pages.empty_like(torch.empty(pages.BLOCK // 4 + 5), torch.float32)
    made[0] = made[-1] = 3.0
    after = pages.empty_like(torch.empty(5000), torch.float32).fill_(1.0)
    assert (made[0], made[-1], after.sum()) == (3.0, 3.0, 5000.0)


@HUGE_PAGES
def test_the_state_of_a_weight_lies_together() -> None:
    weight = torch.nn.Parameter(torch.zeros(200, 300))
    weight.grad = torch.ones_like(weight)
    optimizer = Adam([weight])
    pages._last.clear()  # a block of its own
    optimizer.step()
    first, second = sorted(
        value.data_ptr() for value in optimizer.state[weight].values() if value.ndim
    )
    assert second - first == 200 * 300 * 4
    assert first % pages.HUGE == 0


@HUGE_PAGES
def test_memory_is_given_back_with_the_last_of_it() -> None:
    pages._last.clear()
    made = [pages.empty_like(torch.empty(5000), torch.float32) for _ in range(3)]
    memory = pages._last[0]._pages
    del made[:2]
    gc.collect()
    assert memory() is not None
    assert made[0].fill_(1.0).sum() == 5000
    made.clear()
    gc.collect()
    assert memory() is None
    assert pages.empty_like(torch.empty(5000), torch.float32).fill_(1.0).sum() == 5000

"""The dropout layer whose mask is computed from a counter and never stored."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn
from torch._functorch.pyfunctorch import temporarily_clear_interpreter_stack

from ravine.errors import ArgumentError, ArgumentTypeError
from ravine.regularize.checks import probability, seed_number
from ravine.regularize.dropout_mask import Chance, can_compile, drop_compiled, drop_reference


class Dropout(nn.Module):
    r"""Set elements to zero with probability p while training, and scale up the others.

    Equation:
        y = x / (1 - p)    where r(seed, call, place of the element) >= p
            0              elsewhere

    r is a word of the generator Philox4x32-10 with the layer's seed as key; its counter is made of
    the number of the call and of the element's place in row-by-row order
    (`ravine.regularize.dropout_mask` has the exact formula). So the mask is not kept for the way
    back but computed again, a forward pass depends on nothing but ``state_dict()``, and the same
    seed gives the same mask on every device, in every memory format and for any number of threads.

    Args:
        p: probability of zero, 0 <= p <= 1; may be changed at any time. p = 0 returns the input
            itself. p = 1 returns zeros and a gradient of zeros, whatever the input holds.
        seed: 0 <= seed < 2^63. Left out, it is drawn from torch's generator, so that layers differ
            and ``torch.manual_seed`` fixes them. `set_dropout` numbers the layers of a model.

    Shape: any shape, strides and device; float16, bfloat16, float32, float64. The output has the
    input's shape, type and memory format.

    State: the buffer ``stream``, int64 of shape (2,): the seed, and how many masks were drawn. It
    is part of ``state_dict()``: a resumed run draws the masks that it would have drawn. A state
    without it (of a ``torch.nn.Dropout``) can be loaded and leaves it as it is. Calls in eval mode
    and with p = 0 or p = 1 draw no mask and are not counted.

    Precision: an element is dropped with probability p rounded to a multiple of 2^-32, and the
    others are multiplied by one over the probability that they are kept with, so that the mean is x
    to rounding. float16 and bfloat16 are computed in float32 and rounded once.

    Raises:
        ArgumentError: p or seed out of bounds; or a mask is asked for during a backward pass, see
            below. ArgumentTypeError: the input is not a real float tensor.

    Under ``torch.utils.checkpoint`` the forward pass runs again during the backward pass, when the
    counter has moved on. The mask would be another one and the gradient wrong, so this raises
    unless ``context_fn=lambda: checkpoint_contexts(model)`` is given to ``checkpoint`` (with
    ``use_reentrant=False``): then the counters of the first pass are used again.

    Under ``torch.func`` the mask is that of one call: ``vmap`` over examples gives every example
    the same mask; over models whose buffers are stacked, each its own. DistributedDataParallel
    copies buffers from the first process, so that all drop the same places: give it
    ``broadcast_buffers=False`` and call ``set_dropout(model, p, seed=rank)`` after wrapping.

    Example:
        >>> layer = Dropout(0.5, seed=0)
        >>> layer(torch.ones(8))
        tensor([0., 2., 0., 2., 2., 0., 2., 2.])
        >>> layer.state_dict()["stream"]
        tensor([0, 1])
        >>> layer.eval()(torch.ones(3))
        tensor([1., 1., 1.])

    Differs from: torch stores the mask, draws it from its global generator (so dropout changes what
    is drawn after it, and a resumed run needs the generator's state), multiplies by the mask (a
    dropped infinity or NaN becomes NaN, here 0), and rounds the scale to the type of the input.
    Keras calls p ``rate``. Flax and haiku take a key at every call; this counts calls instead.

    Source: Srivastava et al. 2014, section 4; scaling while training ("inverted") in section 10.
    """

    stream: Tensor

    def __init__(self, p: float = 0.5, *, seed: int | None = None) -> None:
        super().__init__()
        if seed is None:
            seed = int(torch.randint(2**63 - 1, (), device="cpu"))
        self.p = p
        self.register_buffer("stream", torch.tensor([seed_number("Dropout: seed", seed), 0]))

    @property
    def p(self) -> float:
        """The probability of zero."""
        return self._p

    @p.setter
    def p(self, value: float) -> None:
        self._p = probability("Dropout: p", value)
        self._chance = Chance.of(self._p) if self._p < 1 else None

    def reseed(self, seed: int) -> None:
        """Start the stream of masks of another seed, at its first call.

        >>> layer = Dropout(0.5, seed=0)
        >>> layer.reseed(7)
        >>> layer.stream
        tensor([7, 0])
        """
        with torch.no_grad():
            self.stream.copy_(torch.tensor([seed_number("Dropout: seed", seed), 0]))

    def forward(self, x: Tensor) -> Tensor:
        """Return x with elements dropped (training), or x itself (eval, p = 0)."""
        if not self.training or self._p == 0:
            return x
        if not isinstance(x, Tensor) or x.dtype not in _TYPES:
            raise ArgumentTypeError(
                "Dropout takes a real float tensor",
                got=str(x.dtype) if isinstance(x, Tensor) else type(x).__name__,
                expected="float16, bfloat16, float32 or float64",
            )
        chance = self._chance
        if chance is None:  # p = 1
            return torch.where(torch.zeros((), dtype=torch.bool, device=x.device), x, 0.0)
        if torch.compiler.is_compiling():
            return drop_reference(x, self._next_call(), chance)
        if torch._C._current_graph_task_id() != -1 and not _recomputing:
            raise _in_backward()
        if _transformed(x):
            return drop_reference(x, self._next_call_outside(), chance)
        if can_compile(x) and self.stream.device.type == "cpu":
            seed, call = self.stream.tolist()
            self.stream.numpy()[1] = call + 1
            return _drop(x, (seed, call), chance)
        return _drop(x, self._next_call(), chance)

    def _next_call(self) -> Tensor:
        """Return the stream as it is for this call, and count the call; never waits for a GPU."""
        with torch.no_grad():
            now = self.stream.clone()
            self.stream[1].add_(1)
        return now

    def _next_call_outside(self) -> Tensor:
        """Count the call although a transform of functions allows no change of what it captured."""
        if torch._C._functorch.is_functorch_wrapped_tensor(self.stream):
            return self._next_call()
        with temporarily_clear_interpreter_stack():
            return self._next_call()

    def _load_from_state_dict(self, state_dict: Any, prefix: str, *rest: Any) -> None:
        state_dict.setdefault(prefix + "stream", self.stream.detach().clone())
        super()._load_from_state_dict(state_dict, prefix, *rest)

    def extra_repr(self) -> str:
        return f"p={self._p}"


_TYPES = (torch.float16, torch.bfloat16, torch.float32, torch.float64)

_recomputing: list[object] = []
"""Not empty inside of the recomputation that `checkpoint_contexts` prepares."""


class _Drop(torch.autograd.Function):
    """y = mask x; the gradient goes through the same mask, computed again."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, stream: tuple[int, int] | Tensor, chance: Chance) -> Tensor:
        ctx.rest = stream, chance
        if isinstance(stream, tuple):
            return drop_compiled(x, *stream, chance)
        return drop_reference(x, stream, chance)

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> Any:
        stream, chance = ctx.rest
        if _transformed(gradient) or (isinstance(stream, tuple) and not can_compile(gradient)):
            numbers = torch.tensor(stream, device="cpu") if isinstance(stream, tuple) else stream
            return drop_reference(gradient, numbers, chance), None, None
        return _drop(gradient, stream, chance), None, None


def _drop(x: Tensor, stream: tuple[int, int] | Tensor, chance: Chance) -> Tensor:
    result: Tensor = _Drop.apply(x, stream, chance)  # type: ignore[no-untyped-call]
    return result


def _transformed(x: Tensor) -> bool:
    """Whether something is at work that would not see through a compiled pass."""
    return (
        torch._C._functorch.peek_interpreter_stack() is not None
        or torch.autograd.forward_ad._current_level >= 0
        or torch._C._functorch.is_legacy_batchedtensor(x)  # autograd.grad(is_grads_batched=True)
        or type(x) not in (Tensor, nn.Parameter)
    )


def _in_backward() -> ArgumentError:
    return ArgumentError(
        "dropout: the forward pass is run again during the backward pass",
        where="Dropout.forward, under torch.utils.checkpoint or a function's backward",
        expected="the masks of the first pass, which only its counters can give",
        do="checkpoint(..., use_reentrant=False,\n"
        "    context_fn=lambda: ravine.regularize.checkpoint_contexts(model))",
    )

"""Weights that are stepped together by one launch of one kernel."""

from __future__ import annotations

from collections.abc import Sequence
from operator import attrgetter, itemgetter
from typing import Any

import numpy as np
import torch

from ravine.engine import gradient_addresses
from ravine.engine.gradient_addresses import CHANGED, SAME, GradientAddresses
from ravine.engine.host import Bound
from ravine.engine.launch import Launch
from ravine.engine.lean import Stored
from ravine.engine.norm import SQUARES, count_nonfinite
from ravine.engine.program import Program, Specialised
from ravine.optim.buckets import Member, Stale
from ravine.optim.capturable import refuse_capture
from ravine.optim.passes import Pass, Rows, each
from ravine.optim.rows import Numbers, Table
from ravine.optim.sharding import is_sharded, local, local_gradients, summed_over
from ravine.optim.totals import Sweeps, across_processes, settled

# Called over lists: this costs three quarters of a comprehension, at every step.
_address = torch.Tensor.data_ptr
_contiguous = torch.Tensor.is_contiguous
_bytes = attrgetter("nbytes")
_increment_version = getattr(torch._C, "_increment_version", torch.autograd.graph.increment_version)
"""torch.autograd.graph.increment_version of a list is this, 0.2 us later."""


class CompiledBucket:
    """Weights of one device and type, stepped by one launch of one kernel."""

    def __init__(
        self,
        program: Program,
        specialised: Specialised,
        members: Sequence[Member],
        executor: Any,
        description: str,
    ) -> None:
        self.members = members
        self.numbers = Numbers(members, program.numbers)
        self.description = description
        self.reduces = bool(specialised.sweeps)
        self._program = program
        self._specialised = specialised
        self._executor = executor
        self._params = [member.weight for member in members]
        self._sharded = is_sharded(self._params[0])
        self.ranks = summed_over(self._params[0])
        self._weights = [local(w) for w in self._params]  # itself, where it is not sharded
        self._weight_addresses = list(map(_address, self._weights))
        self._weight_bytes = list(map(_bytes, self._weights))
        # Only where every gradient is sure to lie in memory as its weight does.
        self._contiguous = all(
            w.is_contiguous()
            and getattr(w, "grad_dtype", w.dtype) is w.dtype  # None: of any type
            and (p.grad is None or p.grad.dtype is w.dtype)
            for w, p in zip(self._weights, self._params, strict=True)
        )
        self._groups = self.numbers.groups
        self._decisive = itemgetter(*(program.decisive or ("lr",)))  # it needs one name
        self._decided = [self._decisive(group) for group in self._groups]

        first = members[0]
        self._types: dict[str, Stored] = {**first.forms, "g": first.weight.dtype}
        states, scales = [m.state for m in members], [m.scales for m in members]
        self._passes = [
            Pass(one, self._weights, states, self._types, scales, executor)
            for one in (*specialised.sweeps, specialised)
        ]
        self._last = self._passes[-1]
        self._gradient_places = [
            (one.launch, one.gradient) for one in self._passes if one.gradient is not None
        ]
        self._sizes = [w.numel() for w in self._weights]
        self._all = list(range(len(members)))
        self._active = self._all
        self._addresses: list[int] = []
        self._on_gpu = self._weights[0].is_cuda
        self._found: GradientAddresses | None = None
        if gradient_addresses.available() and not self._sharded:
            self._found = GradientAddresses(self._weights)
        self._copies: Sequence[Any] = ()  # of gradients, alive until they were read
        self._rows: Rows | None = None  # what the sweeps have left
        self._totals: dict[str, Table] = {}
        self._elements = np.array([p.numel() for p in self._params], dtype=np.float64)
        self._shared: Sequence[float] = ()
        self._advances = bool(specialised.numbers)
        self._advance = Bound(specialised.advance)
        self._norm: Launch | None = None

    def gather(self) -> None:
        if self._on_gpu:
            refuse_capture()
        for k, group in enumerate(self._groups):
            decided = self._decisive(group)
            if decided != self._decided[k]:
                if self._program.specialise(group) is not self._specialised:
                    raise Stale
                self._decided[k] = decided
        if self._copies:  # of a step that was left out
            self._copies = ()
        found = self._found
        if found is None or self._active is not self._all:
            self._look_closer()
            return
        seen = found.look()
        if seen == CHANGED:
            self._set_addresses(found.addresses.tolist())
        elif seen != SAME:
            self._look_closer()

    def _look_closer(self) -> None:
        """Take the gradients one by one."""
        if self._found is not None:
            self._found.forget()
        weights = self._weights
        if self._sharded:
            weights = self._weights = [local(w) for w in self._params]
        # The size too: data replaced by a part of itself begins at the same address.
        if (
            list(map(_address, weights)) != self._weight_addresses
            or list(map(_bytes, weights)) != self._weight_bytes
        ):
            raise Stale
        gradients: list[Any]
        if self._sharded:
            self._copies = gradients = local_gradients(self._params)
        else:
            gradients = [w.grad for w in weights]
        try:
            addresses = list(map(_address, gradients))
        except TypeError:  # a weight without a gradient
            self._select([k for k, g in enumerate(gradients) if g is not None])
            self._copies = gradients = self._in_layout(gradients)
            addresses = [0 if g is None else g.data_ptr() for g in gradients]
        except RuntimeError:  # a sparse gradient has no address; making buckets anew says so
            raise Stale from None
        else:
            if self._active is not self._all:
                self._select(self._all)
            if not (self._contiguous and all(map(_contiguous, gradients))):
                self._copies = gradients = self._in_layout(gradients)
                addresses = list(map(_address, gradients))
        if addresses != self._addresses:
            self._set_addresses(addresses)

    def _set_addresses(self, addresses: list[int]) -> None:
        self._addresses = addresses
        for launch, place in self._gradient_places:
            launch.set_addresses(place, addresses)

    def _select(self, active: list[int]) -> None:
        if active != self._active:
            self._active = self._all if active == self._all else active
            for one in self._passes:
                one.launch.select(active)
            if self._norm is not None:
                self._norm.select(active)

    def _in_layout(self, gradients: Sequence[Any]) -> list[Any]:
        """Return the gradients, copied where they do not lie in memory as their weights do."""
        return [
            g
            if g is None or (g.stride() == w.stride() and g.dtype is w.dtype)
            else torch.empty_like(w, requires_grad=False).copy_(g)
            for g, w in zip(gradients, self._weights, strict=True)
        ]

    def squared_norm(self) -> float:
        if self._norm is None:
            specialised = SQUARES.specialise({})
            types = {"g": self._types["g"], "square": torch.float64}
            kernel = self._executor.compiled(specialised, types, ("square",))
            device = self._weights[0].device
            self._norm = self._executor.Launch(
                kernel, self._sizes, arrays=1, slots=0, totals=1, device=device
            )
            self._norm.select(self._active)
        self._norm.set_addresses(0, self._addresses)
        self._norm.run()
        return self._norm.totals()[0]

    def count_nonfinite(self) -> int:
        return count_nonfinite(self._copies or [w.grad for w in self._params])

    def stepped(self) -> Sequence[int]:
        return self._active

    def sweeps(self, common: dict[str, float]) -> Sweeps:
        rows = self.numbers.count(None if self._active is self._all else self._active, common)
        totals: dict[str, Table] = {}
        for one in self._passes[:-1]:
            one.run(rows, totals)
            sums = across_processes(one.totals(), self.ranks)
            of_model: dict[str, float] = {}
            for reduction, found in zip(one.specialised.totals, sums, strict=True):
                if reduction.of_model:
                    of_model[reduction.name] = sum(found.tolist())
                else:
                    totals[reduction.name] = settled(reduction.kind, found, self._elements)
            if of_model:
                everywhere = yield of_model
                rows = [(options, {**now, **everywhere}) for options, now in rows[0]], rows[1]
        self._rows, self._totals = rows, totals

    def run(self, common: dict[str, float]) -> None:
        if not self._active:
            return
        everyone = None if self._active is self._all else self._active
        rows, self._rows = self._rows, None
        if rows is None:  # there were no sweeps
            rows = self.numbers.count(everyone, common)
        if self._last.rounds:
            self._last.set_keys(self.numbers.keys())
        # Autograd then notices where a graph still needs the old weights. Before the pass, which drives
        # what belongs to the weights out of the cache: 4 us for 159 of them and not 27.
        _increment_version(self._params)
        self._last.run(rows, self._totals)
        if self._copies:
            self._copies = ()
        if self._advances:
            self._take_numbers(rows, everyone)

    def _take_numbers(self, rows: Rows, active: list[int] | None) -> None:
        """Compute the new numbers that are state."""
        held = len(self.numbers.held)
        if self._totals and self._specialised.by_tensor:
            table = each(self._specialised.advance, rows, self._totals)
            self.numbers.advance_each(table, self._active)
            self._shared = table[self._active[0], held:].tolist()
            return
        values, row_of = rows
        new = [self._advance.at(options)(now) for options, now in values]
        self.numbers.advance(new, row_of, active)
        self._shared = new[row_of[self._active[0]]][held:]

    def shared(self) -> Sequence[float]:
        return self._shared

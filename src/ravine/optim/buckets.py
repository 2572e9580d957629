"""Weights that are stepped together: by one kernel launch, or one by one with the reference."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from operator import itemgetter
from typing import Any, Protocol

import torch
from torch import Tensor

from ravine.engine import cpu
from ravine.engine.norm import SQUARES, squared_norm
from ravine.engine.program import Program, Specialised
from ravine.engine.reference import evaluate
from ravine.errors import EquationError

Group = dict[str, Any]


class Stale(Exception):  # noqa: N818 (a signal, not a failure)
    """The weights or hyperparameters are not those that a bucket was made for."""


class Bucket(Protocol):
    """What an optimizer asks of a bucket, in this order, at every step."""

    members: Sequence[Member]
    steps: Tensor
    description: str

    def gather(self) -> None:
        """Take the gradients of this step; raise `Stale` if the bucket no longer fits."""

    def squared_norm(self) -> float:
        """Return the sum of squares of the gradients taken."""

    def run(self, norm: float) -> None:
        """Step the weights whose gradients were taken."""


class Member:
    """A weight with its group, its state (by the program's variable names) and its steps taken."""

    def __init__(
        self, weight: Tensor, group: Group, state: dict[str, Tensor], steps: float
    ) -> None:
        self.weight = weight
        self.group = group
        self.state = state
        self.steps = steps


def runtime_values(group: Group, t: float, norm: float) -> dict[str, Any]:
    """Return a group's hyperparameters with the numbers that change at every step."""
    values = {**group, "t": t, "norm": norm}
    values["lr"] = float(values["lr"])
    return values


class _Counted:
    """Members with their step counts, one float64 each, of which ``state["step"]`` is a view."""

    def __init__(self, members: Sequence[Member]) -> None:
        self.members = members
        self.steps = torch.tensor([m.steps for m in members], dtype=torch.float64)

    @property
    def params(self) -> list[Tensor]:
        return [member.weight for member in self.members]


class CompiledBucket(_Counted):
    """Weights of one device and type, stepped by one launch of one kernel."""

    def __init__(
        self,
        program: Program,
        specialised: Specialised,
        members: Sequence[Member],
        executor: Any,
        description: str,
    ) -> None:
        super().__init__(members)
        self.description = description
        self._program = program
        self._specialised = specialised
        self._executor = executor
        self._weights = self.params
        self._weight_addresses = [w.data_ptr() for w in self._weights]
        # Only where every gradient is sure to lie in memory as its weight does.
        self._contiguous = all(
            w.is_contiguous()
            and getattr(w, "grad_dtype", w.dtype) is w.dtype  # None: of any type
            and (w.grad is None or w.grad.dtype is w.dtype)
            for w in self._weights
        )
        self._groups: list[Group] = []
        for member in members:
            if not any(member.group is group for group in self._groups):
                self._groups.append(member.group)
        self._group_of = [
            next(k for k, group in enumerate(self._groups) if group is member.group)
            for member in members
        ]
        self._decisive = itemgetter(*program.decisive)
        self._decided = [self._decisive(group) for group in self._groups]

        first = members[0]
        self._types = {name: t.dtype for name, t in first.state.items()}
        self._types |= {"w": first.weight.dtype, "g": first.weight.dtype}
        variables = specialised.variables
        kernel = executor.compiled(specialised, {name: self._types[name] for name in variables})
        self._sizes = [w.numel() for w in self._weights]
        self._launch = executor.Launch(
            kernel,
            self._sizes,
            arrays=len(variables),
            slots=len(specialised.slots),
            rows=len(self._groups),
            device=first.weight.device,
        )
        for k, name in enumerate(variables):
            if name == "w":
                self._launch.set_addresses(k, self._weight_addresses)
            elif name != "g":
                self._launch.set_addresses(k, [m.state[name].data_ptr() for m in members])
        self._gradient = variables.index("g") if "g" in variables else None
        self._launch.set_rows(self._group_of)
        self._steps = self.steps.numpy()
        self._all = list(range(len(members)))
        self._active = self._all
        self._set_uniform()
        self._norm: Any = None

    def _set_uniform(self) -> None:
        """Note the one step count that all weights share, or None."""
        counts = set(self._steps.tolist())
        self._t = counts.pop() if len(counts) == 1 else None

    def gather(self) -> None:
        weights = self._weights
        if [w.data_ptr() for w in weights] != self._weight_addresses:
            raise Stale
        for k, group in enumerate(self._groups):
            decided = self._decisive(group)
            if decided != self._decided[k]:
                if self._program.specialise(group) is not self._specialised:
                    raise Stale
                self._decided[k] = decided
        gradients: list[Any] = [w.grad for w in weights]
        try:
            addresses = [g.data_ptr() for g in gradients]
        except AttributeError:  # a weight without a gradient
            self._select([k for k, g in enumerate(gradients) if g is not None])
            gradients = self._in_layout(gradients)
            addresses = [0 if g is None else g.data_ptr() for g in gradients]
        except RuntimeError:  # a sparse gradient has no address; making buckets anew says so
            raise Stale from None
        else:
            if self._active is not self._all:
                self._select(self._all)
            if not (self._contiguous and all([g.is_contiguous() for g in gradients])):  # noqa: C419
                gradients = self._in_layout(gradients)
                addresses = [g.data_ptr() for g in gradients]
        self._gradients = gradients  # kept alive until they were read
        self._addresses = addresses
        if self._gradient is not None:
            self._launch.set_addresses(self._gradient, addresses)

    def _select(self, active: list[int]) -> None:
        if active != self._active:
            self._active = self._all if active == self._all else active
            self._launch.select(active)
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
        return float(self._norm.totals()[0])

    def run(self, norm: float) -> None:
        if self._active is self._all and self._t is not None:
            self._steps += 1
            self._t += 1
        else:
            self._steps[self._active] += 1
            self._set_uniform()
            self._launch.set_rows(self._group_of)
        scalars = self._specialised.scalars
        if self._t is None:
            self._set_rows_by_step(norm)
        else:
            for row, group in enumerate(self._groups):
                self._launch.set_scalars(row, scalars(runtime_values(group, self._t, norm)))
        self._launch.run()
        # Autograd then notices where a graph still needs the old weights.
        torch.autograd.graph.increment_version(self._weights)

    def _set_rows_by_step(self, norm: float) -> None:
        """Give weights of the same group and step count a row of scalars."""
        keys = list(zip(self._group_of, self._steps.tolist(), strict=True))
        rows = {key: row for row, key in enumerate(dict.fromkeys(keys))}
        self._launch.grow_scalars(len(rows))
        for (number, t), row in rows.items():
            # A weight that has not been stepped yet is not selected; its row is never read.
            values = runtime_values(self._groups[number], max(t, 1.0), norm)
            self._launch.set_scalars(row, self._specialised.scalars(values))
        self._launch.set_rows([rows[key] for key in keys])


class ReferenceBucket(_Counted):
    """Weights stepped one by one with plain PyTorch operations."""

    def __init__(self, program: Program, members: Sequence[Member], description: str) -> None:
        super().__init__(members)
        self.description = description
        self._program = program

    def gather(self) -> None:
        for member in self.members:
            missing = needed_state(self._program, member.group).difference(member.state)
            if missing:
                raise Stale
        self._gradients = [m.weight.grad for m in self.members]
        if any(g is not None and g.layout is not torch.strided for g in self._gradients):
            raise Stale

    def squared_norm(self) -> float:
        return squared_norm([g for g in self._gradients if g is not None])

    @torch.no_grad()
    def run(self, norm: float) -> None:
        for k, (member, gradient) in enumerate(zip(self.members, self._gradients, strict=True)):
            if gradient is None:
                continue
            self.steps[k] += 1
            stored = {"w": member.weight, "g": gradient, **member.state}
            tensors = {name: _computed(tensor.detach()) for name, tensor in stored.items()}
            values = runtime_values(member.group, float(self.steps[k]), norm)
            for name, new in evaluate(self._program, tensors, values).items():
                target = stored[name].detach()
                (torch.view_as_real(target) if target.is_complex() else target).copy_(new)


def _computed(tensor: Tensor) -> Tensor:
    """Return a tensor in the form that equations compute in: real, and float32 at least."""
    if tensor.is_complex():
        return torch.view_as_real(tensor)
    return tensor.float() if tensor.dtype in (torch.bfloat16, torch.float16) else tensor


def needed_state(program: Program, group: Mapping[str, Any]) -> set[str]:
    """Return the state that a program needs for these hyperparameters."""
    try:
        return set(program.specialise(group).variables) - {"w", "g"}
    except EquationError:  # an equation that only the reference can run: keep all it names
        return (
            set(program.variables)
            - {"w", "g"}
            - ({"average"} if group["average"] is None else set())
        )


def executor(name: str) -> Any:
    """Return the module that compiles and launches for a device."""
    if name == "gpu":
        from ravine.engine import gpu

        return gpu
    return cpu

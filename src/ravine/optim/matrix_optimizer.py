"""The optimizer of a matrix rule: its own plan, and AdamW for what is no matrix."""

from __future__ import annotations

from dataclasses import replace
from typing import Any, ClassVar

from torch import Tensor

from ravine.engine.program import Program
from ravine.optim import description
from ravine.optim.matrix_plan import MatrixPlan
from ravine.optim.matrix_programs import MatrixPrograms
from ravine.optim.optimizer import Optimizer
from ravine.optim.options import step_program
from ravine.optim.plan import Plan
from ravine.optim.routing import FALLBACK_BOUNDS, FALLBACK_OPTIONS, obstacle
from ravine.rules import RULES
from ravine.rules.matrix_rule import MatrixRule


class _Rest(Optimizer, rule=RULES["AdamW"]):
    """What steps the weights that a matrix rule does not, and what every optimizer takes."""


_OF_EVERY_OPTIMIZER = {
    name: default
    for name, default in _Rest.options.items()
    if name not in {*_Rest.rule.equation.hyperparameters, *_Rest.rule.defaults}
}


class MatrixOptimizer(Optimizer):
    """An `Optimizer` whose rule computes with whole matrices; the interface is the same.

    The weights that its rule does not take (``explain`` says which, and why) are stepped by AdamW,
    at the rate ``adamw_lr_ratio`` lr, with ``adamw_betas``, ``adamw_eps`` and
    ``adamw_weight_decay`` (None: weight_decay). A group with ``matrix=False`` goes there whole, for
    an embedding or the last layer; with ``matrix=True`` a weight that the rule cannot take is an
    error. Every option is for both.

    Sharded weights (`fully_shard`, tensor parallel) are stepped to the weights of one process. State
    is divided as its weight, preconditioners by rows. For each function of matrices a process gets
    whole matrices, about 1 / processes of those of one shape, and sends the results back: of a
    weight Muon sends 2 numbers a step, Shampoo and SOAP besides every preconditioner twice. Of a
    shape with fewer weights than processes some wait. Over gloo torch gathers all in each process.

    Memory: besides the state, one or more numbers (as many as the rule has variables between its
    parts) for each weight of the largest stack of one shape.

    Example:
        >>> import torch
        >>> from ravine.optim import Muon
        >>> model = torch.nn.Sequential(torch.nn.Linear(4, 8), torch.nn.Linear(8, 2))
        >>> hidden, head = model
        >>> groups = [
        ...     {"params": list(hidden.named_parameters(prefix="hidden"))},
        ...     {"params": list(head.named_parameters(prefix="head")), "matrix": False},
        ... ]
        >>> optimizer = Muon(groups, lr=0.02, adamw_lr_ratio=0.05)
        >>> print("\\n".join(optimizer.explain().splitlines()[:3]))
        group 0, Muon: 1 tensors: hidden.weight
        group 0, AdamW (1 dimension): 1 tensors: hidden.bias
        group 1, AdamW (matrix=False): 2 tensors: head.weight, head.bias
    """

    matrix_rule: ClassVar[MatrixRule]
    programs: MatrixPrograms
    _rest_program: Program = _Rest.program

    def __init_subclass__(cls, rule: Any = None, **kwargs: Any) -> None:
        super().__init_subclass__(**kwargs)
        if rule is None:
            return
        if rule.fallback is not None:
            rule = replace(rule, bounds={**FALLBACK_BOUNDS, **rule.bounds})
        cls.rule = cls.matrix_rule = rule
        cls.programs = MatrixPrograms(rule)
        cls.moments = _Rest.moments | {rule.kept[n].name: k for n, k in rule.moments.items()}
        cls.program = cls.programs.programs[0]
        own = {"lr": cls.programs.hyperparameters["lr"], **rule.defaults_of_parts}
        others = {} if rule.fallback is None else {**FALLBACK_OPTIONS, **rule.fallback}
        cls.options = (
            own | cls.programs.hyperparameters | _OF_EVERY_OPTIMIZER | others | {**rule.defaults}
        )

    def add_param_group(self, param_group: dict[str, Any]) -> None:
        """Add weights with options of their own; what is not named has the optimizer's value."""
        super().add_param_group(param_group)
        group = self.param_groups[-1]
        try:
            for weight in group["params"]:
                obstacle(self.matrix_rule, group, weight)
        except Exception:
            self.param_groups.pop()
            raise

    def _make_plan(self, only: Tensor | None = None) -> Plan:
        return MatrixPlan(
            self.programs,
            _Rest.rule,
            self._rest_program,
            self.param_groups,
            self.state,
            _Rest.options,
            self._ranks,
            only,
        )

    def _read_scaled(self) -> None:
        self.programs = MatrixPrograms(self.matrix_rule, scaled=True)
        self.program = self.programs.programs[0]
        self._rest_program = step_program(_Rest.rule, scaled=True)
        self._plan = None

    def explain(self) -> str:
        """Say which weights the rule steps and which AdamW, why, and what computes it."""
        routes: dict[str, list[str]] = {}
        for number, group in enumerate(self.param_groups):
            names = group.get("param_names")
            for k, weight in enumerate(group["params"]):
                why = obstacle(self.matrix_rule, group, weight)
                route = f"AdamW ({why})" if why else self.matrix_rule.name
                shown = tuple(weight.shape) if names is None else names[k]
                routes.setdefault(f"group {number}, {route}", []).append(str(shown))
        lines = [f"{route}: {len(of)} tensors: {_few(of)}" for route, of in routes.items()]
        return "\n".join([*lines, description.explain(self, self.program, self._plan)])


def _few(names: list[str], most: int = 8) -> str:
    more = f" and {len(names) - most} more" if len(names) > most else ""
    return ", ".join(names[:most]) + more

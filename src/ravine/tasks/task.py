"""Task: what is being trained."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal, TypeAlias

from torch import Tensor, nn

from ravine.errors import TaskError, unknown_name
from ravine.tasks.checks import Data, check_data, check_same_kind, rows_of
from ravine.tasks.loss_names import loss_name
from ravine.tasks.metrics import METRICS, Metric, metric_name
from ravine.tasks.settings import check_settings

Loss: TypeAlias = str | Callable[[Tensor, Tensor], Tensor]
Conversion: TypeAlias = Callable[[Tensor], Tensor]
OptimizerFunction: TypeAlias = Callable[[Any], Any]
SchedulerFunction: TypeAlias = Callable[[Any], Any]


@dataclass(frozen=True, kw_only=True, eq=False, repr=False)
class Task:
    """What is being trained and how: model, loss, data, settings. Checked when it is made.

    Inputs and targets are trained on as they are: of any dtype and shape, not scaled.

    Args:
        model: the module to be trained; it is called with a batch of X.
        loss: a callable ``loss(output, target)`` that returns a 0-dim tensor, or an expression
            such as ``"huber(delta=2)"``. ``ravine.losses`` take class logits in the *last*
            dimension: output (..., C) with targets (...). Differs from
            ``torch.nn.functional.cross_entropy``, which wants the classes in dimension 1.
        train: ``(X, y)``, tensors or NumPy arrays with rows in the first dimension; memory-mapped
            arrays are read row by row. Or a source of `ravine.data` (Parquet and Arrow files,
            texts), a torch Dataset of such pairs, map-style or iterable, or a DataLoader.
        valid: data of the same form that is never trained on, or None.
        test: data that choices are never made on, or None.
        metrics: names of ``METRICS`` or callables ``metric(output, target)`` that give one value
            a prediction; the mean over the data is the metric.
        name: how the task is called in records and messages.
        optimizer: an expression, or a function of the parameters that returns a torch optimizer.
            This and the next five are taken where the caller of ``ravine.train`` says nothing.
        scheduler: a function of the optimizer that returns anything with a ``step()``, such as
            ``lambda optimizer: torch.optim.lr_scheduler.StepLR(optimizer, 10)``. A ``step`` that
            must be given a value, as that of ReduceLROnPlateau, gets the validation loss of the
            epoch (without validation data the training loss), or the batch's loss.
        scheduler_interval: whether the scheduler is stepped after an ``"epoch"`` or a ``"step"``.
        epochs: passes over the training data, >= 1.
        batch_size: rows a step, >= 1, or ``"all"``. A DataLoader has its own.
        regularize: a list of expressions such as ``"dropout(0.1)"``.
        targets_for: by the name of a loss, how y has to be converted for it; see ``with_loss``.
            A loss that is not in the table takes y as it is. Needs ``(X, y)`` data.
        baseline: the loss of the best constant prediction on the training data, if known.
        facts: further facts for the record, such as a hash of the data.

    Raises:
        TaskError: a part is of the wrong type, empty, not finite or does not fit another part.
        DataError: an array holds what no tensor can hold.
        UnknownNameError: a metric is unknown.

    >>> import torch
    >>> X = torch.linspace(-1, 1, 8)[:, None]
    >>> Task(name="line", model=nn.Linear(1, 1), loss="mse", train=(X, 2 * X + 1))
    Task('line', loss='mse')  # Linear, 2 weights, train 8, valid none, test none
    """

    model: nn.Module
    loss: Loss
    train: Data
    valid: Data | None = None
    test: Data | None = None
    metrics: Sequence[str | Metric] = ()
    name: str = "task"
    optimizer: str | OptimizerFunction | None = None
    scheduler: SchedulerFunction | None = None
    scheduler_interval: Literal["epoch", "step"] = "epoch"
    epochs: int | None = None
    batch_size: int | Literal["all"] | None = None
    regularize: Sequence[Any] = ()
    targets_for: Mapping[str, Conversion] = field(default_factory=dict)
    baseline: float | None = None
    facts: Mapping[str, Any] = field(default_factory=dict)

    def __post_init__(self) -> None:
        if not isinstance(self.name, str) or not self.name:
            raise TaskError(
                "the name of the task is not a word",
                got=repr(self.name),
                expected="a string that is not empty",
                do='write name="my task" or leave it out',
            )
        self._check_model()
        self._check_loss()
        self._set("train", check_data(self.name, "train", self.train))
        for part in ("valid", "test"):
            data = getattr(self, part)
            if data is not None:
                self._set(part, check_data(self.name, part, data))
                check_same_kind(self.name, part, getattr(self, part), self.train)
        self._check_metrics()
        self._set("metrics", tuple(self.metrics))
        check_settings(self)
        self._set("regularize", tuple(self.regularize))
        self._check_conversions()

    def metric_functions(self) -> dict[str, Metric]:
        """Return each metric's name and function, in the order in which they were given.

        >>> import torch
        >>> X, y = torch.zeros(4, 2), torch.zeros(4, dtype=torch.int64)
        >>> task = Task(model=nn.Linear(2, 3), loss="mse", train=(X, y), metrics=["accuracy"])
        >>> list(task.metric_functions())
        ['accuracy']
        """
        return {
            metric_name(metric): METRICS[metric] if isinstance(metric, str) else metric
            for metric in self.metrics
        }

    def with_loss(self, loss: Loss) -> Task:
        """Return this task with another loss, its targets converted where the task says how.

        Losses disagree on how a target is written: ``binary_cross_entropy`` wants {0, 1},
        ``hinge`` wants {-1, +1}. Which one applies is never guessed from the values of a batch.
        The task's ``targets_for`` table names the conversion by the loss:
        ``{"hinge": lambda y: 2 * y - 1}`` on top of targets in {0, 1}. The name of an expression
        is its first word, that of a loss of ``ravine.losses`` is its function's name; any other
        callable has no name here and takes the targets as the task holds them.

        Conversions start from the targets of this task, so ``with_loss`` gives a task without
        table: choose a loss once. The model is shared, the baseline is dropped.

        Raises:
            TaskError: the loss is neither a callable nor an expression.

        >>> import torch
        >>> X, y = torch.zeros(2, 1), torch.tensor([[0.0], [1.0]])
        >>> task = Task(model=nn.Linear(1, 1), loss="binary_cross_entropy", train=(X, y),
        ...             targets_for={"hinge": lambda y: 2 * y - 1})
        >>> task.with_loss("hinge()").train[1].flatten()
        tensor([-1.,  1.])
        """
        changes: dict[str, Any] = {"loss": loss, "targets_for": {}, "baseline": None}
        convert = self.targets_for.get(loss_name(loss) or "")
        if convert is not None:
            for part in ("train", "valid", "test"):
                data = getattr(self, part)
                if data is not None:
                    changes[part] = (data[0], convert(data[1]))
        return dataclasses.replace(self, **changes)

    def __repr__(self) -> str:
        weights = sum(parameter.numel() for parameter in self.model.parameters())
        parts = []
        for part in ("train", "valid", "test"):
            data = getattr(self, part)
            rows = "none" if data is None else rows_of(data)
            parts.append(f"{part} {'of unknown length' if rows is None else rows}")
        loss = self.loss if isinstance(self.loss, str) else metric_name(self.loss)
        facts = ", ".join([type(self.model).__name__, f"{weights} weights", *parts])
        return f"Task({self.name!r}, loss={loss!r})  # {facts}"

    def _set(self, name: str, value: object) -> None:
        object.__setattr__(self, name, value)  # the only writes: a task does not change later

    def _check_model(self) -> None:
        if isinstance(self.model, nn.Module):
            return
        made = isinstance(self.model, type) and issubclass(self.model, nn.Module)
        raise TaskError(
            "the model is not a torch module",
            where=f"model of task {self.name!r}",
            got=f"the class {self.model.__name__}" if made else type(self.model).__name__,
            expected="an instance of torch.nn.Module",
            do="call the class to make a model" if made else "wrap it in a torch.nn.Module",
        )

    def _check_loss(self) -> None:
        made = isinstance(self.loss, type)
        written = isinstance(self.loss, str) and bool(self.loss.strip())
        if written or (callable(self.loss) and not made):
            return
        raise TaskError(
            "the loss is neither a callable nor an expression",
            where=f"loss of task {self.name!r}",
            got=f"the class {metric_name(self.loss)}" if made else repr(self.loss),
            expected='loss(output, target) -> 0-dim tensor, or text such as "huber(delta=2)"',
            do="call the class to make a loss" if made else 'write loss="mse", for instance',
        )

    def _check_metrics(self) -> None:
        where = f"metrics of task {self.name!r}"
        if isinstance(self.metrics, str) or not isinstance(self.metrics, Sequence):
            raise TaskError(
                "metrics is not a list",
                where=where,
                got=repr(self.metrics),
                expected="a list of names and functions",
                do='write metrics=["accuracy"]',
            )
        names = set()
        for metric in self.metrics:
            if isinstance(metric, str):
                if metric not in METRICS:
                    raise unknown_name("metric", metric, METRICS, where=where)
            elif not callable(metric):
                raise TaskError(
                    "a metric is neither a name nor a function",
                    where=where,
                    got=repr(metric),
                    expected="metric(output, target) -> one value a prediction",
                    do="name one of " + ", ".join(METRICS),
                )
            name = metric_name(metric)
            if name in names:
                raise TaskError(
                    f"two metrics are called {name!r}",
                    where=where,
                    do="give one of the functions another name: records are kept by name",
                )
            names.add(name)

    def _check_conversions(self) -> None:
        if not self.targets_for:
            return
        parts = [data for data in (self.train, self.valid, self.test) if data is not None]
        if not all(isinstance(data, tuple) for data in parts):
            raise TaskError(
                "targets_for needs targets that can be converted at once",
                where=f"task {self.name!r}",
                got=", ".join(type(data).__name__ for data in parts),
                expected="(X, y) for train, valid and test",
                do="convert the targets in the Dataset and leave out targets_for",
            )

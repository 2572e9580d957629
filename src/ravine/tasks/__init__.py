"""What is trained: `Task`, and the built-in tasks on real data inside installed packages."""

from __future__ import annotations

from ravine.tasks.loading import TASKS, load_task
from ravine.tasks.metrics import METRICS
from ravine.tasks.task import Task

__all__ = ["METRICS", "TASKS", "Task", "load_task"]

"""A configuration: what each argument of training is, and who said so."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from ravine.errors import ConfigError, unknown_option
from ravine.tasks import load_task
from ravine.training.choices import OPTIMIZER
from ravine.training.config.expressions import check_expression, literal, name_of, with_option
from ravine.training.config.file import read_file
from ravine.training.config.options import Option, options_of
from ravine.training.config.toml import printable
from ravine.training.resume import saved_config
from ravine.training.train import train

__all__ = ["Configuration", "Setting", "configure", "read_config"]

COMMAND_LINE = "command line"


@dataclass(frozen=True)
class Setting:
    """A value, and where it comes from in words."""

    value: Any
    source: str


@dataclass
class Configuration:
    """What is given to training, by the names of its arguments; what is not is left to training.

    Attributes:
        settings: the values with their sources.
        options: what training can be told.
    """

    settings: dict[str, Setting] = field(default_factory=dict)
    options: dict[str, Option] = field(default_factory=lambda: options_of(train))

    def arguments(self) -> dict[str, Any]:
        """Return the keyword arguments for `ravine.train`."""
        return {name: setting.value for name, setting in self.settings.items()}

    def value(self, name: str) -> Any:
        """Return what is given for an argument, None if nothing is."""
        return self.settings[name].value if name in self.settings else None

    def assign(self, assignment: str) -> None:
        """Take one ``KEY=VALUE`` of the command line: ``epochs=3``, ``optimizer.lr=3e-4``.

        Raises:
            ConfigError, UnknownOptionError: there is no such key, or the value does not fit it.
        """
        key, equals, text = assignment.partition("=")
        where = printable(f"--set {assignment}")
        name, *path = key.strip().split(".")
        if not equals or not all([name, *path]):
            raise ConfigError(
                "this sets nothing",
                where=where,
                expected="KEY=VALUE, such as epochs=3 or optimizer.lr=3e-4",
            )
        if name not in self.options:
            raise unknown_option("training", name, self.options, where=where)
        option = self.options[name]
        if not path:
            value = literal(text)
            value = value if option.takes(value) else text
            self.settings[name] = Setting(option.check(value, where), f"--set {name}")
            for one in value if isinstance(value, list) else [value]:
                if option.choice:
                    check_expression(name, str(one), where)
            return
        if not option.choice:
            raise ConfigError(
                f"{name} has no options of its own", where=where, do=f"set {name}=..."
            )
        base = self.settings.get(name) or self._default(name, where)
        value = _changed(name, base.value, path, text, where)
        self.settings[name] = Setting(value, f"{base.source}, --set {key.strip()}")

    def _default(self, name: str, where: str) -> Setting:
        """Return what holds where nobody says anything: of the run that goes on, else of the task."""
        resumed = self.value("resume")
        if resumed is not None:
            saved = saved_config(Path(resumed))
            return Setting(saved.get(name), "the run that goes on")
        source = self.value("task")
        if source is None:
            raise ConfigError(
                f"{name} is not given, and neither is a task that could have one",
                where=where,
                do=f"name a task, or give {name} whole",
            )
        task = load_task(source, self.value("seed") or 0)
        found: Any = getattr(task, name, None)
        if name == "optimizer":
            found = found or OPTIMIZER
        return Setting(found, f"task {task.name}")


def configure(
    file: Path | None, given: Mapping[str, Any], assignments: Sequence[str] = ()
) -> Configuration:
    """Join what a file says with what the command line says, which wins.

    Args:
        file: a configuration in TOML, or None.
        given: arguments of training by name, from the command line.
        assignments: ``KEY=VALUE``, applied last and in their order.

    Raises:
        ConfigError: with the place; see `read_file` and `Configuration.assign`.
    """
    made = Configuration()
    if file is not None:
        name = printable(str(file))
        values = read_file(file, made.options)
        made.settings = {key: Setting(value, name) for key, value in values.items()}
    made.settings |= {key: Setting(value, COMMAND_LINE) for key, value in given.items()}
    keys = [assignment.partition("=")[0].strip() for assignment in assignments]
    for key in keys:
        if keys.count(key) > 1 or key in given:
            raise ConfigError(
                f"{printable(key)} is set twice on the command line",
                got=", ".join(printable(a) for a in assignments if a.startswith(key)),
                do="leave one out",
            )
    for assignment in assignments:
        made.assign(assignment)
    return made


def read_config(path: str | Path, *assignments: str) -> dict[str, Any]:
    """Read a file of hyperparameters as arguments for `ravine.train`.

    The keys are the names of train's arguments. A choice is an expression
    (``optimizer = "adam(lr=1e-3)"``) or a table (``[optimizer]`` with ``name = "adam"``). No code of
    the file is run, and no path in it leads out of its folder; a ``task`` that is a Python file is
    taken only from the file's own folder, and runs as any task does.

    Args:
        path: a TOML file, or the ``config.json`` of a run directory.
        assignments: what is changed, as ``"optimizer.lr=3e-4"``.

    Returns:
        Keyword arguments: ``ravine.train(**ravine.read_config("run.toml"))``.

    Raises:
        ConfigError: the file cannot be read, or a value cannot be used.
        UnknownOptionError, UnknownNameError: a key or a name is not known; the nearest is named.

    Example:
        >>> import tempfile
        >>> folder = tempfile.TemporaryDirectory()
        >>> file = Path(folder.name) / "run.toml"
        >>> _ = file.write_text('task = "wine"\\nepochs = 5\\noptimizer = "sgd(lr=0.1)"')
        >>> read_config(file, "optimizer.momentum=0.9")
        {'task': 'wine', 'epochs': 5, 'optimizer': 'sgd(lr=0.1, momentum=0.9)'}
        >>> folder.cleanup()

    Differs from Hydra and LightningCLI, where a file names any class, which is then imported and called.
    """
    return configure(Path(path), {}, assignments).arguments()


def _changed(name: str, base: Any, path: list[str], text: str, where: str) -> Any:
    """Return a choice with one option set; of several regularisers the first part names one."""
    if isinstance(base, str):
        return with_option(name, base, path, text, where)
    if not isinstance(base, list | tuple) or not base or not all(isinstance(b, str) for b in base):
        raise ConfigError(
            f"{name} is no expression in which an option could be set",
            where=where,
            got="nothing is given" if not base else repr(base),
            do=f"give {name} whole",
        )
    which, *rest = path
    names = [name_of(name, one, where) for one in base]
    if which not in names:
        raise unknown_option(name, which, names, where=where)
    if not rest:
        raise ConfigError(
            f"this sets none of the options of {which}",
            where=where,
            expected=f"{name}.{which}.OPTION=VALUE",
        )
    changed = list(base)
    place = names.index(which)
    changed[place] = with_option(name, base[place], rest, text, where)
    return changed

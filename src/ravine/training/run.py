"""A run whose every choice is settled: it trains, and leaves a record however it ends."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from ravine.errors import Interrupted, NonFiniteError, RavineError
from ravine.training.best import Best
from ravine.training.checkpoints import Places
from ravine.training.choices import Choices
from ravine.training.devices import Team
from ravine.training.environment import environment
from ravine.training.events import EpochDone, Event, Listener, RunEnded
from ravine.training.hooks import Hooks
from ravine.training.keeper import Interval, Keeper
from ravine.training.loop import Loop
from ravine.training.preparing import prepared
from ravine.training.record import Record
from ravine.training.recovery import Skipper, check_policy
from ravine.training.recovery.recovery import Recovery
from ravine.training.reporter import Reporter
from ravine.training.resume import unchanged, where_it_goes_on
from ravine.training.run_directory import BEST, CHECKPOINTS, POINTS, RunDirectory
from ravine.training.same_data import fingerprints
from ravine.training.scheduling import check_same_lr
from ravine.training.settling import settle
from ravine.training.signals import Signals
from ravine.training.state import check_form, load_state
from ravine.training.telling import facts_of, noted, started
from ravine.training.watching import Watching


@dataclass
class Run:
    """What a run is made of; `execute` trains.

    Attributes:
        directory: where this process writes the run; None for no place, or for another process.
        path: that place, in all processes; None for no place.
        watch: whether some of the steps are looked at; the first process does.
    """

    choices: Choices
    directory: RunDirectory | None
    path: Path | None
    listeners: Sequence[Listener]
    every: Interval
    keep: int = 2
    resumed: bool = False
    new_lr: bool = False
    hooks: Hooks = field(default_factory=Hooks)
    team: Team = field(default_factory=Team)
    watch: bool = True

    def __post_init__(self) -> None:
        self.signals = Signals(self.team.agreement())

    def execute(self) -> Record:
        """Train, and leave the record in whatever way the run ends.

        An error that ends the run has the record as its attribute ``record``.
        """
        try:
            loop, notes = self._prepared()
            record = Record(
                name=self.choices.task.name,
                model=loop.model,
                config=self.choices.config,
                environment=environment(),
                run_dir=None if self.directory is None else self.directory.path,
            )
            data = {} if self.directory is None else fingerprints(self.choices.task)
            keeper = self._keeper(loop, record, notes, data)
            recovery = self._recovery(loop, record, keeper)
            if self.directory is not None:
                self.directory.start(record.config, record.environment, data, record.history)
        except BaseException:
            if self.directory is not None:
                self.directory.close() if self.resumed else self.directory.abandon()
            raise
        start = time.perf_counter()
        try:
            # Watched while files are written as well: torchrun sends SIGTERM when one process ends.
            with self.signals.watched():
                try:
                    self._emit(started(self.choices, loop, notes, record.run_dir))
                    with self.team.guarded():
                        self._epochs(loop, record, keeper, recovery)
                except (Exception, KeyboardInterrupt) as error:
                    self._broken_off(error, loop, record, keeper, time.perf_counter() - start)
                    raise
            try:
                self._finish(loop, record, time.perf_counter() - start)
            except Exception as error:
                error.record = record  # type: ignore[attr-defined]
                raise
        finally:
            if self.directory is not None:
                self.directory.close()
        return record

    def _keeper(
        self, loop: Loop, record: Record, notes: list[str], data: Mapping[str, Any]
    ) -> Keeper:
        """Return what writes the checkpoints, the loop put where the newest one was written."""
        directory, team = self.directory, self.team
        places = Places(self.path, team, divided=loop.devices.layout.divided)
        store = places.asked(CHECKPOINTS, self.keep)
        best = Best(places.store(BEST, keep=1), loop.stopper, kept=self.path is not None)
        position = None
        if self.resumed:
            notes += team.led(lambda: unchanged(directory, record.environment, data))
            position, state, passed = store.newest()
            notes += passed
            if position is None:
                notes.append("resumed from the start: there is no checkpoint yet")
            else:
                check_form(state)
                load_state(loop, state["loop"], keep_lr=self.new_lr)
                record.history.extend(state["history"])
                best.value = state["best"]
                notes.append(where_it_goes_on(loop))
        keeper = Keeper(
            loop,
            places,
            store,
            self.every,
            record.history,
            self.signals,
            best,
            agreed=team.agreement(),
        )
        if position is None:
            keeper.begin()
        return keeper

    def _recovery(self, loop: Loop, record: Record, keeper: Keeper) -> Recovery:
        """Return what is asked when something is not finite."""
        policy = check_policy(self.choices.config["nonfinite"])
        directory = self.directory
        recovery = Recovery(
            loop=loop,
            keeper=keeper,
            history=record.history,
            policy=policy,
            points=keeper.places.asked(POINTS, keep=2, held=2),
            tell=self._emit,
            rewrite=_nothing if directory is None else (lambda: directory.rewrite(record.history)),
        )
        loop.skipper = Skipper(self._emit) if policy == "skip" else None
        loop.after_step = recovery.after_step
        return recovery

    def _prepared(self) -> tuple[Loop, list[str]]:
        """Return the loop, and what the user should know before it begins."""
        reporter = Reporter(self._emit if self.listeners else None, self.team.agreement())
        loop, notes = prepared(self.choices, self.team, self.hooks, self.signals.check, reporter)
        if loop.scheduler is not None:
            check_same_lr(self.new_lr)
            if self.directory is not None:  # told before the run, not after hours
                loop.scheduler.state_dict()
        return loop, notes

    def _epochs(self, loop: Loop, record: Record, keeper: Keeper, recovery: Recovery) -> None:
        stopped = loop.stopper is not None and loop.stopper.stopped
        recovery.begin(new_lr=self.new_lr)
        watching = Watching(self._emit, record.run_dir, on=self.watch and self.team.leads)
        watching.begin(loop, record.findings)
        while loop.epoch < self.choices.epochs and not stopped:
            try:
                row, stopped = loop.run_epoch()
            except NonFiniteError as error:
                with watching.paused(error):
                    recovery.recover(error)
                continue
            record.history.append(row)
            try:
                stopped |= self.hooks.after_epoch(row, loop)
            finally:
                if self.directory is not None:
                    self.directory.add_row(row)
            self._emit(EpochDone(row))
            try:
                keeper.look(row)
                recovery.after_epoch()
                keeper.after_epoch()
            except NonFiniteError as error:
                with watching.paused(error):
                    recovery.recover(error)
            self.signals.check()
        if stopped:
            record.status, record.message = "stopped early", self.hooks.reason or ""
        keeper.end(whole=True)
        recovery.end()

    def _broken_off(
        self,
        error: BaseException,
        loop: Loop,
        record: Record,
        keeper: Keeper,
        seconds: float,
    ) -> None:
        """Leave what was reached; nothing that goes wrong here hides the error."""
        error.record = record  # type: ignore[attr-defined]
        what = error.what if isinstance(error, RavineError) else str(error)
        if isinstance(error, NonFiniteError):
            record.status = "diverged"
            record.message = f"{error}\n  weights:  those after step {loop.step}"
        elif isinstance(error, KeyboardInterrupt):
            record.status = "interrupted"
            record.message = f"in epoch {loop.epoch + 1}, after step {loop.step}"
            if isinstance(error, Interrupted):
                record.message += f", by {error.signal}"
        else:
            record.status, record.message = "failed", f"{type(error).__name__}: {what}"
            if loop.step == 0:  # the choices do not fit each other: there is no run to be kept
                if self.directory is not None and not self.resumed:
                    self.directory.abandon()
                return
        together = isinstance(error, (NonFiniteError, Interrupted))  # in all processes alike
        with noted(error):
            keeper.end(whole=together)
        with noted(error):
            if together or not loop.devices.layout.divided:
                self._finish(loop, record, seconds)
            else:  # the others do not help to put the weights together
                self._emit(RunEnded(record))

    def _finish(self, loop: Loop, record: Record, seconds: float) -> None:
        """Settle model and numbers, write the files, tell the listeners."""
        try:
            settle(self.choices, loop, record)
            record.facts = facts_of(self.choices, loop, seconds)
            if self.directory is not None:
                self.directory.finish(record)
        finally:
            self._emit(RunEnded(record))
        self.hooks.at_end(record)

    def _emit(self, event: Event) -> None:
        for listener in self.listeners:
            listener(event)


def _nothing() -> None:
    """Do nothing, where another process writes."""

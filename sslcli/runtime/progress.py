"""Progress of long operations, and heartbeats of a run.

Code that takes a while reports it with `task` or `track`. One background thread inspects the open tasks once a second: tasks longer
than ten seconds are shown, on a terminal as one line that is overwritten, otherwise as a line every 30 s. The same thread calls the
heartbeats (`start_heartbeat`), so that neither depends on the main thread.
"""

from __future__ import annotations

import contextlib
import math
import os
import threading
import time
from collections.abc import Callable, Iterable, Iterator, Sized
from dataclasses import dataclass, field
from typing import Any, TypeVar

from sslcli import console

T = TypeVar("T")

TICK = 1.0  # seconds between inspections of the open tasks
SHOW_AFTER, SHOW_EVERY = 10.0, 30.0  # seconds until a task is shown; between lines without a terminal
HEARTBEAT = 20.0  # seconds between heartbeats


@dataclass(eq=False)
class Task:
    """An open task: `done` of `total` (None: unknown) so far."""

    label: str
    total: float | None = None
    done: float = 0
    counted: bool = False  # created by `count`: ends when another task begins
    start: float = field(default_factory=time.monotonic)

    def advance(self, by: float = 1) -> None:
        self.done += by


_tasks: list[Task] = []  # open tasks, the outermost first; changed by the main thread only
_heartbeats: dict[object, tuple[Callable[[], object], list[float]]] = {}
_lock = threading.Lock()
_thread: threading.Thread | None = None
_shown_at = 0.0  # when the outermost task was last shown
_displays = 0  # open training displays on the terminal, which replace the line


# ------------------------------------------------------------------------------------------------------------------- tasks


@contextlib.contextmanager
def task(label: str, total: float | None = None) -> Iterator[Task]:
    """Open a task for the block; inside another task it is a part of that."""
    end_counted()
    opened = Task(label, total)
    _tasks.append(opened)
    _start()
    try:
        yield opened
    finally:
        if opened in _tasks:
            del _tasks[_tasks.index(opened) :]
        if not _tasks:
            console.overwrite("")


def track(
    items: Iterable[T], label: str, total: float | None = None, size: Callable[[T], float] = lambda _: 1
) -> Iterator[T]:
    """Iterate over items in a task that counts them, each weighted by `size`."""
    if total is None and isinstance(items, Sized):
        total = len(items)
    with task(label, total) as opened:
        for item in items:
            yield item
            opened.advance(size(item))


def count(label: str, done: int, total: int) -> None:
    """Report `done` of `total` in a part of the open task, for code that cannot use a context manager."""
    if not (_tasks and _tasks[-1].counted and _tasks[-1].label == label):
        end_counted()
        _tasks.append(Task(label, total, counted=True))
        _start()
    _tasks[-1].done, _tasks[-1].total = done, total
    if done >= total:
        end_counted()


def end_counted() -> None:
    if _tasks and _tasks[-1].counted:
        _tasks.pop()


def fraction(tasks: list[Task]) -> float:
    """Completed fraction of the first task, including its current part. 0 where its total is unknown."""
    if not tasks or not tasks[0].total:
        return fraction(tasks[1:]) if tasks and tasks[0].total is None else 0.0
    return min(1.0, (tasks[0].done + fraction(tasks[1:])) / tasks[0].total)


def describe(tasks: list[Task], now: float) -> str:
    """`eval: probe: draws of labels 2/5, reading 512/1,024, 1m10s so far, 40s left`."""
    parts = [t.label if t.total is None else f"{t.label} {t.done:,.0f}/{t.total:,.0f}" for t in tasks]
    text = f"{': '.join(parts)}, {console.human_time(now - tasks[0].start)} so far"
    known = next((i for i, t in enumerate(tasks) if t.total is not None), None)
    if known is not None and (done := fraction(tasks[known:])) > 0:
        took = now - tasks[known].start
        text += f", {console.human_time(took * (1 - done) / done)} left"
    return text


# ------------------------------------------------------------------------------------------------------------ in background


def start_heartbeat(call: Callable[[], object]) -> Callable[[], None]:
    """Call `call` every `HEARTBEAT` seconds in the background. Returns a function that ends it."""
    key = object()
    _heartbeats[key] = call, [time.monotonic()]
    _start()
    return lambda: _heartbeats.pop(key, None) and None


def _start() -> None:
    global _thread
    with _lock:
        if _thread is None:
            _thread = threading.Thread(target=_watch, name="progress", daemon=True)
            _thread.start()


def _watch() -> None:
    global _thread
    while True:
        time.sleep(TICK)
        with _lock:
            if not _tasks and not _heartbeats:
                _thread = None
                return
        with contextlib.suppress(Exception):  # an error in the display must not end the work
            update(time.monotonic())


def update(now: float) -> None:
    """Show the open tasks if due, and call the heartbeats that are due."""
    global _shown_at
    for call, last in list(_heartbeats.values()):
        if now - last[0] >= HEARTBEAT:
            last[0] = now
            call()
    tasks = list(_tasks)
    if not tasks or _displays or now - tasks[0].start < SHOW_AFTER:
        return
    if console.live():
        console.overwrite(describe(tasks, now))
    elif now - max(_shown_at, tasks[0].start) >= (SHOW_EVERY if _shown_at > tasks[0].start else SHOW_AFTER):
        _shown_at = now
        console.say(describe(tasks, now))


def _reset_after_fork() -> None:
    """A forked child has neither the thread nor the tasks."""
    global _thread, _lock
    _thread, _lock = None, threading.Lock()
    _tasks.clear()
    _heartbeats.clear()


os.register_at_fork(after_in_child=_reset_after_fork)


# ----------------------------------------------------------------------------------------------------------------- training


class TrainingDisplay:
    """Progress of training: a live bar on a terminal; otherwise one plain line per epoch, or every 30 s for short epochs."""

    def __init__(self, total: int, epochs: float, start: int = 0):
        global _displays
        self.total, self.epochs, self.start = total, epochs, start
        self.began = self.shown_at = time.monotonic()
        self.live: Any = None
        self.task: Any = None
        self.step = start
        self._stack = contextlib.ExitStack()
        self._open_task = self._stack.enter_context(task("training, step", total))
        self._open_task.done = start
        if console.live() or console.in_notebook():
            _displays += 1
            self._open()

    def _open(self) -> None:
        from rich.console import Console
        from rich.progress import BarColumn, TextColumn
        from rich.progress import Progress as Bar
        from rich.table import Column

        screen = (
            Console(force_jupyter=True) if console.in_notebook() else Console(file=console.stderr(), highlight=False)
        )
        self.live = Bar(
            TextColumn("{task.description}", table_column=Column(no_wrap=True)),
            BarColumn(bar_width=24 if screen.width >= 100 else 8),
            TextColumn("{task.percentage:>3.0f}%"),
            TextColumn(
                "{task.fields[numbers]}", markup=False, table_column=Column(no_wrap=True, overflow="crop", ratio=1)
            ),
            console=screen,
            transient=True,
            refresh_per_second=4,
            expand=True,
        )
        console.overwrite("")
        self.live.start()
        self.task = self.live.add_task("epoch 0", total=self.total, completed=self.start, numbers="")

    def update(self, step: int, epoch: float, metrics: dict[str, float], end_of_epoch: bool = False) -> None:
        """`metrics`: loss, spread, samples_per_s, data_wait (a fraction), and others."""
        global _shown_at
        self.step = step
        self._open_task.done, self._open_task.total = step, self.total
        now = time.monotonic()
        if self.live is not None:
            text = self.describe(metrics, now, brief=True)
            head = f"epoch {min(int(epoch) + 1, math.ceil(self.epochs))}/{math.ceil(self.epochs)}"
            self.live.update(self.task, completed=step, total=self.total, description=head, numbers=text)
        elif metrics and (
            now - self.shown_at >= SHOW_EVERY
            or (end_of_epoch and now - self.shown_at >= SHOW_EVERY / 3)
            or step >= self.total
        ):
            self.shown_at = _shown_at = now
            console.say(f"epoch {epoch:.4g}/{self.epochs:.4g}  {self.describe(metrics, now)}")

    def describe(self, metrics: dict[str, float], now: float, brief: bool = False) -> str:
        parts = []
        for name, value in metrics.items():
            if name == "samples_per_s":
                parts.append(f"{value:,.0f}/s" if brief else f"{value:,.0f} samples/s")
            elif name == "data_wait":
                parts.append(f"wait {value:.0%}" if brief else f"data wait {value:.0%}")
            else:
                parts.append(f"{name} {value:.4g}")
        done = self.step - self.start
        if done > 0:
            parts.append(f"eta {console.human_time((now - self.began) / done * (self.total - self.step))}")
        return "  ".join(parts)

    def note(self, text: str) -> None:
        """Print a permanent line above the bar."""
        if self.live is not None:
            self.live.console.print(console.printable(text), soft_wrap=True, highlight=False, markup=False)
        else:
            console.say(text)

    def close(self) -> None:
        global _displays
        if self.live is not None:
            _displays -= 1
            self.live.stop()
            self.live = None
        self._stack.close()

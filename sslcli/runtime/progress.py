"""Signs of life: what is being done, how far it is and how long it will take, and the heartbeat of a run.

Code that takes a while says so with `task` or `track`. One background thread looks at the open tasks once a second: what lasts
longer than ten seconds is shown, on a terminal as one line that is overwritten, off it as a line each 30 s. The same thread calls
the heartbeats (`beat`), so that neither depends on what the main thread is busy with.
"""

from __future__ import annotations

import contextlib
import math
import os
import threading
import time
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field
from typing import Any, TypeVar

from sslcli import console

T = TypeVar("T")

TICK = 1.0  # seconds between two looks at the open tasks
FIRST, EVERY = 10.0, 30.0  # seconds until work is shown; between two lines off a terminal
BEAT = 20.0  # seconds between two heartbeats


@dataclass(eq=False)
class Task:
    """Something that is being done: `done` of `total` (None: not known) so far."""

    label: str
    total: float | None = None
    done: float = 0
    counted: bool = False  # made by `count`: it ends when something else begins
    began: float = field(default_factory=time.monotonic)

    def advance(self, by: float = 1) -> None:
        self.done += by


_tasks: list[Task] = []  # open ones, the outermost first; only the main thread changes it
_beats: dict[object, tuple[Callable[[], object], list[float]]] = {}
_guard = threading.Lock()
_thread: threading.Thread | None = None
_spoke = 0.0  # when something was last shown of the outermost task
_displays = 0  # bars of the training display on the terminal, which show more


# ------------------------------------------------------------------------------------------------------------------- tasks


@contextlib.contextmanager
def task(label: str, total: float | None = None) -> Iterator[Task]:
    """While inside, this is being done; inside another task it is a part of it."""
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
    """The items, counted as they are done with. `size` of an item, where it counts for more than one."""
    if total is None and hasattr(items, "__len__"):
        total = len(items)  # type: ignore[arg-type]
    with task(label, total) as opened:
        for item in items:
            yield item
            opened.advance(size(item))


def count(label: str, done: int, total: int) -> None:
    """The same for code that only calls this now and then: a part of the task that is open."""
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
    """How much of the first task is done, with what is done of the part that it is at. 0 where its total is not known."""
    if not tasks or not tasks[0].total:
        return fraction(tasks[1:]) if tasks and tasks[0].total is None else 0.0
    return min(1.0, (tasks[0].done + fraction(tasks[1:])) / tasks[0].total)


def words(tasks: list[Task], now: float) -> str:
    """`eval: probe: draws of labels 2/5, reading 512/1,024, 1m10s so far, 40s left`."""
    parts = [t.label if t.total is None else f"{t.label} {t.done:,.0f}/{t.total:,.0f}" for t in tasks]
    said = f"{': '.join(parts)}, {console.human_time(now - tasks[0].began)} so far"
    known = next((i for i, t in enumerate(tasks) if t.total is not None), None)
    if known is not None and (done := fraction(tasks[known:])) > 0:
        took = now - tasks[known].began
        said += f", {console.human_time(took * (1 - done) / done)} left"
    return said


# ------------------------------------------------------------------------------------------------------------ in background


def beat(call: Callable[[], object]) -> Callable[[], None]:
    """Calls `call` every `BEAT` seconds, in the background, until the function that is returned is called."""
    key = object()
    _beats[key] = call, [time.monotonic()]
    _start()
    return lambda: _beats.pop(key, None) and None


def _start() -> None:
    global _thread
    with _guard:
        if _thread is None:
            _thread = threading.Thread(target=_watch, name="progress", daemon=True)
            _thread.start()


def _watch() -> None:
    global _thread
    while True:
        time.sleep(TICK)
        with _guard:
            if not _tasks and not _beats:
                _thread = None
                return
        with contextlib.suppress(Exception):  # whatever happens to a line, the work goes on
            look(time.monotonic())


def look(now: float) -> None:
    """Shows what has to be shown, and calls the heartbeats that are due."""
    global _spoke
    for call, last in list(_beats.values()):
        if now - last[0] >= BEAT:
            last[0] = now
            call()
    tasks = list(_tasks)
    if not tasks or _displays or now - tasks[0].began < FIRST:
        return
    if console.live():
        console.overwrite(words(tasks, now))
    elif now - max(_spoke, tasks[0].began) >= (EVERY if _spoke > tasks[0].began else FIRST):
        _spoke = now
        console.say(words(tasks, now))


def _forget() -> None:
    """In a forked child there is neither the thread nor what it was to show."""
    global _thread, _guard
    _thread, _guard = None, threading.Lock()
    _tasks.clear()
    _beats.clear()


os.register_at_fork(after_in_child=_forget)


# ----------------------------------------------------------------------------------------------------------------- training


class Training:
    """Training as it goes: a live bar on a terminal; off it one plain line an epoch, or each 30 s when epochs are short."""

    def __init__(self, total: int, epochs: float, start: int = 0):
        global _displays
        self.total, self.epochs, self.start = total, epochs, start
        self.began = self.spoke = time.monotonic()
        self.live: Any = None
        self.task: Any = None
        self.step = start
        self._inside = contextlib.ExitStack()
        self._open_task = self._inside.enter_context(task("training, step", total))
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

    def update(self, step: int, epoch: float, numbers: dict[str, float], end_of_epoch: bool = False) -> None:
        """`numbers`: loss, spread, samples_per_s, data_wait (a share), and anything else worth a glance."""
        global _spoke
        self.step = step
        self._open_task.done, self._open_task.total = step, self.total
        now = time.monotonic()
        if self.live is not None:
            text = self.words(numbers, now, brief=True)
            head = f"epoch {min(int(epoch) + 1, math.ceil(self.epochs))}/{math.ceil(self.epochs)}"
            self.live.update(self.task, completed=step, total=self.total, description=head, numbers=text)
        elif numbers and (
            now - self.spoke >= EVERY or (end_of_epoch and now - self.spoke >= EVERY / 3) or step >= self.total
        ):
            self.spoke = _spoke = now
            console.say(f"epoch {epoch:.4g}/{self.epochs:.4g}  {self.words(numbers, now)}")

    def words(self, numbers: dict[str, float], now: float, brief: bool = False) -> str:
        parts = []
        for name, value in numbers.items():
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
        """A line that stays, above the bar."""
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
        self._inside.close()

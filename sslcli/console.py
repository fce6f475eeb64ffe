"""What people see. stdout is data, stderr is talk; colour never carries meaning alone."""

from __future__ import annotations

import json
import os
import sys
import time
from collections.abc import Iterable
from typing import IO, Any

from sslcli.errors import SslError

# How this process (and the sweep jobs it starts) talks: passed on by the environment.
QUIET, VERBOSE, JSON = "SSLCLI_QUIET", "SSLCLI_VERBOSE", "SSLCLI_JSON"


def flag(name: str) -> bool:
    return os.environ.get(name, "") not in ("", "0")


# -------------------------------------------------------------------------------------------------------------------- data


def out(*lines: object) -> None:
    """Data on stdout. A reader that went away (`| head`) is no error."""
    for line in lines:
        print(printable(str(line)), flush=True)


def out_json(value: Any) -> None:
    print(json.dumps(value, indent=2, default=str), flush=True)


def printable(text: str) -> str:
    """Names from a file system may hold anything: control characters and lone surrogates are shown escaped."""
    if text.isprintable() and text.isascii():
        return text
    clean = "".join(
        c if c.isprintable() or c in "\n\t" else c.encode("unicode_escape", "surrogatepass").decode() for c in text
    )
    encoding = getattr(sys.stdout, "encoding", None) or "utf-8"
    return clean.encode(encoding, "backslashreplace").decode(encoding)


# -------------------------------------------------------------------------------------------------------------------- talk


def _stderr() -> IO[str]:
    return sys.stderr


def say(*parts: object) -> None:
    """One line of talk, unless -q. Control characters in it are shown, not obeyed."""
    _emit(printable(" ".join(str(p) for p in parts)))


def _emit(line: str) -> None:
    """A line whose control characters are ours (colour)."""
    if not flag(QUIET):
        print(line, file=_stderr(), flush=True)


def detail(*parts: object) -> None:
    """One line of talk under -v only."""
    if flag(VERBOSE):
        say(*parts)


def warn(message: str, hint: str | None = None) -> None:
    _emit(f"{_paint('warning:', '33')} {printable(message)}")
    if hint:
        _emit(f"{_paint('hint:', '36')} {printable(hint)}")


def error(e: SslError) -> None:
    """`error: ...`, an empty line, `hint: ...`: shown even under -q."""
    print(f"{_paint('error:', '31;1')} {printable(e.message)}", file=_stderr(), flush=True)
    if e.hint:
        print(f"\n{_paint('hint:', '36')} {printable(e.hint)}", file=_stderr(), flush=True)


def colour() -> bool:
    if os.environ.get("NO_COLOR"):
        return False
    if os.environ.get("FORCE_COLOR"):
        return True
    return _stderr().isatty() and os.environ.get("TERM") != "dumb"


def _paint(text: str, code: str) -> str:
    return f"\x1b[{code}m{text}\x1b[0m" if colour() else text


def rows(pairs: Iterable[tuple[str, str]]) -> None:
    """The start screen: a word and what it stands for, aligned."""
    pairs = list(pairs)
    width = max((len(k) for k, _ in pairs), default=0)
    for key, value in pairs:
        _emit(f"{_paint(key.ljust(width), '36')}  {printable(value)}")


def table(head: list[str], body: list[list[str]], numbers: Iterable[int] = ()) -> str:
    """Plain aligned columns; those in `numbers` to the right."""
    numbers = set(numbers)
    widths = [max(len(str(r[i])) for r in [head, *body]) for i in range(len(head))]

    def line(row: list[str]) -> str:
        cells = [
            str(c).rjust(w) if i in numbers else str(c).ljust(w)
            for i, (c, w) in enumerate(zip(row, widths, strict=True))
        ]
        return "  ".join(cells).rstrip()

    return "\n".join([line(head), *(line(r) for r in body)])


# ---------------------------------------------------------------------------------------------------------------- progress


def human_time(seconds: float) -> str:
    """75 -> `1m15s`; 4000 -> `1h06m`."""
    seconds = max(0, round(seconds))
    if seconds < 60:
        return f"{seconds}s"
    if seconds < 3600:
        return f"{seconds // 60}m{seconds % 60:02d}s"
    if seconds < 86400:
        return f"{seconds // 3600}h{seconds % 3600 // 60:02d}m"
    return f"{seconds // 86400}d{seconds % 86400 // 3600:02d}h"


def human_count(n: float) -> str:
    """1234567 -> `1.23M`."""
    for unit, size in (("G", 1e9), ("M", 1e6), ("k", 1e4)):
        if n >= size:
            return f"{n / (1e3 if unit == 'k' else size):.3g}{unit}"
    return f"{n:,.0f}"


class Progress:
    """Training as it goes: a live bar on a terminal; off it one plain line an epoch, or each 30 s when epochs are short."""

    EVERY = 30.0

    def __init__(self, total: int, epochs: float, start: int = 0):
        self.total, self.epochs, self.start = total, epochs, start
        self.began = self.spoke = time.monotonic()
        self.live: Any = None
        self.task: Any = None
        self.step = start
        if not flag(QUIET) and _stderr().isatty() and os.environ.get("TERM") != "dumb":
            self._open()

    def _open(self) -> None:
        from rich.console import Console
        from rich.progress import BarColumn, TextColumn
        from rich.progress import Progress as Bar
        from rich.table import Column

        console = Console(file=_stderr(), highlight=False)
        self.live = Bar(
            TextColumn("{task.description}", table_column=Column(no_wrap=True)),
            BarColumn(bar_width=24 if console.width >= 100 else 8),
            TextColumn("{task.percentage:>3.0f}%"),
            TextColumn(
                "{task.fields[numbers]}", markup=False, table_column=Column(no_wrap=True, overflow="crop", ratio=1)
            ),
            console=console,
            transient=True,
            refresh_per_second=4,
            expand=True,
        )
        self.live.start()
        self.task = self.live.add_task("epoch 0", total=self.total, completed=self.start, numbers="")

    def update(self, step: int, epoch: float, numbers: dict[str, float], end_of_epoch: bool = False) -> None:
        """`numbers`: loss, spread, samples_per_s, data_wait (a share), and anything else worth a glance."""
        self.step = step
        now = time.monotonic()
        if self.live is not None:
            text = self.words(numbers, now, brief=True)
            head = f"epoch {min(int(epoch) + 1, math_ceil(self.epochs))}/{math_ceil(self.epochs)}"
            self.live.update(self.task, completed=step, total=self.total, description=head, numbers=text)
        elif numbers and (
            now - self.spoke >= self.EVERY
            or (end_of_epoch and now - self.spoke >= self.EVERY / 3)
            or step >= self.total
        ):
            self.spoke = now
            say(f"epoch {epoch:.4g}/{self.epochs:.4g}  {self.words(numbers, now)}")

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
            parts.append(f"eta {human_time((now - self.began) / done * (self.total - self.step))}")
        return "  ".join(parts)

    def note(self, text: str) -> None:
        """A line that stays, above the bar."""
        if self.live is not None:
            self.live.console.print(printable(text), soft_wrap=True, highlight=False, markup=False)
        else:
            say(text)

    def close(self) -> None:
        if self.live is not None:
            self.live.stop()
            self.live = None


def math_ceil(x: float) -> int:
    return int(-(-x // 1))


class Counter:
    """`label 1,200/3,000`: overwritten in place on a terminal; off it a line each 10 s, none for what is quick."""

    def __init__(self, every: float = 10.0):
        self.every = every
        self.spoke = time.monotonic()
        self.label = ""

    def __call__(self, label: str, done: int, total: int) -> None:
        now = time.monotonic()
        if label != self.label:
            self.label, self.spoke = label, now
        live = _stderr().isatty() and os.environ.get("TERM") != "dumb"
        if flag(QUIET) or now - self.spoke < (0.2 if live else self.every):
            return
        self.spoke = now
        text = f"{printable(label)} {done:,}/{total:,}"
        if live:
            end = "\r\x1b[K" if done >= total else ""
            print(f"\r\x1b[K{text}{end}", end="", file=_stderr(), flush=True)
        else:
            say(text)

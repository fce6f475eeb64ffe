"""Terminal output: results go to stdout, logs and progress to stderr. Color never carries meaning alone."""

from __future__ import annotations

import json
import os
import shlex
import shutil
import sys
from collections.abc import Iterable
from typing import IO

from sslcli.errors import SslError

# Environment variables that set the output of this process and of the sweep jobs that it starts.
QUIET, VERBOSE, JSON = "SSLCLI_QUIET", "SSLCLI_VERBOSE", "SSLCLI_JSON"


def flag(name: str) -> bool:
    return os.environ.get(name, "") not in ("", "0")


# -------------------------------------------------------------------------------------------------------------------- data


def out(*lines: object) -> None:
    """Prints lines of results to stdout. Line feeds within a line are escaped."""
    overwrite("")
    for line in lines:
        print(one_line(str(line)), flush=True)


def out_json(value: object) -> None:
    """Prints a JSON object to stdout."""
    overwrite("")
    print(json.dumps(value, indent=2, default=str), flush=True)


def escape(text: str, keep: str = "") -> str:
    """Escape control characters and undecodable bytes, except `keep`: names of files and classes may contain any character."""
    return "".join(c if c.isprintable() or c in keep else c.encode("unicode_escape").decode() for c in text)


def format_override(key: str, value: str) -> str:
    """`key=value`, quoted for a shell."""
    return shlex.quote(f"{key}={escape(value)}")


def printable(text: str) -> str:
    """Text with control characters and lone surrogates escaped, in the encoding of stdout."""
    if text.isprintable() and text.isascii():
        return text
    clean = escape(text, keep="\n\t")
    encoding = getattr(sys.stdout, "encoding", None) or "utf-8"
    return clean.encode(encoding, "backslashreplace").decode(encoding)


def one_line(text: str) -> str:
    return printable(text).replace("\n", "\\n")


def indented(text: str) -> str:
    """Text with all lines but the first indented, so that no name can imitate a line of the program."""
    return printable(text).replace("\n", "\n  ")


# -------------------------------------------------------------------------------------------------------------------- logs


def stderr() -> IO[str]:
    return sys.stderr


def live() -> bool:
    """Whether stderr is a terminal on which a line can be overwritten."""
    return not flag(QUIET) and stderr().isatty() and os.environ.get("TERM") != "dumb"


def in_notebook() -> bool:
    """Whether this is the kernel of a notebook that can show a progress bar in the output of a cell."""
    from importlib.util import find_spec

    shell = sys.modules["IPython"].get_ipython() if "IPython" in sys.modules else None
    return not flag(QUIET) and hasattr(shell, "kernel") and find_spec("ipywidgets") is not None


_overwritten = False  # whether the last line on the terminal is to be overwritten


def overwrite(text: str) -> None:
    """Replaces the last line on the terminal until something else is printed; "" removes it."""
    global _overwritten
    if (text or _overwritten) and live():
        shown = printable(text)[: shutil.get_terminal_size().columns - 1]
        _overwritten = bool(text)
        print(f"\r\x1b[K{shown}", end="", file=stderr(), flush=True)


def say(*parts: object) -> None:
    """Logs a line to stderr, unless -q. Control characters are escaped."""
    _emit(indented(" ".join(str(p) for p in parts)))


def _emit(line: str) -> None:
    """Prints a line that may contain control characters for color."""
    if not flag(QUIET):
        overwrite("")
        print(line, file=stderr(), flush=True)


def detail(*parts: object) -> None:
    """Logs a line to stderr under -v only."""
    if flag(VERBOSE):
        say(*parts)


def warn(message: str, hint: str | None = None) -> None:
    _emit(f"{_paint('warning:', '33')} {indented(message)}")
    if hint:
        _emit(f"{_paint('hint:', '36')} {indented(hint)}")


def ignore_json(command: str) -> None:
    """Warns where `--json` is given to a command that has no JSON to print."""
    if flag(JSON):
        warn(f"--json has no effect on {command}")


def error(e: SslError) -> None:
    """`error: ...`, an empty line, `hint: ...`: shown even under -q."""
    overwrite("")
    print(f"{_paint('error:', '31;1')} {indented(e.message)}", file=stderr(), flush=True)
    if e.hint:
        print(f"\n{_paint('hint:', '36')} {indented(e.hint)}", file=stderr(), flush=True)


def use_color() -> bool:
    if os.environ.get("NO_COLOR"):
        return False
    if os.environ.get("FORCE_COLOR"):
        return True
    return stderr().isatty() and os.environ.get("TERM") != "dumb"


def _paint(text: str, code: str) -> str:
    return f"\x1b[{code}m{text}\x1b[0m" if use_color() else text


def rows(pairs: Iterable[tuple[str, str]]) -> None:
    """Logs aligned pairs of a label and a text, such as the start screen."""
    pairs = list(pairs)
    width = max((len(k) for k, _ in pairs), default=0)
    for key, value in pairs:
        _emit(f"{_paint(key.ljust(width), '36')}  {indented(value)}")


def table(head: list[str], body: list[list[str]], numbers: Iterable[int] = ()) -> list[str]:
    """The lines of a table with aligned columns; columns in `numbers` are aligned to the right."""
    numbers = set(numbers)
    head, *body = [[one_line(str(cell)) for cell in row] for row in [head, *body]]
    widths = [max(len(r[i]) for r in [head, *body]) for i in range(len(head))]

    def line(row: list[str]) -> str:
        cells = [c.rjust(w) if i in numbers else c.ljust(w) for i, (c, w) in enumerate(zip(row, widths, strict=True))]
        return "  ".join(cells).rstrip()

    return [line(head), *(line(r) for r in body)]


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


def plural(n: int, noun: str, many: str | None = None) -> str:
    """`1 file`, `3,000 files`."""
    return f"{n:,} {noun if n == 1 else many or noun + 's'}"


def human_bytes(n: float) -> str:
    """A number of bytes as `170.5 MB`."""
    for unit in ("bytes", "kB", "MB", "GB"):
        if n < 1000 or unit == "GB":
            return f"{n:,.0f} {unit}" if unit == "bytes" else f"{n:,.1f} {unit}"
        n /= 1000
    raise AssertionError

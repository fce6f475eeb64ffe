"""What the parser, the help and completion know of a command: its arguments, keys, flags and subcommands."""

from __future__ import annotations

from dataclasses import dataclass

COMMON_FLAGS = {  # of every command, with their meaning
    "--json": "print one JSON object on stdout",
    "-q, --quiet": "print errors only",
    "-v, --verbose": "print more detail",
    "--config-dir DIR": "also search DIR for YAML files and Python modules",
    "-h, --help": "print the help of a command and exit",
    "--version": "print the version and exit",
}
HYDRA_FLAGS = {
    "-m, --multirun": "run every combination of comma-separated values, such as seed=0,1",
    "--dry-run": "check everything and run one batch; create no folder",
    "--cfg job": "print the composed configuration",
    "--hydra-help": "print the flags of Hydra, such as --info and --package",
}


@dataclass(frozen=True)
class Option:
    """A key (`out=FOLDER`) or a flag (`-n N`) of a command. `value` is a placeholder, or the choices joined by `|`."""

    name: str
    value: str
    meaning: str
    values: tuple[str, ...] = ()  # the choices that a placeholder stands for

    @property
    def usage(self) -> str:
        return f"{self.name} {self.value}".strip() if self.name.startswith("-") else f"{self.name}={self.value}"

    @property
    def choices(self) -> list[str]:
        """What completion offers as values."""
        return [*self.values, *(c for c in self.value.split("|") if c == c.lower())]


@dataclass(frozen=True)
class Subcommand:
    """What follows the name of a command, such as `show RUN` after `runs`."""

    usage: str
    summary: str
    options: tuple[Option, ...] = ()

    @property
    def name(self) -> str:
        return self.usage.partition(" ")[0]

    @property
    def arguments(self) -> list[str]:
        """What follows the name: `RUN` must be given, `[RUN]` may be, `...` allows more."""
        return self.usage.split()[1:]


@dataclass(frozen=True)
class Command:
    """A command as users type it.

    `summary` is one imperative sentence. `usage` follows the name. `examples` are (arguments, remark). `groups` are the config
    groups whose choices the command takes, and `shared` those files of `configs/` whose keys it takes besides its own, or single
    keys of them; both are of commands that Hydra runs.
    """

    name: str
    summary: str
    usage: str
    examples: tuple[tuple[str, str], ...]
    subcommands: tuple[Subcommand, ...] = ()
    options: tuple[Option, ...] = ()
    notes: str = ""
    hydra: bool = False  # run by hydra.main, with configs/NAME.yaml
    groups: tuple[str, ...] = ()
    shared: tuple[str, ...] = ()
    overrides: bool = False  # takes key=value
    runs: bool = False  # a positional argument may name a run, which may contain an equal sign
    files: bool = False  # positional arguments may name files, which may contain an equal sign
    json: bool = True  # prints results for which --json has an effect
    distributed: bool = False  # runs on every process that torchrun or Slurm started

    @property
    def flags(self) -> list[str]:
        """The options that are flags, of the command and of its subcommands."""
        options = [*self.options, *(o for s in self.subcommands for o in s.options)]
        return [o.name for o in options if o.name.startswith("-")]

    @property
    def flag_meanings(self) -> dict[str, str]:
        """The flags that are not `options`, with their meaning."""
        flags = COMMON_FLAGS | (HYDRA_FLAGS if self.hydra else {})
        return flags if self.json else {flag: meaning for flag, meaning in flags.items() if flag != "--json"}

    def options_of(self, subcommand: str) -> tuple[Option, ...]:
        """The options of the command and of the subcommand of this name."""
        return (*self.options, *(o for s in self.subcommands if s.name == subcommand for o in s.options))

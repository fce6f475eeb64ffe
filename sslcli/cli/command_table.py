"""The commands: one entry feeds the parser, the help, completion and the suggestion after a misspelled name.

A new command is one module `commands/NAME.py` and one entry in `entries/`. The module of a plain command has
`main(request) -> int`; the module of a command that Hydra runs has the functions that `hydra_command.py` lists, and its keys are in
`configs/NAME.yaml`.
Imports neither torch nor Hydra.
"""

from __future__ import annotations

from sslcli.cli.entries import installation, results, samples, training

ENTRIES = (*training.ENTRIES, *results.ENTRIES, *samples.ENTRIES, *installation.ENTRIES)
COMMANDS = {command.name: command for command in ENTRIES}

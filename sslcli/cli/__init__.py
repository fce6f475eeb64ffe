"""The command line. `main` is what the program `sslcli` calls."""

from sslcli.cli.entry_point import main

__all__ = ["main"]

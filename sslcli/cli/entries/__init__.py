"""The entries of the commands, by subject; `command_table.py` lists them all. Imports neither torch nor Hydra."""

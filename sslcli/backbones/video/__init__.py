"""Backbones on clips of frames."""

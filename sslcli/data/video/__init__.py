"""Clips of frames: generated ones, and those of files."""

"""Ops, corruptions and baselines of text."""

"""Scores of the steps of recordings, from scores of windows."""

"""Scores of items that may follow a history, and how they are judged."""

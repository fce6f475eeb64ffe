"""Samples of a data set across its splits: their names, their content, and which are left out."""

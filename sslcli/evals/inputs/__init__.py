"""Inputs of evaluations: labeled subsets, label files, the feature cache, corruptions and attacks."""

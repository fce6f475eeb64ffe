"""Evaluation of predicted tokens."""

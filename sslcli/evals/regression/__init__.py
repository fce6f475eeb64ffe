"""Evaluators of the task `value`: prediction of a number for each sample."""

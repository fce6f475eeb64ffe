"""Which samples to label next: orders of unlabeled samples by their features (active learning)."""

"""What zero-shot evaluation measures."""

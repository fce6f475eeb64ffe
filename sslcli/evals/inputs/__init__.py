"""What evaluators measure on: which labels may be seen, features on disk, samples made worse."""

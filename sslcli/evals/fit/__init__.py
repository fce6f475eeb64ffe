"""Models that evaluators fit to training samples: linear probes, k-NN, clusterings, anomaly scores."""

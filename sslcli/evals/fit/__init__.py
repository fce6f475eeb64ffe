"""What evaluators fit or train: from samples, then asked about others."""

"""Training of a backbone with labels, for `finetune` and the supervised baseline of `labels`."""

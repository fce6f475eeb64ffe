"""The classifier of a run: what `eval probe` and `eval finetune` fitted, kept to predict new samples."""

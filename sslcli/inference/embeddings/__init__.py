"""Files of embeddings: id, path, label and vector of each sample, with what identifies the encoder."""

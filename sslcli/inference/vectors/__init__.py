"""Which vector of an encoder is that of a sample."""

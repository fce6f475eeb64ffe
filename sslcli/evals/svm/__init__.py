"""A support-vector machine on frozen features."""

"""Trained encoders on samples of a user: what the commands embed, predict, audit and pick have in common.

`encoder.py` opens an encoder, `inputs.py` reads the samples that it is to see, `features.py` computes their features in blocks of a
fixed size, and `session.py` does so on several processes.
"""

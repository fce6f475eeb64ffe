"""Backbones with a feature vector per frame of a series or spectrogram."""

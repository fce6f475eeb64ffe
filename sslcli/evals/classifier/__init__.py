"""What evaluators keep of the classifier that they fitted, and its calibration."""

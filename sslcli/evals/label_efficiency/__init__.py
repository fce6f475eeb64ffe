"""What the label-efficiency curves of classes and of values have in common."""

"""Numbers of tensors: what comes in is computed elsewhere, nothing is read or drawn."""

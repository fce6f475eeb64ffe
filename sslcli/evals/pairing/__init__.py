"""What single test samples got in two results, and whether the results are distinguishable."""

"""`report.html`: the results of a run, or of a sweep, as one self-contained HTML file."""

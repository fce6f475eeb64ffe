"""Read recordings, series of any length, from array files, tables and the formats of the time series archives."""

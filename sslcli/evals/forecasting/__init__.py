"""Forecasts from frozen features, and from the window itself."""

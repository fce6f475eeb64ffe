"""Artefacts that are saved beside the metrics of a result: images, sheets, tables, predictions."""

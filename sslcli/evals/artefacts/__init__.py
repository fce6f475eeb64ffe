"""What evaluators leave behind beside their numbers: pictures, sheets, tables, predictions."""

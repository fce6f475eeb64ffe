"""Views of clips of frames."""

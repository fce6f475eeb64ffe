"""Views of images with captions."""

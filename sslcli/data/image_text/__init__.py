"""Images with captions: manifests that name both, and generated pictures of shapes."""

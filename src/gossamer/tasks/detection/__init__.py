"""Detection: boxes with classes, from one pass over the image."""

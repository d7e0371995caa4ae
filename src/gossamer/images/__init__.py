"""From an image file to the tensor that a network takes: decode, then preprocess."""

"""What the raw outputs of a network mean: the same code in training and in deployment, numpy and pillow alone."""

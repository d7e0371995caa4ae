"""What the raw outputs of a network mean: the same code in training and in deployment, in numpy alone."""

"""What the raw outputs of a network mean: the same code in evaluation and in deployment."""

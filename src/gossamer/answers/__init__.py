"""What raw network outputs mean: numpy alone, the same code in evaluation and in deployment."""

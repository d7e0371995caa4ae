"""The recipe: measure, prune or distil, quantise, and keep the best of what was tried under limits of a deployment."""

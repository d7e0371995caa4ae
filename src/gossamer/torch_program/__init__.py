"""A program as a torch.nn.Module, which the exporters of other packages read."""

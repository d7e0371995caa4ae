"""The microscope: what each layer of a network costs on paper and on this machine, and networks side by side."""

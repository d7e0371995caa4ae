"""ExecuTorch: a program as .pte and .json files with XNNPACK, their metadata read back, and the files run by ExecuTorch."""

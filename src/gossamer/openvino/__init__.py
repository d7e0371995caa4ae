"""OpenVINO: a model file as an IR (.xml and .bin), its metadata read back, and both kinds of file run by OpenVINO."""

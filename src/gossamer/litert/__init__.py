"""LiteRT: a program as a .tflite file, its metadata read back, and the file run by LiteRT's interpreter."""

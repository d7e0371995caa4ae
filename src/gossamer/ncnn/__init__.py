"""ncnn: a program as .param, .bin and .json files, their metadata read back, and the files run by ncnn."""

"""From an ONNX file to a compiled network for the native engine; needs numpy alone."""

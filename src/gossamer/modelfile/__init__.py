"""The model file: ONNX with metadata, read and written without the onnx package."""

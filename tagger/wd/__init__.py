"""Models with the interface of the WD taggers: one ONNX file, one list of tags, one manifest."""

"""Models with the interface of the WD taggers: an ONNX file, a list of tags and a manifest."""

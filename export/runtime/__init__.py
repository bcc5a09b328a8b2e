"""The runtime of a bundle: the ONNX Runtime session of its graph, and the `Bundle` class."""

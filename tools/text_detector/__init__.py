"""Makes site_node/deidentify/weights/text.onnx."""

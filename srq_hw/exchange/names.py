"""By what a QONNX file and the nodes that quantize in it are known."""

QONNX_SUFFIXES = (".qonnx", ".onnx")
QUANT_NODES = ("Quant", "IntQuant")

"""ONNX files: ``write`` and ``forms`` turn layers into operators, ``read`` and ``operators`` back.

``forms`` is a table of layers and ``operators`` one of ONNX operators: a layer or an operator more
is one entry there.
"""

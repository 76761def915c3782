"""Compilation: a model's training step as readable Python source, which Numba makes native.

``compile.py`` has `nn.compile`; ``source.py`` assembles the source; the other files hold one
entry for each layer, loss and optimizer, or what they call; ``native.py`` compiles and caches, and
``lowering.py`` has the machine code that Numba could not make from Python.
"""

"""The compiled forms of layers, in files named as in ``nnlite/layers``.

``windows.py`` and ``gather.py`` have what several of them write.
"""

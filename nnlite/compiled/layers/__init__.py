"""The compiled forms of layers, in files named as in ``nnlite/layers``.

``windows.py`` and ``gather.py`` hold loops that several of them share.
"""

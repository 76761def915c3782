"""Notes of changes, by which a compiled model sees at once that nothing has been changed.

An object that is changed puts a new object into one of two places. While an object that was found
there is still there, nothing has changed since: not in any thread, as an assignment is one step.
"""

from __future__ import annotations


class Changes:
    """What has changed last, among all layers and parameters.

    Attributes
    ----------
    attributes : object
        Replaced when an attribute of a layer is set, or the array or a flag of a parameter.
    gradients : object
        Replaced when a parameter gets another array for its gradient, or none.
    """

    attributes: object = None
    gradients: object = None


changes = Changes()

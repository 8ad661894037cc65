"""Segmentation of cardiac MR slices: a thin PyTorch package for a book you can run.

Start with :mod:`cmrseg.models.unet`; the way of the data is
``data -> augment -> models -> losses -> train -> predict -> metrics -> record``.
"""

__version__ = "0.1.0"

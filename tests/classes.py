"""Classes of one test, which flags, files and errors of the others must not name."""

import equinox as eqx

from sgm.data import AbstractDataset


def forget(*classes):
    """Make the names of the classes, and of their subclasses, private."""
    for cls in classes:
        forget(*cls.__subclasses__())  # Equinox makes one of the same name to build it.
        cls.__name__ = f"_{cls.__name__.lstrip('_')}"


def forget_module(name):
    """Make the names of all classes of a module private, however often it was run."""
    found = [eqx.Module, AbstractDataset]
    for cls in found:
        found += cls.__subclasses__()
    forget(*(cls for cls in found if cls.__module__ == name))

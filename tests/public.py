"""What is public: the names that the folders of the library export."""

import importlib
import inspect
import pkgutil

import sgm


def public_packages():
    """sgm and each folder in it."""
    found = [
        importlib.import_module(found.name) for found in pkgutil.walk_packages(sgm.__path__, "sgm.") if found.ispkg
    ]
    return [sgm, *(package for package in found if package.__name__ != "sgm.configs")]


def exports(package):
    """The classes and functions of the library that a folder exports, by their names."""
    return {name: part for name, part in vars(package).items() if not name.startswith("_") and _is_ours(part)}


def _is_ours(part):
    return (inspect.isclass(part) or inspect.isfunction(part)) and part.__module__.startswith("sgm.")

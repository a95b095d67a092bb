"""What is public: the names that the folders of the library export."""

import ast
import contextlib
import importlib
import inspect
import operator
import pkgutil

import equinox as eqx

import sgm


def public_packages():
    """sgm and each folder in it."""
    found = [
        importlib.import_module(found.name) for found in pkgutil.walk_packages(sgm.__path__, "sgm.") if found.ispkg
    ]
    return [sgm, *(package for package in found if package.__name__ != "sgm.configs")]


def exports(package):
    """The classes and functions of the library that a folder exports, by their names; functions as they are written."""
    written = {name: _written(part) for name, part in vars(package).items() if not name.startswith("_")}
    return {name: part for name, part in written.items() if _is_ours(part)}


def _written(part):
    """The function that `equinox.filter_jit` was given."""
    return inspect.unwrap(part) if isinstance(part, eqx.Module) and hasattr(part, "__wrapped__") else part


def _is_ours(part):
    return (inspect.isclass(part) or inspect.isfunction(part)) and part.__module__.startswith("sgm.")


def names_in(code):
    """The dotted names of the library in a program, such as "sgm.sde.Cosine"."""
    for node in ast.walk(ast.parse(code)):
        if isinstance(node, ast.ImportFrom) and (node.module or "").split(".")[0] == "sgm":
            yield from (f"{node.module}.{alias.name}" for alias in node.names)
        elif isinstance(node, ast.Attribute):
            parts = ast.unparse(node).split(".")
            if parts[0] == "sgm" and all(part.isidentifier() for part in parts):
                yield ".".join(parts)


def find(name):
    """What a dotted name of the library stands for. Raises AttributeError where there is no such name."""
    parts = name.split(".")
    with contextlib.suppress(ImportError):  # of what is no module, but in one
        for end in range(2, len(parts) + 1):
            importlib.import_module(".".join(parts[:end]))
    return operator.attrgetter(".".join(parts[1:]))(sgm)

"""Every public name says what it does, what it is given and what it returns."""

import inspect
import re

import pytest
from public import exports, public_packages

pytestmark = pytest.mark.quick


def public_names():
    """Each class and function that a folder exports, once."""
    parts = {part for package in public_packages() for part in exports(package).values()}
    return sorted(parts, key=lambda part: part.__qualname__)


BUILDERS = ("__init__", "__check_init__", "__post_init__")


def _is_raised_or_protocol(part):
    return inspect.isclass(part) and (issubclass(part, Exception) or getattr(part, "_is_protocol", False))


def _checks(part):
    """Whether a class looks at what it is built of."""
    own = (found for base in part.__mro__ for name, found in vars(base).items() if name in BUILDERS)
    written = [
        inspect.unwrap(found) for found in own if inspect.isfunction(found) and found.__module__.startswith("sgm.")
    ]
    written = [found for found in written if not found.__code__.co_filename.startswith("<")]  # not by dataclasses
    return any(re.search(r"\braise |check", inspect.getsource(found)) for found in written)


def parameters(part):
    if _is_raised_or_protocol(part):
        return []  # A protocol is not built.
    names = list(inspect.signature(part).parameters)
    return [name for name in names if not name.startswith("_") and name != "self"]


@pytest.mark.parametrize("part", public_names(), ids=lambda part: part.__name__)
def test_the_docstring_is_whole(part):
    words = inspect.getdoc(part)
    assert words and len(words.splitlines()[0]) <= 120
    # "sde: Process.", "trace, solver: As those of ...", and of a result "- `value`: log p(x)."
    explained = re.findall(r"^ *(?:- )?`?([\w, ]+?)`?: \S", words, re.MULTILINE)
    names = {name.strip() for line in explained for name in line.split(",")}
    assert not set(parameters(part)) - names
    assert "Source: " not in words, "write `Reference: ...` on a line of its own"
    if not inspect.isabstract(part) and not _is_raised_or_protocol(part):
        assert "\nExample:\n    >>> " in words
        assert inspect.isfunction(part) or not _checks(part) or "\nRaises:\n" in words
    if inspect.isfunction(part):
        assert inspect.signature(part).return_annotation in (None, "None") or "\nReturns:\n" in words
        assert "raise " not in inspect.getsource(part) or "\nRaises:\n" in words


CLASSES = [part for part in public_names() if inspect.isclass(part)]


@pytest.mark.parametrize("part", CLASSES, ids=lambda part: part.__name__)
def test_methods_have_docstrings(part):
    """Their own, or that of the abstract method or attribute that they define."""
    own = [name for name, value in vars(part).items() if inspect.isfunction(value) or isinstance(value, property)]
    declared = {name for base in part.__mro__ for name in getattr(base, "__annotations__", ())}
    public = [name for name in own if not name.startswith("_") and name not in declared]
    assert [name for name in public if not inspect.getdoc(getattr(part, name))] == []

"""Objects as JSON, and back, by the signatures of their classes.

An object is `{"type": "VP", "schedule": {"type": "Linear", ...}, ...}`, with every option written out, so that a later
default does not change it. A class is named by its name, and only among those that can stand at its place (see
`sgm.options.choices`), so that reading can never run other code. A class from outside the library has its module beside
it, which is never imported here.
"""

import inspect
import math
import operator
import sys
from functools import partial
from types import NoneType
from typing import Any, Literal, Union, get_args, get_origin

import jax
import jax.numpy as jnp
import numpy as np

from sgm.nn.frozen import Frozen
from sgm.options import ExperimentError, bases, choices, class_of, is_static, members, named, options, value_of

_NUMBERS = {"inf": math.inf, "-inf": -math.inf, "nan": math.nan}
_LIBRARIES = ("sgm", "diffrax", "optimistix", "lineax")
_ARRAY = "array"


class _Unwritable(ExperimentError):
    """A value that has no form as text."""


def to_json(value: Any, where: str = "", *, whole: bool = False) -> Any:
    """Describe an object as JSON.

    Arguments:
        value: An object of an experiment: a number, a string, None, a tuple, a section, an instance of one of the
            library's classes or of a subclass of them, or a `functools.partial` of a network.
        where: What the value is called in an error.
        whole: Whether what a network is given when it is built and the places of arrays are described too.

    Returns:
        Numbers, strings, None, lists and dictionaries. Numbers that JSON does not have are "inf", "-inf" and "nan".
        A vector of an option that takes a tuple of numbers as well is a list.

    Raises:
        ExperimentError: for a value that cannot be written, such as a function or an array, unless it is a default.
    """
    if whole and isinstance(value, jax.Array | np.ndarray | Frozen):
        array = value.value if isinstance(value, Frozen) else value
        return {"type": _ARRAY, "shape": list(array.shape), "dtype": str(array.dtype)}
    value = value.item() if isinstance(value, np.generic) or getattr(value, "ndim", None) == 0 else value
    if isinstance(value, float) and not math.isfinite(value):
        return next(name for name, number in _NUMBERS.items() if number == value or name == "nan")
    if value is None or isinstance(value, bool | int | float | str):
        return value
    if isinstance(value, tuple):
        return [to_json(part, f"{where}[{place}]", whole=whole) for place, part in enumerate(value)]
    cls = class_of(value)
    if not members(cls):
        is_array = isinstance(value, jax.Array | np.ndarray)
        remedy = "keep it in a file that sgm.data.Files(path) reads" if is_array else "pass another"
        raise _Unwritable(f"{where or 'value'} is a {cls.__name__}, which cannot be written as text; {remedy}.")
    written: dict[str, Any] = {"type": cls.__name__}
    if cls.__module__.partition(".")[0] not in _LIBRARIES:
        written["module"] = cls.__module__
    for option in options(cls, whole).values():
        given, place = value_of(value, option), f"{where}.{option.name}".lstrip(".")
        takes_tuples = any(get_origin(part) is tuple for part in members(option.kind))
        if not whole and getattr(given, "ndim", 0) == 1 and takes_tuples:
            given = tuple(given.tolist())
        try:
            # What is static is no array of the object, whatever it is.
            written[option.name] = to_json(given, place, whole=whole and not is_static(value, option.name))
        except _Unwritable:
            if not _same(given, option.default):
                raise
    return written


def from_json(value: Any, kind: Any, where: str = "", *, whole: bool = False) -> Any:
    """Build the object that JSON describes.

    Arguments:
        value: What `to_json` returned.
        kind: Class of the object, or any annotation of an option.
        where: What the value is called in an error.
        whole: Whether it was written with `whole=True`.

    Returns:
        The object. Options that are not written have their defaults, and arrays are zeros.

    Raises:
        ExperimentError: for a class that cannot stand there, an option that it does not have or lacks, or a value of
            another type.
    """
    parts = members(kind, whole)
    if whole and isinstance(value, dict) and value.get("type") == _ARRAY:
        return _zeros(value, where)
    if isinstance(value, dict):
        classes = tuple(part for part in parts if bases(part, whole) and get_origin(part) is not tuple)
        if classes:
            return _build(value, Union[classes], where, whole)  # noqa: UP007
    elif isinstance(value, list):
        for part in parts:
            kinds = get_args(part) if get_origin(part) is tuple else ()
            kinds = kinds[:1] * len(value) if ... in kinds else kinds
            if get_origin(part) is tuple and len(kinds) == len(value):
                pairs = enumerate(zip(value, kinds, strict=True))
                return tuple(from_json(entry, kind, f"{where}[{place}]", whole=whole) for place, (entry, kind) in pairs)
    elif any(_fits(value, part) for part in parts):
        return value
    elif float in parts and value in _NUMBERS:
        return _NUMBERS[value]
    raise ExperimentError(f"{where or 'experiment'} = {value!r}; pass {described(kind)}.")


def described(kind: Any) -> str:
    """An annotation in words, as "an integer or None"."""
    words = {float: "a number", int: "an integer", bool: "true or false", str: "a string", NoneType: "None"}
    parts = []
    for member in members(kind):
        if get_origin(member) is Literal:
            parts.append("one of " + ", ".join(str(name) for name in get_args(member)))
        elif get_origin(member) is tuple:
            entries = [described(part) for part in get_args(member) if part is not ...]
            parts.append(f"a list, of {' and '.join(entries)}")
        elif member in words:
            parts.append(words[member])
        else:
            parts.append("one of " + ", ".join(sorted(cls.__name__ for cls in choices(member))))
    return " or ".join(parts) or "nothing, since it cannot be written as text"


def _fits(value, part):
    if get_origin(part) is Literal:
        return any(value == known and type(value) is type(known) for known in get_args(part))
    return type(value) is part or (part is float and type(value) is int)


def _zeros(written, where):
    try:
        shape, dtype = tuple(operator.index(size) for size in written["shape"]), jnp.dtype(written["dtype"])
    except (KeyError, TypeError):
        raise ExperimentError(
            f"{where} = {written!r}; pass the shape and the dtype of an array, as {{'type': 'array', 'shape': [3], "
            "'dtype': 'float32'}."
        ) from None
    return jnp.zeros(shape, jax.dtypes.canonicalize_dtype(dtype))


def _build(value, kind, where, whole):
    written = dict(value)
    name, module = written.pop("type", None), written.pop("module", None)
    if not isinstance(name, str):
        raise ExperimentError(f'{where or "experiment"}: it does not say its type; add it, as in {{"type": "VP"}}.')
    place = where or name
    known = choices(kind, whole)
    if module is not None and module not in sys.modules and name not in {cls.__name__ for cls in known}:
        raise ExperimentError(
            f"{place}: {name} is a class of the module {module!r}; import {module} first, on the command line by "
            f"--config {module}.py."
        )
    cls = named(kind, name, place, whole)
    known = options(cls, whole)
    for option in written:
        if option not in known:
            raise ExperimentError(f"{place}: {name} has no option {option!r}; it has {', '.join(known) or 'none'}.")
    for option in known.values():
        if option.is_required and option.name not in written:
            raise ExperimentError(f"{place}: {name} lacks {option.name!r}; pass {described(option.kind)}.")
    given = {
        option: from_json(part, known[option].kind, f"{where}.{option}".lstrip("."), whole=whole)
        for option, part in written.items()
    }
    if whole and "key" in inspect.signature(cls).parameters:
        given["key"] = jax.random.key(0)
    if any(get_origin(member) is partial for member in members(kind)):
        return partial(cls, **given)
    return cls(**given)


def _same(value, default):
    try:
        return value is default or bool(value == default)
    except (TypeError, ValueError):  # Of arrays.
        return False

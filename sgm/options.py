"""What a class can be built with, read from its constructor.

A class keeps every constructor argument under the argument's name. So its signature says which options it has, its
attributes which values they were given, and its docstring what they mean. Flags, files and comparisons need no more.
"""

import dataclasses
import functools
import inspect
import re
import sys
from collections.abc import Callable, Sequence
from functools import partial
from types import NoneType, UnionType
from typing import Annotated, Any, Literal, Union, get_args, get_origin

import equinox as eqx

from sgm.model.base import AbstractModifier
from sgm.model.categorical import CategoricalModel
from sgm.model.score_model import ScoreModel
from sgm.nn.network import AbstractNetwork

MISSING: Any = inspect.Parameter.empty
"""The default of an option that must be given."""

_SCALARS = (float, int, bool, str, NoneType)
# What a network is given when it is built, by the data and the prediction, and a guidance by the run.
_OF_THE_BUILD = {AbstractNetwork: ("shape", "outputs", "conditioning", "key"), AbstractModifier: ("model",)}
# Arguments that are not kept: keys make weights, and a model keeps what it reads of its data.
_USED_UP = {ScoreModel: ("data",), CategoricalModel: ("data",), eqx.Module: ("key",)}


class ExperimentError(ValueError):
    """An experiment that cannot be described, read or built."""


@dataclasses.dataclass(frozen=True)
class Option:
    """One argument of a constructor.

    Arguments:
        name: Name of the argument.
        kind: Annotation of the argument.
        value: Default of the argument, or `MISSING`.
        made: Function that makes the default when it is asked for; None where the default is `value`.
    """

    name: str
    kind: Any
    value: Any
    made: Callable[[], Any] | None = None

    @property
    def default(self) -> Any:
        """Default of the argument, or `MISSING`."""
        return self.value if self.made is None else self.made()

    @property
    def is_required(self) -> bool:
        """Whether the argument has no default."""
        return self.value is MISSING


@functools.lru_cache(maxsize=1024)
def options(cls: type, whole: bool = False) -> dict[str, Option]:
    """List the options of a class by their names.

    Arguments:
        cls: Class.
        whole: Whether to list all that an object keeps. By default, what a network or a guidance is given when it is
            built is left out.

    Returns:
        The options, in the order of the constructor's arguments.
    """
    try:
        signature = inspect.signature(cls, eval_str=True)
    except NameError:  # Of annotations in quotes that are not imported, which cannot be written as text anyway.
        signature = inspect.signature(cls)
    table = _USED_UP if whole else _OF_THE_BUILD
    left_out = next((names for base, names in table.items() if issubclass(cls, base)), ())
    fields = dataclasses.fields(cls) if dataclasses.is_dataclass(cls) else ()
    made = {field.name: field.default_factory for field in fields if field.default_factory is not dataclasses.MISSING}
    return {
        name: Option(name, parameter.annotation, parameter.default, made.get(name))
        for name, parameter in signature.parameters.items()
        if name not in left_out
    }


def class_of(made: Any) -> Any:
    """The class of an object, or the class that a `functools.partial` builds."""
    return made.func if isinstance(made, partial) else type(made)


def is_static(made: Any, name: str) -> bool:
    """Whether an object keeps an option outside of its arrays."""
    fields = dataclasses.fields(made) if dataclasses.is_dataclass(made) else ()
    return any(field.name == name and field.metadata.get("static", False) for field in fields)


def value_of(made: Any, option: Option) -> Any:
    """The value that an object, or a `functools.partial` of its class, was given for an option.

    Raises:
        ExperimentError: for a class that does not keep it under its name.
    """
    if isinstance(made, partial):
        return made.keywords.get(option.name, option.default)
    try:
        return getattr(made, option.name)
    except AttributeError:
        raise ExperimentError(
            f"{type(made).__name__} does not keep its argument {option.name!r}; set self.{option.name} in its "
            "constructor, as every class of an experiment does with each argument."
        ) from None


def members(kind: Any, whole: bool = False) -> tuple[Any, ...]:
    """List the alternatives of an annotation that can be written as text: scalars, literals, tuples and classes.

    Arrays and functions cannot, and are left out. A number that may be an array, or one for each example, is a float,
    and a sequence a tuple.

    Arguments:
        kind: Annotation.
        whole: Whether what is not a float alone is listed too of such a number.
    """
    origin = get_origin(kind)
    if origin is Annotated:
        return members(get_args(kind)[0], whole)
    if origin in (Union, UnionType):
        parts = tuple(member for part in get_args(kind) for member in members(part, whole))
        other = (part for part in parts if (part in _SCALARS and part is not int) or get_origin(part) is not None)
        return tuple(other) if float in parts and not whole else parts
    if origin is Sequence:
        return members(tuple[get_args(kind)[0], ...], whole)
    if origin is tuple:
        return (kind,) if all(members(part, whole) for part in get_args(kind) if part is not ...) else ()
    named = isinstance(kind, type) and (
        issubclass(kind, eqx.Module) or dataclasses.is_dataclass(kind) or kind.__name__.startswith("Abstract")
    )
    return (kind,) if origin in (Literal, partial) or kind in _SCALARS or named else ()


def bases(kind: Any, whole: bool = False) -> tuple[type, ...]:
    """The classes of which, or of whose subclasses, an option takes an instance, or a tuple of instances."""
    found = []
    for member in members(kind, whole):
        if get_origin(member) is tuple:
            found += [base for part in get_args(member) if part is not ... for base in bases(part, whole)]
        elif get_origin(member) is partial:
            found += get_args(member)
        elif get_origin(member) is None and member not in _SCALARS:
            found.append(member)
    return tuple(found)


def choices(kind: Any, whole: bool = False) -> list[type]:
    """List the concrete classes that can stand for an option: the only ones that flags and files can name.

    Arguments:
        kind: Annotation of the option.
        whole: Whether to list those as well that must be given an array, or what text has no form for.
    """
    found: dict[tuple[str, str], type] = {}
    for base in bases(kind, whole):
        for cls in _descendants(base):
            if _is_concrete(cls) and (whole or _is_writable(cls)):
                found[cls.__module__, cls.__qualname__] = cls  # The last one, of a notebook's cell that ran twice.
    return list(found.values())


def named(kind: Any, name: str, where: str, whole: bool = False) -> type:
    """Find the class of this name among the choices for an option (see `choices`).

    Raises:
        ExperimentError: where there is none, or more than one.
    """
    known = choices(kind, whole)
    found = [cls for cls in known if cls.__name__ == name]
    if len(found) > 1:
        places = " and ".join(f"{cls.__module__}.{cls.__qualname__}" for cls in found)
        raise ExperimentError(f"{where}: {name} may be {places}; give one of the classes another name.")
    if not found:
        raise ExperimentError(f"{where}: there is no {name}; {guess(name, [cls.__name__ for cls in known])}.")
    return found[0]


def guess(name: str, known: list[str]) -> str:
    """The remedy for a misspelt name: the closest of the known ones, and all of them."""
    import difflib

    close = difflib.get_close_matches(name, known) or difflib.get_close_matches(name.lower(), known)
    listed = ", ".join(sorted(known)) or "none"
    return f"did you mean {' or '.join(close)}? There are {listed}" if close else f"there are {listed}"


def explanations(cls: type) -> dict[str, str]:
    """What each option of a class means: the entries under "Arguments:" in its docstring, or in that of a base."""
    found: dict[str, str] = {}
    for base in cls.__mro__:
        for name, text in _entries(vars(base).get("__doc__") or "").items():
            found.setdefault(name, text)
    return found


def summary(cls: type) -> str:
    """The first paragraph of a class's docstring, on one line."""
    return " ".join(inspect.cleandoc(cls.__doc__ or "").split("\n\n")[0].split())


def _entries(docstring):
    """The entries "name: text", or "- `name`: text", of the section Arguments."""
    lines = inspect.cleandoc(docstring).splitlines()
    headers = [place for place, line in enumerate(lines) if line.strip("* ") == "Arguments:"]
    found, name = {}, None
    for line in lines[headers[0] + 1 :] if headers else []:
        entry = re.match(r"(?:    |- )`?(\w+)`?: (.*)", line)
        if entry:
            name = entry[1]
            found[name] = entry[2]
        elif line.strip() and not line.startswith("  "):
            break
        elif name is not None:
            found[name] = f"{found[name]} {line.strip()}".strip()
    return found


def _descendants(base):
    yield base
    for subclass in base.__subclasses__():
        yield from _descendants(subclass)


def _is_concrete(cls):
    # A class of the library is public where its folder has its name.
    places = cls.__module__.split(".")
    room = ".".join(places[: max(2, len(places) - 1)])
    is_ours = room.startswith("sgm.") and room in sys.modules
    private = cls.__name__.startswith(("_", "Abstract")) or (is_ours and not hasattr(sys.modules[room], cls.__name__))
    return not (private or inspect.isabstract(cls) or getattr(cls, "__abstractvars__", ()))


def _is_writable(cls, outer=()):
    """Whether all that the class must be given can be written as text."""
    if cls in outer:
        return False
    required = [option for option in options(cls).values() if option.is_required]
    return all(is_writable(option.kind, (*outer, cls)) for option in required)


def is_writable(kind: Any, outer: tuple[type, ...] = ()) -> bool:
    """Whether an option of this kind can be written as text, other than by leaving it at None.

    Arguments:
        kind: Annotation of the option.
        outer: Classes of which the option is a part, which cannot stand for it without end.
    """
    known = bases(kind)
    if known:
        return any(_is_concrete(cls) and _is_writable(cls, outer) for base in known for cls in _descendants(base))
    return any(member is not NoneType for member in members(kind))

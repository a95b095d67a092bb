"""Flags of the command line, by the signatures of classes.

A flag may name a class, as `--sde VE` or `--metrics LogLikelihood SlicedWasserstein`. Which other flags there are
depends on it: `--sde.sigma-max`, `--metrics.LogLikelihood.tolerance`. So these flags are read first. A class that is
named anew has its own defaults; one that is named again keeps the options of the configuration. The flags that are left
set numbers and strings, which `tyro` reads and explains.
"""

import dataclasses
from collections.abc import Sequence
from types import NoneType
from typing import Annotated, Any, Literal, TypeVar, Union, get_args, get_origin

from sgm.options import (
    MISSING,
    ExperimentError,
    Option,
    bases,
    choices,
    explanations,
    is_writable,
    members,
    named,
    options,
    summary,
)
from sgm.serial import from_json, to_json

T = TypeVar("T")
Flags = dict[str, list[str]]


def from_flags(
    kind: type[T], arguments: list[str], default: Any = None, *, prog: str | None = None, description: str = ""
) -> T:
    """Build an object from flags.

    Arguments:
        kind: Class of the object, such as `sgm.experiment.Experiment`.
        arguments: Flags, as `["--sde", "VE", "--sde.sigma-max", "50"]`.
        default: Object whose options are kept where no flag is given, of this class or a base of it. Without it each
            option has the default of its class.
        prog: Name of the program in the help.
        description: Text with which the help begins.

    Returns:
        The object.

    Raises:
        ExperimentError: for a class that cannot be chosen.
        SystemExit: for flags that there are not, flags that are missing, values of another type, and `--help`.

    Example:
        >>> from_flags(Training, ["--steps", "100", "--optimiser", "AdamW"]).optimiser
        AdamW(learning_rate=0.001, warmup=500, clip=1.0, weight_decay=0.01)
    """
    return from_json(edited(kind, arguments, default, prog=prog, description=description), kind)


def edited(
    kind: type, arguments: list[str], default: Any = None, *, prog: str | None = None, description: str = ""
) -> dict[str, Any]:
    """The object of `from_flags` as JSON of `sgm.serial`, which is not built, and so not checked, yet."""
    import tyro

    chosen = _choose(kind, {} if default is None else to_json(default), _values(arguments), "")
    parsed = tyro.cli(chosen.form(), args=arguments, prog=prog, description=description or summary(kind))
    return chosen.read(parsed)


@dataclasses.dataclass(frozen=True)
class _Leaf:
    """An option that is a number or a string, or a tuple of them."""

    option: Option
    value: Any

    def fields(self, info):
        kind = Union[tuple(map(_plain, members(self.option.kind)))]  # noqa: UP007
        return [_field(self.option.name, kind, info, self.value)]

    def read(self, parsed):
        return to_json(getattr(parsed, self.option.name))


@dataclasses.dataclass(frozen=True)
class _Chosen:
    """A class, and what its options are."""

    cls: type
    entries: dict[str, "_Leaf | _Slot"]

    def form(self) -> type:
        """A dataclass with one field a flag, which `tyro` fills."""
        import tyro

        meanings, fields = explanations(self.cls), []
        for name, entry in self.entries.items():
            fields += entry.fields(tyro.conf.arg(name=name.rstrip("_"), help=meanings.get(name, "")))
        return _form(self.cls.__name__, fields, f"{self.cls.__name__}: {summary(self.cls)}")

    def read(self, parsed: Any) -> dict[str, Any]:
        """JSON of the class with the values of a filled form."""
        return {"type": self.cls.__name__, **{name: entry.read(parsed) for name, entry in self.entries.items()}}


@dataclasses.dataclass(frozen=True)
class _Slot:
    """An option that is an object of a class that can be chosen, or a tuple of such objects.

    `parts` has one entry, or none for None; of a tuple it has all entries. It is None where nothing is chosen yet.
    """

    option: Option
    parts: list[_Chosen] | None

    @property
    def many(self) -> bool:
        """Whether it is a tuple of objects."""
        return any(get_origin(member) is tuple for member in members(self.option.kind))

    @property
    def given(self) -> tuple[str, ...]:
        """The names of the classes."""
        return tuple(part.cls.__name__ for part in self.parts or ())

    def fields(self, info):
        name, names = self.option.name, sorted({cls.__name__ for cls in choices(self.option.kind)})
        names += ["None"] if NoneType in members(self.option.kind) else []
        given, forms = self.given, [part.form() for part in self.parts or ()]
        fields: list[tuple] = []
        if self.many or len(names) > 1 or self.option.is_required:  # Classes of the user's own may be others tomorrow.
            which: Any = Literal[tuple(names)]
            value = MISSING if self.parts is None else given if self.many else (*given, "None")[0]
            fields.append(_field(f"{name}_class", tuple[which, ...] if self.many else which, info, value))
        if self.many:
            inner = zip(_labels(given), forms, strict=True)
            forms = [_form(name, [_group(label, form) for label, form in inner if dataclasses.fields(form)], "")]
        return fields + [_group(name, form) for form in forms if dataclasses.fields(form)]

    def read(self, parsed):
        inner = getattr(parsed, self.option.name, None)
        if self.many:
            pairs = zip(_labels(self.given), self.parts or (), strict=True)
            return [part.read(getattr(inner, label, None)) for label, part in pairs]
        return self.parts[0].read(inner) if self.parts else None


def _choose(cls: type, written: dict[str, Any], flags: Flags, path: str) -> _Chosen:
    """A class with its options as they are written, or else as they are by default, with the classes of the flags."""
    entries: dict[str, _Leaf | _Slot] = {}
    for name, option in options(cls).items():
        place = f"{path}.{name.rstrip('_')}".lstrip(".")
        if not is_writable(option.kind):
            continue
        value = written.get(name, MISSING)
        if value is MISSING and not option.is_required:
            try:
                value = to_json(option.default, place)
            except ExperimentError:  # A default that has no form as text is kept.
                continue
        if bases(option.kind):
            entries[name] = _choose_classes(option, value, flags, place)
        else:
            value = value if value is MISSING else from_json(value, option.kind, place)
            real = type(value) is int and float in members(option.kind)
            entries[name] = _Leaf(option, float(value) if real else value)
    return _Chosen(cls, entries)


def _choose_classes(option: Option, value: Any, flags: Flags, place: str) -> _Slot:
    """The classes that a flag names, or else those of the value."""
    slot, names = _Slot(option, None), flags.get(place)
    before = value if isinstance(value, list) else [] if value in (None, MISSING) else [value]
    if names is None:
        only = choices(option.kind)
        if value is MISSING and (slot.many or len(only) > 1):
            return slot
        names = [only[0].__name__] if value is MISSING else [entry["type"] for entry in before]
    elif not slot.many and len(names) != 1:
        raise ExperimentError(f"--{place}: it names {len(names)} classes; pass one.")
    elif not slot.many and names == ["None"] and NoneType in members(option.kind):
        names = []
    kept = dict(zip(_labels([entry["type"] for entry in before]), before, strict=True))
    parts = []
    for name, label in zip(names, _labels(names), strict=True):
        cls, path = named(option.kind, name, f"--{place}"), f"{place}.{label}" if slot.many else place
        parts.append(_choose(cls, kept.get(label, {}), flags, path))
    return _Slot(option, parts)


def _labels(names: Sequence[str]) -> list[str]:
    """What each entry of a tuple is called: its class, with a number where the class is there before."""
    counts = [names[: place + 1].count(name) for place, name in enumerate(names)]
    return [name if count == 1 else f"{name}{count}" for name, count in zip(names, counts, strict=True)]


def _values(arguments: list[str]) -> Flags:
    """The values that follow each flag."""
    found: Flags = {}
    values: list[str] = []
    for argument in arguments:
        if argument.startswith("--"):
            name, equals, value = argument.removeprefix("--").partition("=")
            values = found[name.replace("-", "_")] = [value] if equals else []
        else:
            values.append(argument)
    return found


def _plain(kind: Any) -> Any:
    """An annotation as `tyro` reads it: entries of a tuple that may be arrays are numbers."""
    if get_origin(kind) is not tuple:
        return kind
    return tuple[tuple(part if part is ... else Union[members(part)] for part in get_args(kind))]  # noqa: UP007


def _group(name: str, form: type) -> tuple:
    """A field of a form that is a form itself. Its help is given, since `tyro` would look for it in source files."""
    import tyro

    return (name, Annotated[form, tyro.conf.arg(help=form.__doc__ or name)])


def _field(name: str, kind: Any, info: Any, default: Any) -> tuple:
    """A field of a form, for `dataclasses.make_dataclass`."""
    annotated = Annotated[kind, info]
    return (name, annotated) if default is MISSING else (name, annotated, dataclasses.field(default=default))


def _form(name: str, fields: list[tuple], doc: str) -> type:
    form = dataclasses.make_dataclass(name, fields, kw_only=True, frozen=True)
    form.__doc__ = doc
    return form

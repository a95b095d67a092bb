"""The fields of a scheduler's config. A field that no reader reads is an error, unless it changes nothing."""

import math
from collections.abc import Mapping, Set
from typing import Any, NoReturn

# Fields that describe the file, not the scheduler.
_METADATA = {
    "_class_name": "the class, which has chosen the reader",
    "_diffusers_version": "the release that wrote the file; fields that it lacked have their defaults",
    "_use_default_values": "the fields that have their defaults",
    "_name_or_path": "where the file was before",
    "tensor_format": "NumPy or torch, in releases before 0.3",
}


class Fields:
    """Reads a config field by field, and finds those that were not read.

    Arguments:
        config: Values of the fields, by their names.
        where: File and class that the fields are of, for errors.
    """

    def __init__(self, config: Mapping[str, Any], where: str):
        self.config, self.where = config, where
        self.said: list[str] = []
        self.read: dict[str, Any] = {}  # Fields that were read, with their values.

    def refuse(self, name: str, remedy: str) -> NoReturn:
        """Raise ValueError for the value of a field, with what to do about it."""
        raise ValueError(f"{self.where}: {name} = {self.read.get(name, self.config.get(name))!r}; {remedy}.")

    def say(self, words: str) -> None:
        """Keep a sentence for a warning: what the sampler does in another way than that of diffusers."""
        self.said.append(f"{self.where}: {words}.")

    def number(self, name: str, default: float, least: float = -math.inf) -> float:
        """A real number of `least` or more."""
        value = self._value(name, default)
        if isinstance(value, bool) or not isinstance(value, int | float) or not value >= least:
            self.refuse(name, "it must be a number" + ("" if least == -math.inf else f" of {least:g} or more"))
        return float(value)

    def positive(self, name: str, default: float) -> float:
        """A real number above 0."""
        value = self.number(name, default)
        if not value > 0:
            self.refuse(name, "it must be above 0")
        return value

    def sigmas(self, lowest: float, highest: float) -> tuple[float, float]:
        """Noise levels sigma_min and sigma_max, 0 < sigma_min < sigma_max, of these defaults."""
        low, high = self.number("sigma_min", lowest), self.number("sigma_max", highest)
        if not 0 < low < high:
            self.refuse("sigma_min", f"it must lie between 0 and sigma_max = {high:g}")
        return low, high

    def maybe_number(self, name: str) -> float | None:
        """A real number, or None."""
        return None if self._value(name, None) is None else self.number(name, 0.0)

    def count(self, name: str, default: int, least: int = 1) -> int:
        """A whole number of `least` or more."""
        value = self._value(name, default)
        if isinstance(value, bool) or not isinstance(value, int) or value < least:
            self.refuse(name, f"it must be a whole number of {least} or more")
        return value

    def flag(self, name: str, default: bool = False) -> bool:
        """True or false; null is false."""
        value = self._value(name, default)
        if value is not None and not isinstance(value, bool):
            self.refuse(name, "it must be true or false")
        return bool(value)

    def choice(self, name: str, default: str | None, known: tuple[str | None, ...]) -> str | None:
        """One of the known words."""
        value = self._value(name, default)
        if value not in known:
            self.refuse(name, "what is known is " + ", ".join("null" if word is None else word for word in known))
        return value

    def numbers(self, name: str) -> list[float] | None:
        """A list of numbers, or None."""
        value = self._value(name, None)
        if value is not None and not (
            isinstance(value, list | tuple) and all(isinstance(part, int | float) for part in value)
        ):
            self.refuse(name, "it must be a list of numbers, or null")
        return None if value is None else [float(part) for part in value]

    def absent(self, name: str, remedy: str) -> None:
        """Raise ValueError unless the field is false, or null."""
        if self._value(name, False) not in (None, False):
            self.refuse(name, remedy)

    def finish(self, without_effect: Mapping[str, str], of_others: Set[str]) -> None:
        """Raise ValueError for fields that were not read, unless they change nothing.

        Arguments:
            without_effect: Reasons why fields of the class change nothing, by their names.
            of_others: Fields of other classes. They stay in a config that was made from another class's, where they
                change nothing.
        """
        unknown = set(self.config) - set(self.read) - set(without_effect) - set(_METADATA) - of_others
        if unknown:
            known = sorted({*self.read, *without_effect})
            raise ValueError(
                f"{self.where}: unknown fields {', '.join(sorted(unknown))}; leave them out if they change nothing. "
                f"Known are {', '.join(known)}."
            )

    def _value(self, name, default):
        return self.read.setdefault(name, self.config.get(name, default))

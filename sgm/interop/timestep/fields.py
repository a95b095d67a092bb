"""The fields of a scheduler's config: each is read, or changes nothing for a reason, or is an error."""

import math
from collections.abc import Mapping
from typing import Any, NoReturn

# What no scheduler reads.
_METADATA = {
    "_class_name": "it chose the reader",
    "_diffusers_version": "fields that a release lacks have their defaults",
    "_use_default_values": "it lists fields that have their defaults",
    "_name_or_path": "where the file once was",
    "tensor_format": "NumPy or torch, of releases before 0.3",
}

# They stay in the config of one scheduler that is made from another's: diffusers does not read them there either.
OF_OTHERS = frozenset(
    """algorithm_type base_image_seq_len base_shift beta_end beta_schedule beta_start clip_sample clip_sample_range
    correct_steps disable_corrector dynamic_thresholding_ratio euler_at_final final_sigmas_type flow_shift
    interpolation_type invert_sigmas lambda_min_clipped lower_order_final max_image_seq_len max_shift
    noise_sampler_seed num_train_timesteps predict_x0 prediction_type rescale_betas_zero_snr rho sample_max_value
    sampling_eps set_alpha_to_one shift shift_terminal sigma_data sigma_max sigma_min sigma_schedule skip_prk_steps
    snr solver_order solver_p solver_type steps_offset stochastic_sampling thresholding time_shift_type
    timestep_spacing timestep_type trained_betas use_beta_sigmas use_dynamic_shifting use_exponential_sigmas
    use_flow_sigmas use_karras_sigmas use_lu_lambdas variance_type""".split()  # noqa: SIM905
)
"""Fields that one scheduler or another reads, and that change nothing in the config of a scheduler without them."""


class Fields:
    """Reads a config field by field, and knows in the end which were not asked for.

    Arguments:
        config: Fields by their names.
        where: What they were read from, and the class, for errors.
    """

    def __init__(self, config: Mapping[str, Any], where: str):
        self.config, self.where = config, where
        self.said: list[str] = []
        self.read: dict[str, Any] = {}  # What was asked for, with the values that it has or has by default.

    def refuse(self, name: str, remedy: str) -> NoReturn:
        """Raise ValueError for a field's value."""
        raise ValueError(f"{self.where}: {name} = {self.read.get(name, self.config.get(name))!r}; {remedy}.")

    def say(self, words: str) -> None:
        """Note what the sampler does otherwise than diffusers' own, for a warning."""
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

    def finish(self, without_effect: Mapping[str, str]) -> None:
        """Raise ValueError for fields that nobody has asked for, but for those that change nothing.

        Arguments:
            without_effect: Reasons for which fields change nothing, by their names.
        """
        unknown = set(self.config) - set(self.read) - set(without_effect) - set(_METADATA) - OF_OTHERS
        if unknown:
            known = sorted({*self.read, *without_effect})
            raise ValueError(
                f"{self.where}: unknown fields {', '.join(sorted(unknown))}; leave them out if they change nothing. "
                f"Known are {', '.join(known)}."
            )

    def _value(self, name, default):
        return self.read.setdefault(name, self.config.get(name, default))

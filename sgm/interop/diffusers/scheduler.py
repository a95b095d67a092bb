"""From a scheduler's config to a process, the meaning of a network's output, and a sampler."""

import functools
import warnings
from collections.abc import Callable, Mapping
from typing import Any

from sgm.interop.diffusers.chain_schedulers import (
    read_ddim,
    read_ddpm,
    read_deis,
    read_dpm_sde,
    read_euler,
    read_euler_ancestral,
    read_heun,
    read_kdpm2,
    read_kdpm2_ancestral,
    read_lms,
    read_multistep,
    read_pndm,
    read_singlestep,
    read_unipc,
)
from sgm.interop.diffusers.continuous_schedulers import (
    read_edm_euler,
    read_edm_multistep,
    read_flow_euler,
    read_flow_heun,
    read_ve,
)
from sgm.interop.edm.preconditioning import READERS as EDM_READERS
from sgm.interop.timestep.fields import Fields
from sgm.interop.timestep.scheduled import Scheduler

_OF_DIFFUSERS: dict[str, Callable[[Fields], Scheduler]] = {
    "DDIMScheduler": read_ddim,
    "DDPMScheduler": read_ddpm,
    "DEISMultistepScheduler": read_deis,
    "DPMSolverMultistepScheduler": read_multistep,
    "DPMSolverSDEScheduler": read_dpm_sde,
    "DPMSolverSinglestepScheduler": read_singlestep,
    "EDMDPMSolverMultistepScheduler": read_edm_multistep,
    "EDMEulerScheduler": read_edm_euler,
    "EulerAncestralDiscreteScheduler": read_euler_ancestral,
    "EulerDiscreteScheduler": read_euler,
    "FlowMatchEulerDiscreteScheduler": read_flow_euler,
    "FlowMatchHeunDiscreteScheduler": read_flow_heun,
    "HeunDiscreteScheduler": read_heun,
    "KDPM2AncestralDiscreteScheduler": read_kdpm2_ancestral,
    "KDPM2DiscreteScheduler": read_kdpm2,
    "LMSDiscreteScheduler": read_lms,
    "PNDMScheduler": read_pndm,
    "ScoreSdeVeScheduler": read_ve,
    "UniPCMultistepScheduler": read_unipc,
}

READERS: dict[str, Callable[[Fields], Scheduler]] = {**_OF_DIFFUSERS, **EDM_READERS}
"""What reads a scheduler, by the name of its class."""

KNOWN = tuple(READERS)
"""Names of the schedulers that can be read."""

_REPLACED = "it is of a solver for which another stands in"
_CONTINUOUS = "levels of EDM are continuous"
_DYNAMIC = "it is of use_dynamic_shifting, which is refused"

WITHOUT_EFFECT: dict[str, dict[str, str]] = {
    "DEISMultistepScheduler": {
        "lower_order_final": _REPLACED,
        "solver_type": _REPLACED,
        "time_shift_type": _DYNAMIC,
    },
    "DPMSolverMultistepScheduler": {"time_shift_type": _DYNAMIC},
    "DPMSolverSDEScheduler": {"noise_sampler_seed": "the key of all randomness is given to sgm.sample"},
    "DPMSolverSinglestepScheduler": {"lower_order_final": _REPLACED, "time_shift_type": _DYNAMIC},
    "EDMDPMSolverMultistepScheduler": {"num_train_timesteps": _CONTINUOUS},
    "EDMEulerScheduler": {"num_train_timesteps": _CONTINUOUS},
    "FlowMatchEulerDiscreteScheduler": dict.fromkeys(
        ("base_shift", "max_shift", "base_image_seq_len", "max_image_seq_len", "time_shift_type"), _DYNAMIC
    ),
    "PNDMScheduler": {"skip_prk_steps": _REPLACED},
    "UniPCMultistepScheduler": {
        **dict.fromkeys(("disable_corrector", "predict_x0", "solver_p", "solver_type"), _REPLACED),
        "lower_order_final": _REPLACED,
        "time_shift_type": _DYNAMIC,
    },
}
"""Fields that change nothing, each with the reason, by the class that has them."""


@functools.cache
def fields_of_diffusers() -> frozenset[str]:
    """The fields that the schedulers of diffusers have, of all classes together."""
    found = {name for of_class in WITHOUT_EFFECT.values() for name in of_class}
    for name, reader in _OF_DIFFUSERS.items():
        fields = Fields({}, name)
        reader(fields)
        found.update(fields.read)
    return frozenset(found)


def read_scheduler(config: Mapping[str, Any], where: str) -> Scheduler:
    """Read the config of a scheduler of diffusers.

    A solver that is not here has a sampler of the same limit in its place, and a warning says so.

    Arguments:
        config: Fields of `scheduler_config.json`.
        where: What they were read from, for errors.

    Returns:
        Process, prediction, timesteps, sampler and clipping.

    Raises:
        ValueError: for a scheduler that is not known, and for a field that is not known or has a value that would
            change the process or what the network's output means.

    Example:
        >>> scheduler = read_scheduler({"_class_name": "DDPMScheduler", "variance_type": "fixed_large"}, "a config")
    """
    name = config.get("_class_name")
    if not isinstance(name, str) or name not in READERS:
        raise ValueError(f"{where}: the scheduler is {name!r}; what is known is {', '.join(KNOWN)}.")
    fields = Fields(config, f"{where}: {name}")
    scheduler = READERS[name](fields)
    fields.finish(WITHOUT_EFFECT.get(name, {}), fields_of_diffusers())
    for words in fields.said:
        warnings.warn(words, stacklevel=2)
    return scheduler

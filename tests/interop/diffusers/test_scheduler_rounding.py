"""Images of diffusers' algorithms that are ours but for rounding: of numbers, of timesteps, and of pure noise."""

import numpy as np
import pytest
from interop.diffusers.loops import gap, our_loop, scheduler_of, their_loop

pytest.importorskip("torch", reason="torch is not installed: no schedulers of diffusers to compare with")
pytest.importorskip("diffusers", reason="diffusers is not installed: no schedulers to compare with")

SAME = 1e-5  # Of images by one and the same algorithm, as in test_scheduler.py.

COSINE = {"beta_schedule": "squaredcos_cap_v2"}
SCALED = {"beta_schedule": "scaled_linear", "beta_start": 0.00085, "beta_end": 0.012}
COSINE_V = {**COSINE, "prediction_type": "v_prediction"}

# Where single precision, in which both compute, leaves fewer digits.
ROUGHER = {
    "Euler karras": ("EulerDiscreteScheduler", {"use_karras_sigmas": True}, 5e-5),
    "Euler karras sample": ("EulerDiscreteScheduler", {"use_karras_sigmas": True, "prediction_type": "sample"}, 5e-5),
    "Euler exponential": ("EulerDiscreteScheduler", {"use_exponential_sigmas": True}, 5e-5),
    "Heun sample": ("HeunDiscreteScheduler", {"prediction_type": "sample"}, 5e-5),
    "Euler cosine": ("EulerDiscreteScheduler", COSINE, 5e-4),
    "Euler cosine v": ("EulerDiscreteScheduler", COSINE_V, 5e-4),
    "Heun cosine": ("HeunDiscreteScheduler", COSINE, 2e-2),
    "Heun cosine v": ("HeunDiscreteScheduler", COSINE_V, 2e-2),
}


@pytest.mark.slow
@pytest.mark.parametrize("case", ROUGHER)
def test_the_same_algorithm_differs_by_rounding(case):
    name, config, bound = ROUGHER[case]
    theirs, ours = scheduler_of(name, **config)
    for count in (10, 20, 50):
        assert gap(our_loop(theirs, ours, count), their_loop(theirs, count)) < bound


ZERO = {"rescale_betas_zero_snr": True, "prediction_type": "v_prediction"}

ROUNDED = {
    "karras": {"use_karras_sigmas": True},
    "exponential": {"use_exponential_sigmas": True},
    "lu": {"use_lu_lambdas": True},
    "scaled karras v": {**SCALED, "use_karras_sigmas": True, "prediction_type": "v_prediction"},
    "zero karras": {**ZERO, "use_karras_sigmas": True},
    "zero exponential": {**ZERO, "use_exponential_sigmas": True},
}


@pytest.mark.slow
@pytest.mark.parametrize("case", ROUNDED)
def test_what_differs_is_that_they_round_the_timesteps(case):
    """And that they begin at sigma/alpha = 4096, where the chain ends in pure noise."""
    theirs, ours = scheduler_of("DPMSolverMultistepScheduler", **ROUNDED[case])
    for count in (10, 20):
        image = our_loop(theirs, ours, count)
        assert SAME < gap(image, their_loop(theirs, count)) < 2e-3

    def raise_first(scheduler, index):
        if ours.sde.ends_in_pure_noise and index == 0:
            scheduler.sigmas[0] = 1e8

    def unrounded(scheduler, index, t):
        if scheduler.sigmas[index] == 1e8:
            return t
        kept = scheduler.alphas_cumprod.numpy()
        return scheduler._sigma_to_t(scheduler.sigmas[[index]].numpy(), np.log(np.sqrt((1 - kept) / kept))).item()

    assert gap(image, their_loop(theirs, 20, raise_first, unrounded)) < SAME


ZERO_CASES = {
    **{
        f"Euler {spacing}": ("EulerDiscreteScheduler", {"timestep_spacing": spacing})
        for spacing in ("linspace", "leading", "trailing")
    },
    **{
        f"Euler karras {spacing}": (
            "EulerDiscreteScheduler",
            {"timestep_spacing": spacing, "use_karras_sigmas": True},
        )
        for spacing in ("linspace", "leading", "trailing")
    },
    "Euler exponential": ("EulerDiscreteScheduler", {"use_exponential_sigmas": True}),
    "DPM linspace": ("DPMSolverMultistepScheduler", {}),
    "DPM trailing": ("DPMSolverMultistepScheduler", {"timestep_spacing": "trailing"}),
}


@pytest.mark.slow_except("Euler karras trailing")
@pytest.mark.parametrize("case", ZERO_CASES)
def test_zero_terminal_snr_differs_by_where_the_first_step_begins(case):
    """Theirs begins at sigma/alpha = 4096, so that Euler's x, which is as large, has few digits below the point."""
    name, config = ZERO_CASES[case]
    theirs, ours = scheduler_of(name, **ZERO, **config)
    for count in (10, 20):
        assert gap(our_loop(theirs, ours, count), their_loop(theirs, count)) < 1e-3

"""What is refused, and what is said, of a scheduler's config. It needs neither torch nor diffusers."""

import math
import warnings

import jax.numpy as jnp
import numpy as np
import pytest

import sgm
from sgm.interop.diffusers.scheduler import KNOWN, WITHOUT_EFFECT, read_scheduler
from sgm.interop.timestep.network import AbstractTimestepNetwork
from sgm.model import Clipped, Denoised, FixedLarge, Noise, Thresholded, Velocity, WithVariance
from sgm.sde import DiscreteChain, LinearBetas, ScaledLinearBetas, ZeroTerminalSNR
from sgm.solve import DDIM, Ancestral, ChainGrid, DPMSolverPP, LeadingGrid, SingleDPMSolverPP, TrailingGrid

pytestmark = pytest.mark.quick

# The config of google/ddpm-cifar10-32, by its first release, as it is on the hub.
CIFAR10 = {
    "_class_name": "DDPMScheduler",
    "_diffusers_version": "0.1.1",
    "beta_end": 0.02,
    "beta_schedule": "linear",
    "beta_start": 0.0001,
    "clip_sample": True,
    "num_train_timesteps": 1000,
    "trained_betas": None,
    "variance_type": "fixed_large",
}


def test_the_config_of_ddpm_on_cifar10():
    scheduler = read_scheduler(CIFAR10, "scheduler")
    assert scheduler.sde == DiscreteChain(LinearBetas(1000, 1e-4, 0.02))
    assert scheduler.prediction == Noise()
    assert scheduler.sampler == Ancestral(999, FixedLarge(), LeadingGrid())
    assert scheduler.clipping is not None
    assert scheduler.clipping.func is Clipped
    assert scheduler.clipping.keywords == {"low": -1.0, "high": 1.0, "moves_noise": True}


def test_fields_of_other_schedulers_change_nothing():
    """As in a config made from another's, which diffusers does not read either."""
    config = {
        "_class_name": "EulerDiscreteScheduler",
        "beta_schedule": "scaled_linear",
        "clip_sample": True,
        "skip_prk_steps": True,
        "set_alpha_to_one": False,
        "timestep_spacing": "leading",
        "steps_offset": 1,
    }
    scheduler = read_scheduler(config, "scheduler")
    assert scheduler.sde == DiscreteChain(ScaledLinearBetas(1000, 1e-4, 0.02))
    assert scheduler.sampler == DDIM(49, grid=LeadingGrid(1))
    assert scheduler.clipping is None


def test_heun_does_not_threshold():
    """Neither does diffusers', in a config made from another's."""
    config = {"_class_name": "HeunDiscreteScheduler", "thresholding": True}
    assert read_scheduler(config, "scheduler").clipping is None


SAMPLERS = {
    "DDIMScheduler": DDIM(19, grid=LeadingGrid()),
    "DDPMScheduler": Ancestral(19, grid=LeadingGrid()),
    # Theirs counts evaluations, of which each step here has two.
    "DPMSolverSinglestepScheduler": SingleDPMSolverPP(9, 2, ChainGrid(early_end=True)),
    # Theirs ends at a noise level, to which all its steps lead.
    "DEISMultistepScheduler": DPMSolverPP(20, 2, ChainGrid()),
}


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("name", SAMPLERS)
def test_samplers_of_so_many_inference_steps(name):
    scheduler = read_scheduler({"_class_name": name}, "scheduler")
    assert scheduler.sampler_of(20) == SAMPLERS[name]
    with pytest.raises(ValueError, match=r"Scheduler\.sampler_of: num_inference_steps = 0; pass num_inf"):
        scheduler.sampler_of(0)


# Numbers of steps that each has in diffusers by default.
DEFAULTS = {
    "DDIMScheduler": 50,
    "DDPMScheduler": 1000,
    "DPMSolverSinglestepScheduler": 20,
    "DEISMultistepScheduler": 20,
    "EDMPrecond": 18,
}


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("name", DEFAULTS)
def test_the_default_sampler_is_that_of_so_many_steps(name):
    scheduler = read_scheduler({"_class_name": name}, "scheduler")
    assert scheduler.sampler_of(DEFAULTS[name]) == scheduler.sampler


def test_zero_terminal_snr():
    config = {"rescale_betas_zero_snr": True, "timestep_spacing": "trailing", "prediction_type": "v_prediction"}
    scheduler = read_scheduler({"_class_name": "DDIMScheduler", **config}, "scheduler")
    assert scheduler.sde == DiscreteChain(ZeroTerminalSNR(LinearBetas(1000, 1e-4, 0.02)))
    assert scheduler.sde.ends_in_pure_noise and scheduler.prediction == Velocity()
    assert scheduler.sampler == DDIM(49, grid=TrailingGrid())


def test_small_chains_have_as_many_steps_as_they_can():
    for offset, steps in ((0, 19), (1, 18)):
        for name in ("DDIMScheduler", "DDPMScheduler"):
            config = {"_class_name": name, "num_train_timesteps": 20, "steps_offset": offset}
            scheduler = read_scheduler(config, "scheduler")
            levels = scheduler.sampler.levels(scheduler.sampler.process(scheduler.sde))
            assert levels is not None and len(levels) == steps + 1


def one(**config):
    """A config of one class, DDIMScheduler unless it names another."""
    return {"_class_name": "DDIMScheduler", **config}


REFUSED = {
    "class": (
        {"_class_name": "SASolverScheduler"},
        "folder: the scheduler is 'SASolverScheduler'; what is known is DDIMScheduler, DDPM",
    ),
    "no class": ({}, "folder: the scheduler is None; what is known is"),
    "unknown": (one(beta_middle=0.1), "folder: DDIMScheduler: unknown fields beta_middle; leave them out .* Known are"),
    "betas": (one(beta_schedule="laplace"), "beta_schedule = 'laplace'; what is known is linear, scaled_linear, sq"),
    "number": (one(beta_start="small"), "beta_start = 'small'; it must be a number"),
    "count": (one(num_train_timesteps=1), "num_train_timesteps = 1; it must be a whole number of 2 or more"),
    "flag": (one(clip_sample=1), "clip_sample = 1; it must be true or false"),
    "table": (one(trained_betas=[0.1, 0.2]), "num_train_timesteps = 1000; trained_betas are 2, so it must be 2"),
    "order": (
        one(trained_betas=[1.0, 0.2], num_train_timesteps=2),
        "folder: DDIMScheduler: DiscreteChain: beta_1 = 1.0; pass betas between 0 and 1",
    ),
    "pure noise": (
        one(rescale_betas_zero_snr=True),
        "prediction_type = 'epsilon'; the chain ends in pure noise .* where the noise tells nothing of the data",
    ),
    "old prediction": (one(predict_epsilon=False), 'predict_epsilon = False; .* write "prediction_type": "sample"'),
    "prediction": (one(prediction_type="score"), "prediction_type = 'score'; what is known is epsilon, sample,"),
    "range": (one(clip_sample_range=0.0), "clip_sample_range = 0.0; it must be above 0"),
    "threshold": (one(thresholding=True, sample_max_value=0.5), "sample_max_value = 0.5; it must be 1 or more"),
    "variance": (
        one(_class_name="DDPMScheduler", variance_type="fixed_large_log"),
        "variance_type = 'fixed_large_log'; diffusers takes the root of a negative number",
    ),
    "two spacings": (
        one(_class_name="HeunDiscreteScheduler", use_karras_sigmas=True, use_beta_sigmas=True),
        "use_karras_sigmas = True; use_beta_sigmas is true as well; only one may be",
    ),
    "flow": (
        one(_class_name="UniPCMultistepScheduler", prediction_type="flow_prediction"),
        "use_flow_sigmas = False; it goes with prediction_type: flow_prediction",
    ),
    "dynamic": (
        one(_class_name="FlowMatchEulerDiscreteScheduler", use_dynamic_shifting=True),
        "use_dynamic_shifting = True; the shift follows from the size of the image there; set it to false, and shift",
    ),
    "dynamic flow": (
        one(_class_name="DPMSolverMultistepScheduler", use_dynamic_shifting=True),
        "use_dynamic_shifting = True; .* and flow_shift to the exponential of its mu",
    ),
    "inverted": (one(_class_name="FlowMatchEulerDiscreteScheduler", invert_sigmas=True), "invert_sigmas = True; time"),
    "stochastic": (
        one(_class_name="FlowMatchEulerDiscreteScheduler", stochastic_sampling=True),
        "stochastic_sampling = True; each step draws all noise afresh there",
    ),
    "solver order": (one(_class_name="DPMSolverMultistepScheduler", solver_order=4), "solver_order = 4; it must be 3"),
    "sigmas": (one(_class_name="EDMEulerScheduler", sigma_min=90.0), "sigma_min = 90.0; it must lie between 0 and"),
    "snr": (one(_class_name="ScoreSdeVeScheduler", snr=2.0), "snr = 2.0; it must lie between 0 and 1"),
}


@pytest.mark.parametrize("case", REFUSED)
def test_what_would_change_the_model_is_refused(case):
    config, message = REFUSED[case]
    with pytest.raises(ValueError, match=message):
        read_scheduler(config, "folder")


MULTISTEP = {"_class_name": "DPMSolverMultistepScheduler"}
TO_LEVEL = {**MULTISTEP, "final_sigmas_type": "sigma_min"}
FLOW = {"prediction_type": "flow_prediction", "use_flow_sigmas": True}

SAID = {
    "solver": (one(_class_name="PNDMScheduler"), "PNDMScheduler: the solver PNDM is not here; DPMSolverPP stands in"),
    "linspace": (one(timestep_spacing="linspace"), "each step leads to where the next begins; those of diffusers"),
    "algorithm": ({**MULTISTEP, "algorithm_type": "sde-dpmsolver"}, r"sde-dpmsolver is not here; .*\+\+ stands"),
    "to level": (
        one(_class_name="EulerDiscreteScheduler", final_sigmas_type="sigma_min"),
        r"ends at a noise level .*; pass saveat=SaveAt\(t0",
    ),
    "beta": (
        one(_class_name="LMSDiscreteScheduler", use_beta_sigmas=True),
        "levels of a beta distribution are not here",
    ),
    "terminal": (one(_class_name="FlowMatchEulerDiscreteScheduler", shift_terminal=0.1), "not stretched to shift_term"),
    "zero": (
        one(_class_name="EulerDiscreteScheduler", rescale_betas_zero_snr=True, prediction_type="sample"),
        "the first step begins at pure noise; that of diffusers at sigma/alpha = 4096",
    ),
    "rounded": (
        {**MULTISTEP, "use_karras_sigmas": True},
        r"asked at timesteps between whole ones, which diffusers rounds \(use_karras_sigmas\)",
    ),
    "lowered": (TO_LEVEL, r"the last two of fewer than 15 steps have order 2; diffusers lowers it \(lower_order_final"),
    "lowered 3": ({**MULTISTEP, "solver_order": 3}, "the last two of fewer than 15 steps have order 3"),
    "euler": (
        {**TO_LEVEL, "euler_at_final": True},
        r"the last step has order 2; that of diffusers has order 1 \(euler_at_final\)",
    ),
    "EDM lowered": (
        {**TO_LEVEL, "_class_name": "EDMDPMSolverMultistepScheduler"},
        "the last two of fewer than 15 steps have order 2",
    ),
    "flow karras": ({**MULTISTEP, **FLOW, "use_karras_sigmas": True}, "even in the shifted time, without use_karras"),
    "flow lu": ({**MULTISTEP, **FLOW, "use_lu_lambdas": True}, "even in the shifted time, without use_lu_lambdas"),
}


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("case", SAID)
def test_what_samples_otherwise_is_said(case):
    config, message = SAID[case]
    with pytest.warns(UserWarning, match=message):
        read_scheduler(config, "folder")


UNSAID = {
    "multistep": MULTISTEP,
    "order 1": {**TO_LEVEL, "solver_order": 1, "euler_at_final": True},
    "euler": {**MULTISTEP, "euler_at_final": True},
    "EDM": {"_class_name": "EDMDPMSolverMultistepScheduler"},
    "karras of Euler": {"_class_name": "EulerDiscreteScheduler", "use_karras_sigmas": True},
}


@pytest.mark.parametrize("case", UNSAID)
def test_nothing_is_said_of_what_changes_nothing(case):
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        read_scheduler(UNSAID[case], "folder")
    said = [str(one.message) for one in caught]
    assert all("ends at a noise level" in words for words in said) and len(said) == (case == "order 1")


@pytest.mark.filterwarnings("ignore")
def test_a_variance_exploding_process_has_a_grid_that_fits_it():
    """As that of Stable Video Diffusion, whose spacing is of the chain."""
    for spacing in ("leading", "trailing"):
        ends = {"sigma_min": 0.002, "sigma_max": 700.0, "use_karras_sigmas": True, "timestep_spacing": spacing}
        scheduler = read_scheduler({"_class_name": "EulerDiscreteScheduler", **ends}, "folder")
        levels = scheduler.sampler.levels(scheduler.sampler.process(scheduler.sde))
        assert jnp.exp(levels[jnp.asarray([0, -1])]).tolist() == pytest.approx([700.0, 0.002], rel=1e-4)


@pytest.mark.filterwarnings("ignore")
def test_levels_from_pure_noise_are_those_from_4096():
    config = {"rescale_betas_zero_snr": True, "prediction_type": "sample", "use_exponential_sigmas": True}
    scheduler = read_scheduler({**MULTISTEP, **config}, "folder")
    levels = scheduler.sampler_of(20).levels(scheduler.sde)
    first, last = math.log(4096), float(scheduler.sde.level(scheduler.sde.t0))
    assert levels[0] == math.inf
    assert levels[1:].tolist() == pytest.approx(np.linspace(first, last, 20)[1:].tolist(), abs=1e-4)


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("name", KNOWN)
def test_defaults_are_read(name):
    scheduler = read_scheduler({"_class_name": name}, "folder")
    # Its steps fit its process.
    levels = scheduler.sampler.levels(scheduler.sampler.process(scheduler.sde))
    assert levels is not None and bool(jnp.all(jnp.diff(levels) < 0))
    scheduler.prediction.check(scheduler.sde)
    assert set(WITHOUT_EFFECT) <= set(KNOWN)


def test_a_scheduler_and_its_model_fit_on_a_screen():
    for betas in ({}, {"trained_betas": jnp.linspace(1e-4, 0.02, 1000).tolist()}):
        scheduler = read_scheduler(one(**betas), "folder")
        for whole in (scheduler, scheduler.model(Two(1))):
            assert "betas=" in repr(whole) and len(repr(whole).splitlines()) < 40


class Two(AbstractTimestepNetwork):
    """A network of one channel and two outputs."""

    count: int = 2

    @property
    def shape(self):
        return 2, 2, 1

    @property
    def outputs(self):
        return self.count

    @property
    def classes(self):
        return None

    def __call__(self, x, timestep, label=None, key=None):
        return jnp.concatenate([x] * self.count, axis=-1)


def test_second_outputs_are_read_where_there_are_any():
    scheduler = read_scheduler(one(prediction_type="sample"), "folder")
    assert scheduler.model(Two(1)).prediction == Denoised()
    assert scheduler.model(Two(2)).prediction == WithVariance(Denoised())
    ranged = read_scheduler(one(_class_name="DDPMScheduler", variance_type="learned_range"), "folder")
    assert ranged.model(Two(2)).prediction == WithVariance(Noise())
    with pytest.raises(ValueError, match="Scheduler: the network has 1 outputs for 1 channels, but WithVariance"):
        ranged.model(Two(1))


def test_clipping_is_in_the_units_of_the_data():
    scheduler = read_scheduler(one(prediction_type="sample", clip_sample_range=0.5), "folder")
    model = scheduler.model(Two(1), sgm.Units.of_levels(256))
    assert isinstance(model, sgm.ScoreModel)
    x = jnp.asarray([0.0, 100.0, 255.0, 127.5]).reshape(2, 2, 1)
    estimate = scheduler.sampled(model).denoise(scheduler.sde, 1.0, x)
    assert estimate.reshape(4).tolist() == pytest.approx([63.5, 100.0, 191.5, 127.5], abs=1e-3)
    with pytest.raises(ValueError, match="Scheduler: it clips all channels alike, but the model's units differ"):
        scheduler.sampled(scheduler.model(Two(1), sgm.Units(jnp.zeros((2, 1)), jnp.ones((2, 1)))))
    thresholded = read_scheduler(one(thresholding=True, sample_max_value=2.0), "folder").clipping
    assert thresholded is not None and thresholded.func is Thresholded
    assert thresholded.keywords["largest"] == 2.0

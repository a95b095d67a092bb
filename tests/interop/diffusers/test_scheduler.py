"""Schedulers of diffusers, read here, have its noise levels and draw its images from the same noise."""

import importlib
import inspect
from fractions import Fraction

import jax
import jax.numpy as jnp
import jax.random as jr
import numpy as np
import pytest
from interop.diffusers.loops import (
    NOISE,
    Closed,
    closed,
    first_last,
    gap,
    latents,
    our_loop,
    scheduler_of,
    their_loop,
)
from solve.diffusers import walk

import sgm
from sgm.interop.diffusers.scheduler import KNOWN, READERS, WITHOUT_EFFECT, fields_of_diffusers, read_scheduler
from sgm.interop.timestep.fields import Fields
from sgm.model import Estimate
from sgm.model.kernel import posterior_mean

torch = pytest.importorskip("torch", reason="torch is not installed: no schedulers of diffusers to compare with")
diffusers = pytest.importorskip("diffusers", reason="diffusers is not installed: no schedulers to compare with")
scheduling_ddim = importlib.import_module("diffusers.schedulers.scheduling_ddim")

SAME = 1e-5  # Of images by one and the same algorithm, in single precision; measured are 2e-7 to 9e-6.

BETAS = {
    "linear": {},
    "scaled_linear": {"beta_schedule": "scaled_linear", "beta_start": 0.00085, "beta_end": 0.012},
    "cosine": {"beta_schedule": "squaredcos_cap_v2"},
    "sigmoid": {"beta_schedule": "sigmoid"},
    "trained": {"trained_betas": np.linspace(1e-3, 0.3, 50).tolist(), "num_train_timesteps": 50},
}


@pytest.mark.quick
@pytest.mark.parametrize("rescaled", [False, True])
@pytest.mark.parametrize("betas", BETAS)
def test_levels_at_the_timesteps_are_those_of_diffusers(betas, rescaled):
    config = {**BETAS[betas], "rescale_betas_zero_snr": rescaled, "prediction_type": "v_prediction"}
    theirs, ours = scheduler_of("DDPMScheduler", **config)
    kept = theirs.alphas_cumprod.numpy()
    k = jnp.arange(1, len(kept) + 1, dtype=jnp.float32)
    # Where little is left, theirs is what single precision leaves of a difference of roots.
    np.testing.assert_allclose(ours.sde.alpha(k) ** 2, kept, rtol=1e-5, atol=1e-7)
    # One less a number near one has few digits in single precision: their own functions of their betas in double.
    exact = diffusers.DDPMScheduler(**BETAS[betas]).betas.double()
    exact = scheduling_ddim.rescale_zero_terminal_snr(exact) if rescaled else exact
    np.testing.assert_allclose(ours.sde.sigma(k), np.sqrt(1 - np.cumprod(1 - exact.numpy())), rtol=1e-5)
    assert bool(ours.sde.ends_in_pure_noise) == rescaled == bool(kept[-1] == 0)


def test_the_timesteps_are_those_of_the_loop():
    """The network is asked the very timesteps that diffusers asks, also where the chain ends in pure noise."""
    for config in ({}, {"timestep_spacing": "trailing", "rescale_betas_zero_snr": True}):
        theirs, ours = scheduler_of("DDIMScheduler", prediction_type="v_prediction", **config)
        theirs.set_timesteps(20)
        sampler = ours.sampler_of(20)
        levels = jnp.minimum(sampler.levels(sampler.process(ours.sde)), 20.0)
        found = jax.vmap(lambda level, ours=ours: ours.timesteps(level).number)(levels)
        np.testing.assert_array_equal(found, theirs.timesteps.numpy())


DDIM = {
    "leading": {},
    "offset": {"steps_offset": 1},
    "trailing": {"timestep_spacing": "trailing"},
    "sample": {"prediction_type": "sample"},
    "v_prediction": {"prediction_type": "v_prediction"},
    "scaled_linear": BETAS["scaled_linear"],
    "cosine": BETAS["cosine"],
    "clipped": {"clip_sample": True, "clip_sample_range": 0.7},
    "thresholded": {"thresholding": True, "sample_max_value": 1.5, "dynamic_thresholding_ratio": 0.7},
    "zero leading": {"prediction_type": "v_prediction", "rescale_betas_zero_snr": True},
    "zero trailing v": {
        "prediction_type": "v_prediction",
        "rescale_betas_zero_snr": True,
        "timestep_spacing": "trailing",
    },
    "zero trailing sample": {
        "prediction_type": "sample",
        "rescale_betas_zero_snr": True,
        "timestep_spacing": "trailing",
    },
}


@pytest.mark.slow_except("leading", "clipped", "zero trailing v")
@pytest.mark.parametrize("case", DDIM)
def test_ddim_draws_the_same_image(case):
    theirs, ours = scheduler_of("DDIMScheduler", **{"clip_sample": False, **DDIM[case]})
    assert gap(our_loop(theirs, ours, 20), their_loop(theirs, 20)) < SAME


@pytest.mark.slow
def test_ddim_of_linspace_is_another_image():
    """By default it is clipped, which hides the most of it."""
    for clips, expected in ((True, (2.6e-2, 1.0e-3)), (False, (0.29, 0.095))):
        theirs, ours = scheduler_of("DDIMScheduler", clip_sample=clips, timestep_spacing="linspace")
        gaps = [gap(our_loop(theirs, ours, count), their_loop(theirs, count)) for count in (10, 20)]
        assert gaps == pytest.approx(list(expected), rel=0.1)


def test_ddim_of_linspace_steps_to_where_it_goes_on():
    """Theirs leads to t - N // steps, and goes on from elsewhere; told where to lead, it draws the same image."""
    theirs, ours = scheduler_of("DDIMScheduler", clip_sample=False, timestep_spacing="linspace")
    image = our_loop(theirs, ours, 20)
    assert gap(image, their_loop(theirs, 20)) > 0.05

    def lead(scheduler, index):
        t = [*scheduler.timesteps.tolist(), -1]
        scheduler.num_inference_steps = Fraction(1000, t[index] - t[index + 1])

    assert gap(image, their_loop(theirs, 20, lead)) < SAME


@pytest.mark.parametrize(
    ("name", "config"),
    [
        ("DDIMScheduler", {"set_alpha_to_one": False}),
        ("DPMSolverMultistepScheduler", {"final_sigmas_type": "sigma_min"}),
    ],
)
def test_the_state_at_the_lowest_level_is_theirs(name, config):
    """Theirs end there, ours in the denoised estimate: x at t0 is the same."""
    theirs, ours = scheduler_of(name, **config)
    # 20 steps of DPM-Solver lead from 20 evaluations to the level; the last evaluation of DDIM leads nowhere.
    assert ours.sampler_of(20).steps == (19 if name == "DDIMScheduler" else 20)
    assert gap(our_loop(theirs, ours, 20, at_level=True), their_loop(theirs, 20)) < SAME


SAME_ALGORITHM = {
    **{
        f"{name} {spacing}": (f"{name}DiscreteScheduler", {"timestep_spacing": spacing})
        for name in ("Euler", "Heun")
        for spacing in ("linspace", "leading", "trailing")
    },
    "Heun clipped": ("HeunDiscreteScheduler", {"clip_sample": True}),
    "Euler sample": ("EulerDiscreteScheduler", {"prediction_type": "sample"}),
    **{
        f"Euler karras {spacing}": (
            "EulerDiscreteScheduler",
            {"use_karras_sigmas": True, "timestep_spacing": spacing, "prediction_type": "v_prediction"},
        )
        for spacing in ("linspace", "leading", "trailing")
    },
    "Euler exponential": ("EulerDiscreteScheduler", {"use_exponential_sigmas": True}),
    # "leading" is Stable Video Diffusion's.
    **{
        f"Euler continuous {spacing}": (
            "EulerDiscreteScheduler",
            {
                "timestep_spacing": spacing,
                "timestep_type": "continuous",
                "prediction_type": "v_prediction",
                "use_karras_sigmas": True,
                "sigma_min": 0.002,
                "sigma_max": 700.0,
            },
        )
        for spacing in ("linspace", "leading", "trailing")
    },
    **{
        f"DPM {order} {spacing}": (
            "DPMSolverMultistepScheduler",
            {"solver_order": order, "timestep_spacing": spacing},
        )
        for order in (1, 2)
        for spacing in ("linspace", "leading", "trailing")
    },
    "DPM thresholded": ("DPMSolverMultistepScheduler", {"thresholding": True, "sample_max_value": 1.5}),
    **{
        f"EDM {name} {schedule}": (f"{name}Scheduler", {"sigma_schedule": schedule})
        for name in ("EDMEuler", "EDMDPMSolverMultistep")
        for schedule in ("karras", "exponential")
    },
    "EDM v": ("EDMEulerScheduler", {"prediction_type": "v_prediction", "sigma_data": 0.7, "rho": 5.0}),
    "flow": ("FlowMatchEulerDiscreteScheduler", {}),
    "flow shifted": ("FlowMatchEulerDiscreteScheduler", {"shift": 3.0}),
}


@pytest.mark.slow_except(
    "Euler linspace",
    "Heun leading",
    "DPM 2 linspace",
    "EDM EDMEuler karras",
    "flow shifted",
    "Euler continuous leading",
)
@pytest.mark.parametrize("case", SAME_ALGORITHM)
def test_the_same_algorithm_draws_the_same_image(case):
    name, config = SAME_ALGORITHM[case]
    theirs, ours = scheduler_of(name, **config)
    assert gap(our_loop(theirs, ours, 20), their_loop(theirs, 20)) < SAME


# Differences at 20 evaluations, and at 160.
SAME_LIMIT = {
    "DPM order 3": ("DPMSolverMultistepScheduler", {"solver_order": 3}),
    "DPM heun": ("DPMSolverMultistepScheduler", {"solver_type": "heun"}),
    "singlestep": ("DPMSolverSinglestepScheduler", {}),
    "UniPC": ("UniPCMultistepScheduler", {}),
    "DEIS": ("DEISMultistepScheduler", {}),
    "PNDM": ("PNDMScheduler", {"set_alpha_to_one": True}),
    "LMS": ("LMSDiscreteScheduler", {}),
    "KDPM2": ("KDPM2DiscreteScheduler", {}),
    "flow heun": ("FlowMatchHeunDiscreteScheduler", {"shift": 2.0}),
    "DPM flow": (
        "DPMSolverMultistepScheduler",
        {"prediction_type": "flow_prediction", "use_flow_sigmas": True, "flow_shift": 3.0},
    ),
}


@pytest.mark.slow
@pytest.mark.parametrize("case", SAME_LIMIT)
def test_what_stands_in_has_the_same_limit(case):
    name, config = SAME_LIMIT[case]
    gaps = []
    for evaluations in (20, 160):
        theirs, ours = scheduler_of(name, **config)
        gaps.append(gap(our_loop(theirs, ours, evaluations), their_loop(theirs, evaluations)))
    assert gaps[1] < gaps[0] / 4 and gaps[1] < 0.02


VARIANCES = ["fixed_small", "fixed_small_log", "fixed_large", "learned_range", "learned"]


@pytest.mark.quick
@pytest.mark.parametrize("kind", VARIANCES)
@pytest.mark.parametrize("stride", [1, 20])
def test_variances_of_ddpm(kind, stride):
    theirs, ours = scheduler_of("DDPMScheduler", variance_type=kind)
    theirs.set_timesteps(1000 // stride)
    t = np.arange(stride, 1000, 20)
    level_t, level_s = (ours.sde.level(jnp.asarray(at + 1, jnp.float32)) for at in (t, t - stride))
    zero, second = jnp.zeros(()), jnp.asarray(0.3)
    of_pair = jax.vmap(lambda s, t: ours.sampler.variance.log_variance(s, t, Estimate(zero, zero, zero, second)))
    expected = np.asarray([float(theirs._get_variance(int(at), torch.tensor(0.3))) for at in t])
    if kind == "fixed_small_log":  # a standard deviation there
        expected = expected**2
    expected = expected if kind == "learned_range" else np.log(expected)
    # A single step's share of the variance is the small difference of two levels; theirs of two numbers near one.
    np.testing.assert_allclose(of_pair(level_s, level_t), expected, atol=3e-3)
    assert ours.prediction.outputs == 1 + kind.startswith("learned")


STOCHASTIC = {
    "ddpm": ("DDPMScheduler", {"timestep_spacing": "trailing"}, "ddpm"),
    "ddpm large": ("DDPMScheduler", {"variance_type": "fixed_large"}, "ddpm"),
    "ddpm range": ("DDPMScheduler", {"variance_type": "learned_range", "timestep_spacing": "linspace"}, "ddpm"),
    "euler": ("EulerAncestralDiscreteScheduler", {}, "euler_ancestral_discrete"),
    "sde": ("DPMSolverMultistepScheduler", {"algorithm_type": "sde-dpmsolver++"}, "dpmsolver_multistep"),
}


@pytest.mark.slow_except("ddpm range", "euler", "sde")
@pytest.mark.parametrize("case", STOCHASTIC)
def test_the_same_noise_leads_to_the_same_image(case, monkeypatch):
    name, config, module = STOCHASTIC[case]
    doubled = config.get("variance_type") == "learned_range"
    theirs, ours = scheduler_of(name, **config)
    sampler = ours.sampler_of(20)
    noise = np.asarray(np.random.default_rng(1).normal(size=(19, *NOISE.shape)), np.float32)
    # The last step adds none, but of Euler and DPM-Solver, which multiply it by zero.
    draws = iter([*noise, NOISE])
    module = importlib.import_module(f"diffusers.schedulers.scheduling_{module}")
    monkeypatch.setattr(module, "randn_tensor", lambda *_, **__: torch.as_tensor(first_last(next(draws))))
    theirs.set_timesteps(20)
    x = torch.as_tensor(first_last(NOISE)) * theirs.init_noise_sigma
    for t in theirs.timesteps:
        x = theirs.step(closed(theirs.scale_model_input(x, t), t, doubled), t, x).prev_sample
    sde, model = sampler.process(ours.sde), ours.sampled(ours.model(Closed(doubled)))
    levels = sampler.levels(sde)

    def path(x1, noise):
        return model.denoise(sde, sde.t0, walk(sampler, model, levels, x1, noise))

    u = jax.vmap(path, in_axes=(0, 1))(latents(theirs, ours, sampler), jnp.asarray(noise))
    assert gap(np.asarray(u), x.numpy().transpose(0, 2, 3, 1)) < 3e-5


def test_the_predictor_of_score_sde_is_the_mean_of_our_transition():
    theirs, ours = scheduler_of("ScoreSdeVeScheduler")
    theirs.set_sigmas(2000)
    model, index = ours.model(Closed()), 1500
    sigmas = theirs.discrete_sigmas.numpy().astype(np.float64)
    x, t = sigmas[index] * NOISE, (index + 0.5) / 1999
    score = closed(torch.as_tensor(x), torch.tensor(sigmas[index]))
    expected = theirs.step_pred(score, t, torch.as_tensor(x)).prev_sample_mean.numpy()
    at, below = (jnp.asarray(np.log(sigmas[i]), jnp.float32) for i in (index, index - 1))
    u = jnp.asarray(x / np.hypot(1, sigmas[index]), jnp.float32)
    means = jax.vmap(lambda u: posterior_mean(below, at, u, model.predict(at, u).denoised))(u)
    assert gap(np.asarray(means) * np.hypot(1, sigmas[index - 1]), expected) < SAME
    np.testing.assert_allclose(ours.sde.sigma(jnp.linspace(0.0, 1.0, 2000)), theirs.discrete_sigmas.numpy(), rtol=2e-5)


@pytest.mark.slow
def test_likelihoods_are_of_the_model_that_is_not_clipped():
    _, ours = scheduler_of(
        "DDIMScheduler", prediction_type="v_prediction", rescale_betas_zero_snr=True, timestep_spacing="trailing"
    )
    model = ours.model(Closed())
    assert isinstance(model, sgm.ScoreModel)
    assert isinstance(ours.sampled(model), sgm.model.Clipped)
    # The chain that ends in pure noise has a likelihood.
    log_p = sgm.log_prob(ours.sde, model, 0.1 * jnp.asarray(NOISE), jr.key(0))
    assert log_p.shape == (2,) and bool(jnp.all(jnp.isfinite(log_p)))


# The solver of the other, DPMSolverSDE, is only there where torchsde is.
CLASSES = [name for name in KNOWN if hasattr(diffusers, name) and name != "DPMSolverSDEScheduler"]


def signature(name):
    """Fields of a class of diffusers, with their defaults."""
    parameters = inspect.signature(getattr(diffusers, name).__init__).parameters
    return {field: parameter.default for field, parameter in parameters.items() if field != "self"}


@pytest.mark.quick
@pytest.mark.parametrize("name", CLASSES)
def test_the_fields_that_are_read_are_those_of_the_class_with_its_defaults(name):
    fields, theirs = Fields({}, name), signature(name)
    READERS[name](fields)
    # Of releases before 0.6, whose configs are on the hub.
    read = {field: value for field, value in fields.read.items() if field != "predict_epsilon"}
    assert read == {field: theirs[field] for field in theirs.keys() - WITHOUT_EFFECT.get(name, {}).keys()}


def test_fields_that_a_class_lacks_are_those_of_another():
    # The first is of the class that cannot be had here, the second of releases before 0.6.
    known = {"noise_sampler_seed", "predict_epsilon"}.union(*(signature(name) for name in CLASSES))
    assert fields_of_diffusers() == known


@pytest.mark.quick
@pytest.mark.parametrize("name", CLASSES)
def test_every_field_is_read_or_changes_nothing_for_a_reason(name):
    fields = set(signature(name))
    unread = WITHOUT_EFFECT.get(name, {})
    assert set(unread) <= fields and all(unread.values())
    for field in fields - set(unread):
        with pytest.raises(ValueError, match=f"{name}: {field} = <object|{name}: {field} = "):
            read_scheduler({"_class_name": name, field: object()}, "test")

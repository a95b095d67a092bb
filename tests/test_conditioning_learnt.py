"""What a small network learns of its condition in a short run, beside what is exact for Gaussian fields."""

import diffrax
import jax
import jax.numpy as jnp
import jax.random as jr
import numpy as np
import pytest

import sgm
from sgm.data import power_spectrum
from sgm.experiment import load_config
from sgm.nn import UNet
from sgm.nn.condition import Condition
from sgm.solve import FixedSteps
from sgm.training import Adam, KarrasWeighting, Loss, NormalLogSNR

# optax and Orbax promote types.
pytestmark = [pytest.mark.slow, pytest.mark.usefixtures("standard_promotion", "optimised")]
METHOD = sgm.ProbabilityFlow(diffrax.Heun(), FixedSteps(20))


def learn(name, steps):
    """The data set, and a sampler of the averaged weights after a short training of a small UNet on configs/`name`."""
    data = load_config(name).data
    network = UNet(data.shape, 16, (1, 2, 4), 1, conditioning=data.conditioning, key=jr.key(0))
    sde, model, _ = sgm.train(
        sgm.VP(),
        sgm.ScoreModel(network, data=data),
        data,
        jr.key(0),
        steps=steps,
        batch_size=32,
        loss=Loss(KarrasWeighting(), NormalLogSNR()),
        optimiser=Adam(3e-3, warmup=50),
        average_decay=0.99,
        progress=False,
    )
    return data, lambda cond, n: sgm.sample(sde, model, jr.key(1), n, cond=cond, method=METHOD)


def regression(data, x, params):
    """The slopes of fields regressed on the slopes asked for: the coefficient and its standard error."""
    asked, found = (np.asarray(values[:, 1]) for values in (params, jax.vmap(data.maximum_likelihood)(x)[0]))
    (coefficient, _), cov = np.polyfit(asked, found, 1, cov=True)
    return coefficient, np.sqrt(cov[0, 0])


def spectrum_errors(data, x, params):
    """In each shell, the log of the mean ratio of the power measured in a field to that of the spectrum asked for."""
    measured = jax.vmap(lambda field: power_spectrum(field)[1])
    # The field whose modes have just the power of the spectrum, so that both are averaged over the same shells.
    exact = jax.vmap(lambda p: jnp.fft.ifft2(jnp.sqrt(data.spectrum(p)), norm="ortho").real[..., None])(params)
    return np.asarray(jnp.log(jnp.mean(measured(x) / measured(exact), axis=0)))


def rms(x):
    return np.sqrt(np.mean(x**2))


def test_samples_have_the_slope_and_the_spectrum_asked_for():
    """The standard error of the regression's coefficient is 0.02, a fifth of its bound.

    Samples reach a coefficient of 0.97. Their power is 12% to 19% too high in most shells, 31% in that of k = 2, and
    10% too low in that of k = 1: the log is off by 0.27 at worst and 0.16 in rms, which twice the steps of the solve
    leave as it is. Exact draws show what is due to their number: 1.003 ± 0.019, 0.03 and 0.02.
    """
    data, sample = learn("grf", 1000)
    grid = np.meshgrid([0.6, 1.0, 1.4], np.linspace(*data.slope, 9), np.arange(8))
    params = jnp.stack([jnp.ravel(part).astype(jnp.float32) for part in grid[:2]], axis=-1)

    drawn = jax.vmap(data.draw)(jr.split(jr.key(2), len(params)), params)
    coefficient, error = regression(data, drawn, params)
    errors = spectrum_errors(data, drawn, params)
    print(f"exact draws: slope {coefficient:.3f} ± {error:.3f}, log ratios of power {errors.round(3)}")
    assert error < 0.025 and abs(coefficient - 1) < 3 * error and np.abs(errors).max() < 0.1

    sampled = sample(Condition(params=params), len(params))
    coefficient, error = regression(data, sampled, params)
    errors = spectrum_errors(data, sampled, params)
    print(f"samples: slope {coefficient:.3f} ± {error:.3f}, log ratios of power {errors.round(3)}")
    assert error < 0.025 and abs(coefficient - 1) < 0.1
    assert np.abs(errors).max() < 0.4 and rms(errors) < 0.22


def test_samples_given_a_map_have_the_mean_and_the_variance_of_its_posterior():
    """For eight maps never trained on, by the samples' mean and standard deviation in each pixel.

    In units of the posterior's standard deviation the mean is off by 0.43 where the map is hidden and by 0.21 where it
    is observed, of which 0.14 is due to the number of draws; the variances are 1.11 and 1.02 times the exact ones. The
    standard deviation of a pixel is off by 0.13 in rms of its log, 0.10 of it due to the number of draws. Against the
    posterior of another map the mean is 3 and 28 times as far off, and the standard deviation 6 times.
    """
    data, sample = learn("grf_map", 600)
    maps, draws = 8, 48
    images = jnp.asarray(data.rows("test", 0, maps)[1]["image"])
    mean, cov = jax.vmap(data.posterior)(images)
    mean, std = np.asarray(mean), np.sqrt(np.diagonal(cov, axis1=1, axis2=2)).reshape(mean.shape)
    x = np.asarray(sample(Condition(image=jnp.repeat(images, draws, axis=0)), maps * draws))
    x = x.reshape(maps, draws, *data.shape)
    sample_mean, sample_std = x.mean(axis=1), x.std(axis=1, ddof=1)

    hidden = np.asarray(images[..., 1:]) == 0
    for name, part, bound, gain, excess in (("hidden", hidden, 0.6, 2, 0.25), ("observed", ~hidden, 0.3, 15, 0.12)):
        unit = rms(std[part])
        error, other = (rms((sample_mean - exact)[part]) / unit for exact in (mean, np.roll(mean, 1, axis=0)))
        ratio = (rms(sample_std[part]) / unit) ** 2
        print(f"{name}: mean off by {error:.3f}, for another map {other:.3f}; ratio of variances {ratio:.3f}")
        assert error < bound and other > gain * error and abs(ratio - 1) < excess

    # A network that does not read the mask cannot know where its samples are to spread.
    error, other = (rms(np.log(sample_std / exact)) for exact in (std, np.roll(std, 1, axis=0)))
    print(f"log of the standard deviation off by {error:.3f}, for another map {other:.3f}")
    assert error < 0.2 and other > 4 * error

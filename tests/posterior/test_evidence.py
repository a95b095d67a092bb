"""Likelihoods of observations, and their operators."""

import jax
import jax.numpy as jnp
import jax.random as jr
import numpy as np
import pytest
from scipy import ndimage, stats

import sgm
from sgm.posterior import (
    Blur,
    Convolve,
    Custom,
    Downsample,
    Exactly,
    Linear,
    LineSums,
    Mask,
    Nonlinear,
    Poisson,
    Projections,
)

RNG = np.random.default_rng(0)
IMAGE, SIGNAL = jnp.asarray(RNG.normal(size=(8, 6, 2)), jnp.float32), jnp.asarray(RNG.normal(size=(12, 2)), jnp.float32)
ANGLES = np.linspace(0, np.pi, 5, endpoint=False)
OPERATORS = {
    "mask": (Mask(RNG.random((8, 6, 2)) < 0.4), IMAGE),
    "blur": (Blur(1.5), IMAGE),
    "blur of a signal": (Blur(1.5), SIGNAL),
    "down-sampling": (Downsample(2), IMAGE),
    "projections": (Projections((8, 6, 2), 5, jr.key(0)), IMAGE),
    "line sums": (LineSums(ANGLES), IMAGE),
    "convolution": (Convolve(jnp.asarray([0.2, 0.5, 0.3])), SIGNAL),
}


@pytest.mark.parametrize(("operator", "x"), OPERATORS.values(), ids=OPERATORS.keys())
def test_operators_are_linear_and_have_a_transpose(operator, x):
    forwards = jax.jit(lambda x: operator(x))
    seen = forwards(x)
    w = jr.normal(jr.key(1), seen.shape)
    (pulled,) = jax.jit(jax.linear_transpose(forwards, x))(w)
    assert jnp.sum(w * seen) == pytest.approx(float(jnp.sum(pulled * x)), rel=1e-4)
    Linear(operator, seen, 0.1).check("test", x.shape)


def test_operators_are_those_of_other_libraries():
    image = np.asarray(IMAGE, np.float64)
    expected = ndimage.gaussian_filter(image, 1.5, axes=(0, 1), mode="wrap", truncate=12)
    # Of a Gaussian that is sampled in space, or in frequency.
    np.testing.assert_allclose(Blur(1.5)(IMAGE), expected, atol=2e-3)
    np.testing.assert_allclose(Downsample(2)(IMAGE), image.reshape(4, 2, 3, 2, 2).mean(axis=(1, 3)), atol=1e-6)
    kernel = np.asarray([0.2, 0.5, 0.3])
    expected = np.stack([np.convolve(channel, kernel, "valid") for channel in np.asarray(SIGNAL).T], axis=1)
    np.testing.assert_allclose(Convolve(jnp.asarray(kernel))(SIGNAL), expected, atol=1e-5)
    # At angle 0 lines are columns, at a right angle rows; at every angle their sum is that of the image.
    sums = LineSums((0.0, np.pi / 2, 0.7))(jnp.asarray(image[:6], jnp.float32))
    assert sums.shape == (3, 10, 2)
    np.testing.assert_allclose(sums.sum(axis=1), np.broadcast_to(image[:6].sum(axis=(0, 1)), (3, 2)), atol=1e-4)
    pairs = LineSums((0.0,))(jnp.asarray(image[:6], jnp.float32))[0]
    np.testing.assert_allclose(pairs[2:8], _between(image[:6].sum(axis=0), 10), atol=1e-4)


def _between(columns, lines):
    """Columns at whole numbers + 1/2 of a line, each shared by the two lines beside it."""
    sums = np.zeros((lines + 1, 2))
    for place, column in enumerate(columns):
        start = (lines - 1) / 2 + place - (len(columns) - 1) / 2
        sums[int(np.floor(start))] += (1 - start % 1) * column
        sums[int(np.floor(start)) + 1] += (start % 1) * column
    return sums[2:8]


X = jnp.asarray([0.3, -0.7, 1.1])


def test_log_likelihoods_are_those_of_scipy():
    y, std = np.asarray([0.5, -0.2, 0.9]), np.asarray([0.1, 0.5, 2.0])
    expected = stats.norm.logpdf(y, np.asarray(X), std).sum()
    assert Linear(lambda x: x, y, std).log_likelihood(X) == pytest.approx(expected, rel=1e-5)
    expected = stats.norm.logpdf(y, np.asarray(X) ** 2, 0.3).sum()
    assert Nonlinear(lambda x: x**2, y, 0.3).log_likelihood(X) == pytest.approx(expected, rel=1e-5)
    counts = np.asarray([3, 0, 7])
    expected = stats.poisson.logpmf(counts, 2 * np.exp(np.asarray(X))).sum()
    assert Poisson(lambda x: 2 * jnp.exp(x), counts).log_likelihood(X) == pytest.approx(expected, rel=1e-5)
    assert Custom(lambda x: -jnp.sum(jnp.abs(x))).log_likelihood(X) == pytest.approx(-2.1, rel=1e-5)


def test_nan_is_what_was_not_measured():
    y = jnp.asarray([0.5, jnp.nan, 0.9])
    seen = Linear(Mask(np.asarray([True, False, True])), y[jnp.asarray([0, 2])], 0.2)
    evidence = Linear(lambda x: x, y, 0.2)
    assert evidence.log_likelihood(X) == pytest.approx(float(seen.log_likelihood(X)), rel=1e-6)
    gradient = jax.jit(jax.grad(evidence.log_likelihood))(X)
    np.testing.assert_allclose(gradient, jax.jit(jax.grad(seen.log_likelihood))(X), rtol=1e-6)
    counts = Poisson(jnp.exp, jnp.asarray([1.0, jnp.nan, 2.0]))
    assert bool(jnp.all(jnp.isfinite(jax.jit(jax.grad(counts.log_likelihood))(X))))


def test_evidence_is_linearised_in_standardised_coordinates():
    units = sgm.Units(jnp.asarray([1.0, 2.0, 3.0]), jnp.asarray([0.5, 2.0, 4.0]))
    near = Nonlinear(lambda x: x**2, jnp.zeros(3), 0.1).linearised(X, units)
    slope = 2 * units.restore(X) * units.std.value
    np.testing.assert_allclose(near.push(jnp.ones(3)), slope, rtol=1e-5)
    np.testing.assert_allclose(near.pull(jnp.ones(3)), slope, rtol=1e-5)
    np.testing.assert_allclose(near.residual, -(units.restore(X) ** 2), rtol=1e-5)


MODEL = sgm.model.Gaussian(jnp.zeros(3), jnp.eye(3))
WRONG = [
    (lambda: Linear(lambda x: x, X, 0.0), "Linear: std = 0.0; pass std > 0, or Exactly"),
    (lambda: Nonlinear(lambda x: x, X, -1.0), "Nonlinear: std = -1.0; pass std > 0"),
    (lambda: Poisson(jnp.exp, jnp.asarray([1.0, -2.0, 0.0])), "y has the entry -2.0; pass counts of 0 or more"),
    (lambda: Exactly(jnp.ones(3), X), r"Exactly: mask has shape \(3,\) and dtype float32, .* pass a boolean mask"),
    (lambda: Exactly(jnp.ones(2, bool), X), r"mask has shape \(2,\) and dtype bool, known has shape \(3,\); pass a"),
    (lambda: Blur(-1.0), "Blur: width = -1.0; pass width >= 0"),
    (lambda: Downsample(0), "Downsample: factor = 0; pass factor >= 1"),
    (lambda: Downsample(4)(IMAGE), r"factor = 4 does not divide the axes \(8, 6\)"),
    (lambda: draw(Linear(jnp.square, X, 0.1)), "sample_posterior: the operator of Linear is not linear"),
    (lambda: draw(Linear(lambda x: x + 1, X, 0.1)), r"pass Nonlinear\(function, y, std\)"),
    (lambda: draw(Linear(lambda x: x, X.at[1].set(jnp.inf), 0.1)), "y has infinite entries; pass finite ones, and nan"),
    (lambda: draw(Linear(lambda x: x, X[:2], 0.1)), r"y has shape \(2,\), but Linear makes .* shape \(3,\)"),
]


def draw(evidence):
    return sgm.sample_posterior(sgm.VP(), MODEL, evidence, jr.key(0), 2)


@pytest.mark.parametrize(("call", "message"), WRONG, ids=[message[:30] for _, message in WRONG])
def test_wrong_evidence_is_named(call, message):
    with pytest.raises(ValueError, match=message):
        call()

"""Infer the parameters of a Gaussian random field from one field, by NUTS on a learned likelihood.

pip install blackjax
python docs/examples/infer_field.py
"""

import tempfile
from collections.abc import Callable
from pathlib import Path

import blackjax
import jax
import jax.numpy as jnp
import jax.random as jr
import numpy as np
from jaxtyping import Array, Float, PRNGKeyArray
from matplotlib.figure import Figure

import sgm
from sgm.data import GaussianField, prefetch
from sgm.loss import KarrasWeighting, NormalLogSNR
from sgm.train import Recipe, adam, train

TRUTH = jnp.asarray([0.8, 2.3])  # amplitude, slope
NAMES = "amplitude", "slope"

Params = Float[Array, "n 2"]


def whitening(fields: Float[np.ndarray, "n D"]) -> Float[np.ndarray, "D D"]:
    """The matrix W with which W x has unit covariance.

    It is the same for all parameters, so that its determinant has no part in their posterior.
    """
    return np.linalg.inv(np.linalg.cholesky(np.cov(fields.T))).astype(np.float32)


def train_model(sde: sgm.VP, data: GaussianField, whiten: Callable, steps: int) -> sgm.ScoreModel:
    """A model of the whitened fields given their parameters."""
    dimensions = data.resolution**2
    conditioning = sgm.nn.Conditioning(params=2)
    network = sgm.nn.MLP((dimensions,), width=128, depth=2, conditioning=conditioning, key=jr.key(0))
    model = sgm.ScoreModel(network, sgm.model.Karras(1.0), shape=(dimensions,))
    model = sgm.nn.with_statistics(model, *data.statistics())
    recipe = Recipe(
        sde=sde,
        weighting=KarrasWeighting(1.0, mean=0.0, std=1.5),
        times=NormalLogSNR(mean=0.0, std=1.5),
        optimiser=adam(1e-2, warmup=200, steps=steps, clip=1.0),
        average_decay=0.999,
        levels=None,
        key=jr.key(1),
    )

    def batch(step):
        x, fields = data.batch(step, 1024, seed=0)
        return whiten(x), sgm.Condition(**fields)

    with tempfile.TemporaryDirectory() as run:
        state = train(recipe, recipe.start(model), lambda *span: prefetch(batch, *span), steps, Path(run))
    return state.average


def nuts(
    log_likelihood: Callable[[Float[Array, " 2"]], Float[Array, ""]],
    data: GaussianField,
    samples: int,
    key: PRNGKeyArray,
) -> tuple[Params, blackjax.mcmc.nuts.NUTSInfo]:
    """Samples of the posterior under the uniform prior, of a chain that is adapted for a quarter as many steps.

    The chain moves in the logit z of each parameter's place in its range, in which the prior's density is
    sigmoid(z) sigmoid(-z).
    """
    low, high = jnp.asarray([data.amplitude, data.slope]).T

    def to_params(z):
        return low + (high - low) * jax.nn.sigmoid(z)

    def log_posterior(z):
        return log_likelihood(to_params(z)) + jnp.sum(jax.nn.log_sigmoid(z) + jax.nn.log_sigmoid(-z))

    key_warmup, key_chain = jr.split(key)
    adaptation = blackjax.window_adaptation(blackjax.nuts, log_posterior)
    (state, settings), _ = adaptation.run(key_warmup, jnp.zeros(2), num_steps=samples // 4)
    sampler = blackjax.nuts(log_posterior, **settings)
    _, (states, info) = blackjax.util.run_inference_algorithm(key_chain, sampler, samples, initial_state=state)
    return to_params(states.position), info


def exact_posterior(
    data: GaussianField, x: Float[Array, "side side 1"], cells: int = 200
) -> tuple[Params, Float[Array, " n"]]:
    """The centres of the cells of a grid over the prior's range, and the posterior's mass in each."""
    place = (jnp.arange(cells) + 0.5) / cells
    axes = (low + (high - low) * place for low, high in (data.amplitude, data.slope))
    grid = jnp.stack(jnp.meshgrid(*axes, indexing="ij"), axis=-1).reshape(-1, 2)
    return grid, jax.nn.softmax(jax.vmap(data.log_prob, (None, 0))(x, grid))


def moments(params: Params, weights: Float[Array, " n"] | None = None) -> tuple[np.ndarray, np.ndarray]:
    """Mean and standard deviation of each parameter."""
    mean = np.average(params, axis=0, weights=weights)
    return mean, np.sqrt(np.average((params - mean) ** 2, axis=0, weights=weights))


def draw(x: Array, grid: Params, mass: Array, samples: Params) -> Figure:
    """The joint posterior and both marginals, exact and sampled, and the field that they are of."""
    cells = round(len(mass) ** 0.5)
    axes = np.asarray(grid).reshape(cells, cells, 2)
    amplitude, slope = axes[:, 0, 0], axes[0, :, 1]
    mass = np.asarray(mass).reshape(cells, cells)
    descending = np.sort(mass, axis=None)[::-1]
    levels = [descending[np.searchsorted(np.cumsum(descending), share)] for share in (0.95, 0.68)]

    figure = Figure(figsize=(6, 6), layout="constrained")
    panels = figure.subplots(2, 2, width_ratios=(3, 1.3), height_ratios=(1.3, 3))
    (top, picture), (joint, side) = panels
    joint.scatter(*samples.T, s=7, color="C0", alpha=0.45, linewidths=0, label="NUTS, learned likelihood")
    joint.contour(amplitude, slope, mass.T, levels, colors="0.15", linewidths=1.2)
    joint.plot([], color="0.15", linewidth=1.2, label="exact, 68% and 95%")
    joint.plot(*TRUTH, "*", color="C3", markersize=14, markeredgecolor="white", linestyle="none", label="truth")
    joint.set(xlabel=NAMES[0], ylabel=NAMES[1], xlim=grid[:, 0][jnp.array([0, -1])])
    joint.legend(frameon=False, fontsize="small")
    return figure


def main(steps: int = 8000, samples: int = 400, figure: Path = Path("figs/infer_field.png")) -> None:
    """Train for `steps`, draw `samples` from the posterior, print how they compare with the exact one, draw both."""

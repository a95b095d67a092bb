"""Posterior predictive checks: simulations of what the model infers, against what was observed."""

from collections.abc import Callable

import equinox as eqx
import jax
import jax.numpy as jnp
import jax.random as jr
import numpy as np
from jaxtyping import Array, Float, PRNGKeyArray

from sgm import plot
from sgm.checks import check_count, check_instance
from sgm.data.simulator import AbstractSimulator, shape_of_draw
from sgm.evaluation.draws import posterior_draws
from sgm.evaluation.metric import AbstractMetric, Row

_QUANTILES = plot.PREDICTIVE_QUANTILES
_SMALL = 0.05


class PosteriorPredictive(AbstractMetric):
    """Posterior predictive checks: parameters are drawn given each observation, and simulated again.

    Each output of each record has quantiles of its simulations, and the two-sided probability of one as far out as the
    observed value. Small probabilities tell of what the model does not explain. Those of a right model are not uniform,
    since the observed value is used twice, but a share 2 s at most is below s. The figure is of the first record.

    Arguments:
        simulator: Function `simulator(key, theta)` of JAX, which draws an observation, as that of
            `sgm.data.Simulations`; for the command line, a subclass of `sgm.data.AbstractSimulator`.
        draws: Number of draws for each record.

    Raises:
        TypeError: for a simulator that is no function, and a number of draws that is not whole; when evaluated, for a
            simulator that is no function of JAX or of other arguments.
        ValueError: for no draws; when evaluated, for data whose condition is not the observation alone, and a simulator
            of another shape, that fails, or that draws by np.random.

    Example:
        >>> data = sgm.data.Simulations(lambda key, theta: theta + 0.1 * jr.normal(key, (2,)), prior=model)
        >>> metric = PosteriorPredictive(data.simulator, draws=20)
        >>> report = sgm.evaluate(sde, model, data, [metric], key, n=40, sampler=sgm.DDIM(10))
        >>> share = report["predictive_small"].value  # of a right model 0.1 at most

    Reference: Gelman, Meng and Stern 1996 (Statistica Sinica 6); the share by Meng 1994 (doi:10.1214/aos/1176325622).
    """

    simulator: AbstractSimulator | Callable[[PRNGKeyArray, Array], Array]
    draws: int = eqx.field(static=True, default=100)

    def __check_init__(self):
        remedy = "pass a function simulate(key, theta), or an instance of a subclass of sgm.data.AbstractSimulator"
        check_instance("PosteriorPredictive", "simulator", self.simulator, Callable, remedy=remedy)
        check_count("PosteriorPredictive", "draws", self.draws)

    def check(self, context):
        parts = context.data.conditioning.parts
        if list(parts) not in (["params"], ["image"]):
            raise ValueError(
                f"PosteriorPredictive: a condition of the data has the parts {list(parts)}; pass data whose condition "
                "is what was observed, params or an image alone."
            )
        (size,) = parts.values()
        expected = (size,) if "params" in parts else tuple(size)
        given = jr.key(0), jax.ShapeDtypeStruct(context.data.shape, jnp.result_type(float))
        call, form, other = "PosteriorPredictive", "simulator(key, theta)", "or call what it does by jax.pure_callback"
        found = shape_of_draw(call, "the simulator", form, self.simulator, *given, otherwise=other)
        if (found.shape or (1,)) != expected:
            raise ValueError(
                f"PosteriorPredictive: the simulator gives observations of shape {found.shape}, but a condition of the "
                f"data has {expected}; return that shape."
            )

    def columns(self, context, x, fields, key):
        key_draws, key_simulate = jr.split(key)
        (observed,) = fields.values()
        theta = posterior_draws(context, len(x), fields, self.draws, key_draws)
        theta = jnp.asarray(theta.reshape(-1, *context.data.shape))
        simulated = np.asarray(simulate(self.simulator, key_simulate, theta))
        simulated, observed = simulated.reshape(len(x), self.draws, -1), observed.reshape(len(x), -1)
        quantiles = np.quantile(simulated, _QUANTILES, axis=1).astype(np.float32)
        columns = {f"predictive_{share:g}": part for share, part in zip(_QUANTILES, quantiles, strict=True)}
        tails = jax.vmap(predictive_tails)(jnp.asarray(simulated), jnp.asarray(observed))
        return columns | {"predictive_tail": np.asarray(tails), "observed": observed.astype(np.float32)}

    def rows(self, context, columns):
        tails = columns["predictive_tail"].astype(np.float64)
        small = np.where(np.isfinite(tails), tails < _SMALL, np.nan)
        of_output = np.asarray([Row.mean("", column).value for column in small.T])
        worst = int(np.argmax(np.nan_to_num(of_output, nan=-1)))
        note = f"mean probability of a simulation as far out as the observed value, two-sided; {tails.shape[1]} outputs"
        bound = f"of probabilities are below {_SMALL}; {2 * _SMALL} at most of a right model"
        return [
            Row.mean("predictive_tail", np.mean(tails, axis=1), note=note),
            Row.mean("predictive_small", np.mean(small, axis=1), note=bound),
            Row.mean("predictive_small_worst", small[:, worst], note=f"of output {worst}, which has the most of them"),
        ]

    def figures(self, context, columns):
        quantiles = np.stack([columns[f"predictive_{share:g}"][0] for share in _QUANTILES])
        return {"predictive": plot.predictive(quantiles, columns["observed"][0])}


@eqx.filter_jit
def simulate(
    simulator: Callable[[PRNGKeyArray, Array], Array], key: PRNGKeyArray, theta: Float[Array, "n *shape"]
) -> Float[Array, "n *observation"]:
    """Simulate an observation of each of `n` parameters.

    Arguments:
        simulator: Function `simulator(key, theta)` of JAX, which draws an observation.
        key: Key of all draws.
        theta: Parameters along the first axis.

    Returns:
        Observations along the first axis: of draws of a posterior, draws of its predictive distribution.

    Example:
        >>> theta = model.sample(jr.key(0), 1000)  # draws of a posterior
        >>> observations = simulate(lambda key, theta: theta + jr.normal(key, (2,)), jr.key(1), theta)
        >>> tails = predictive_tails(observations, jnp.asarray([0.3, -4.0]))
    """
    return jax.vmap(simulator)(jr.split(key, len(theta)), theta)


def predictive_tails(
    simulated: Float[Array | np.ndarray, "draws *outputs"], observed: Float[Array | np.ndarray, "*outputs"]
) -> Float[Array, "*outputs"]:
    """Find the two-sided probability of a simulation as far out as the observed value, of each output.

    Arguments:
        simulated: Draws of the predictive distribution.
        observed: Observed values.

    Returns:
        2 min(P(x <= observed), P(x >= observed)), at most 1, where the observed value counts as one of the draws; nan
        where one of the draws is not finite.

    Example:
        >>> simulated = np.arange(99.0)[:, None]  # 99 draws of one output
        >>> predictive_tails(simulated, np.asarray([98.5]))
        Array([0.02], dtype=float32)

    Reference: Gelman, Meng and Stern 1996 (Statistica Sinica 6).
    """
    simulated, observed = jnp.asarray(simulated), jnp.asarray(observed)
    below, above = (jnp.sum(side, axis=0) for side in (simulated <= observed, simulated >= observed))
    smaller = (1 + jnp.minimum(below, above).astype(simulated.dtype)) / (1 + len(simulated))
    return jnp.where(jnp.all(jnp.isfinite(simulated), axis=0), jnp.minimum(2 * smaller, 1), jnp.nan)

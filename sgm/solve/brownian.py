"""A Brownian path on the points of a grid."""

import equinox as eqx
import jax
import jax.numpy as jnp
import jax.random as jr
from diffrax import AbstractBrownianPath, BrownianIncrement, SpaceTimeLevyArea
from jaxtyping import Array, ArrayLike, Float, PRNGKeyArray, Real

from sgm.random import normal


class GridBrownianPath(AbstractBrownianPath):
    """Brownian motion on a grid of times, one independent draw an interval.

    The draw of interval i depends on `fold_in(key, i)` alone, so that any adjoint replays it exactly. A solver may ask
    for whole intervals only, as one does that steps to `ts` and evaluates its noise once a step.

    Arguments:
        ts: Increasing times, two or more.
        shape: Shape of the motion.
        key: Key of all randomness.
        levy_area: `diffrax.BrownianIncrement`, or `diffrax.SpaceTimeLevyArea` where each interval also has its
            space-time Levy area H ~ N(0, dt/12).

    Raises:
        ValueError: by `evaluate`, for a single time.

    Example:
        >>> path = GridBrownianPath(jnp.asarray([0.0, 0.5, 1.0]), jax.ShapeDtypeStruct((2,), jnp.float32), key)
        >>> dw = path.evaluate(0.5, 1.0)
        >>> dw.shape
        (2,)
    """

    ts: Float[Array, " times"]
    shape: jax.ShapeDtypeStruct = eqx.field(static=True)
    key: PRNGKeyArray
    levy_area: type[BrownianIncrement] | type[SpaceTimeLevyArea] = eqx.field(static=True, default=BrownianIncrement)

    @property
    def t0(self):
        return self.ts[0]

    @property
    def t1(self):
        return self.ts[-1]

    def evaluate(self, t0, t1=None, left=True, use_levy=False):
        if t1 is None:
            raise ValueError("GridBrownianPath: got one time; it has increments over whole steps of its grid only.")
        dt = jnp.asarray(t1 - t0, self.shape.dtype)
        w = jnp.sqrt(dt) * self.normal(t0, t1)
        if not use_levy:
            return w
        if self.levy_area is BrownianIncrement:
            return BrownianIncrement(dt=dt, W=w)
        return SpaceTimeLevyArea(dt=dt, W=w, H=jnp.sqrt(dt / 12) * self.normal(t0, t1, 1))

    def normal(self, t0: Real[ArrayLike, ""], t1: Real[ArrayLike, ""], which: int = 0) -> Float[Array, "*shape"]:
        """Independent standard normal numbers, of each interval and each `which`."""
        # The midpoint, so that rounding of the ends cannot choose a neighbour.
        step = jnp.searchsorted(self.ts, 0.5 * (t0 + t1)) - 1
        key = jr.split(jr.fold_in(self.key, step))[which]
        return normal(key, self.shape.shape, self.shape.dtype)

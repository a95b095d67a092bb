"""The posteriors of 2015, by transitions that are told of the example."""

import equinox as eqx
import jax
import jax.random as jr

from sgm.checks import check_count
from sgm.model.kernel import AbstractVariance, FixedSmall
from sgm.posterior.ancestral import PosteriorAncestral
from sgm.posterior.evidence import with_y
from sgm.posterior.method import AbstractPosteriorMethod, Draws, check_unused, has_one_each
from sgm.posterior.path_evidence import AbstractPathEvidence
from sgm.sample import sample
from sgm.solve.grid import AbstractGrid, LogSNRGrid


class ToldTransitions(AbstractPosteriorMethod):
    """The way of 2015: each reverse transition is multiplied by a likelihood of its end, as `PosteriorAncestral` does.

    It takes `Inpainting`, `Denoising` and `MatchedDenoising`. The first two are biased, and more steps do not mend it.

    Arguments:
        steps: Number of steps.
        variance: Variance of the reverse transitions.
        grid: Levels of the steps.

    Raises:
        TypeError: for a number of steps that is no integer.
        ValueError: for fewer than one step.

    Example:
        >>> evidence = Inpainting(jnp.asarray([[0.7, 0.0], [0.1, 0.0]]), jnp.asarray([True, False]))  # of two examples
        >>> sgm.sample_posterior(sde, model, evidence, key, 8, method=ToldTransitions(steps=10)).shape
        (2, 8, 2)

    Reference: Sohl-Dickstein et al. 2015 (arXiv:1503.03585, section 2.5).
    """

    steps: int = eqx.field(static=True, default=500)
    variance: AbstractVariance = FixedSmall()
    grid: AbstractGrid = LogSNRGrid()

    def __check_init__(self):
        check_count("ToldTransitions", "steps", self.steps)

    def takes(self, evidence):
        if isinstance(evidence, AbstractPathEvidence):
            return None
        return "pass Inpainting, Denoising or MatchedDenoising, or another method, such as MMPS()"

    def draw(self, sde, model, evidence, key, n, *, cond, batch_size, mesh):
        check_unused("ToldTransitions", batch_size=batch_size, mesh=mesh)
        assert isinstance(evidence, AbstractPathEvidence)  # As `takes` has it.
        count = len(evidence.y)

        def draws(y, cond, key):
            method = PosteriorAncestral(with_y(evidence, y), self.steps, self.variance, self.grid)
            return sample(sde, model, key, n, cond=cond, method=method)

        keys = jr.split(key, count)
        cond_axis = 0 if has_one_each(model, cond, count) else None
        return Draws(jax.vmap(draws, in_axes=(0, cond_axis, 0))(evidence.y, cond, keys))

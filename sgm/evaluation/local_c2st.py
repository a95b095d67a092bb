"""The local classifier two-sample test: a posterior at one observation."""

import dataclasses
import operator

import equinox as eqx
import jax.random as jr
import numpy as np
from jaxtyping import Array, Float

from sgm import plot
from sgm.checks import check_count, check_finite, check_tuple
from sgm.evaluation.classifier import mlp_classifier, to_table, z_scored
from sgm.evaluation.draws import conditions, parameters, posterior_draws
from sgm.evaluation.metric import AbstractMetric, Row

_FEWEST = 20
# It keeps the classifier from learning the records by heart. A share of them that is held out to tell when to stop does
# so as well, but then a posterior of half the width passes the test on 400 records.
_WEIGHT_DECAY = 0.3


def _to_observation(observation: int | tuple[float, ...]) -> int | tuple[float, ...]:
    try:
        return operator.index(observation)  # pyright: ignore[reportArgumentType]
    except TypeError:
        example = "(0.3, 1.7), or the number of a record"
        return check_tuple("LocalC2ST", "observation", observation, float, example)


class LocalC2ST(AbstractMetric):
    """The classifier two-sample test of the model's posterior at one observation.

    A classifier learns to tell the records from draws of the model, one for each record's condition. It is asked about
    draws at the observation, as many as there are records.

    Arguments:
        observation: Number of the record of the split whose condition is observed, or the vector of observed parameters
            of a condition itself, as (0.3, 1.7); 0.3 1.7 on the command line.
        nulls: Number of classifiers that are trained on permuted labels, for the p-value.
        seed: Seed of the classifiers and of the permutations.

    Raises:
        TypeError: for an observation that is neither a number of a record nor a vector, and nulls that are no whole
            number.
        ValueError: for no nulls, and a negative number of a record; when evaluated, for data without a condition, and
            an observation that they have not.

    Example:
        >>> data = sgm.data.Simulations(lambda key, theta: theta + 0.1 * jr.normal(key, (2,)), prior=model)
        >>> metric = LocalC2ST(observation=(0.3, 1.7), nulls=10)
        >>> report = sgm.evaluate(sde, model, data, [metric], key, n=40, sampler=sgm.DDIM(10))
        >>> p_value = report["local_c2st_p"].value

    Reference: Linhart, Gramfort and Rodrigues 2023 (arXiv:2306.03580).
    """

    observation: int | tuple[float, ...] = eqx.field(static=True, default=0, converter=_to_observation)
    nulls: int = eqx.field(static=True, default=100)
    seed: int = eqx.field(static=True, default=1)

    def __check_init__(self):
        check_count("LocalC2ST", "nulls", self.nulls)
        if isinstance(self.observation, int):
            check_count("LocalC2ST", "observation", self.observation, 0)

    def check(self, context):
        data, size = context.data, context.data.size(context.split)
        if not data.conditioning.parts:
            raise ValueError("LocalC2ST: the data have no condition; pass data with one, or the metric C2ST().")
        if isinstance(self.observation, int):
            if self.observation >= size:
                raise ValueError(
                    f"LocalC2ST: observation = {self.observation}, but the split {context.split!r} has {size} records; "
                    f"pass a number below {size}."
                )
        elif data.conditioning.parts != {"params": len(self.observation)}:
            raise ValueError(
                f"LocalC2ST: observation has {len(self.observation)} numbers, but a condition of the data is "
                f"{data.conditioning.parts}; pass the observed params, or the number of a record."
            )

    def columns(self, context, x, fields, key):
        (key_draws, key_levels), n = jr.split(key), len(x)
        observed = self._observed(context)
        both = {name: np.concatenate([values, np.repeat(observed[name], n, axis=0)]) for name, values in fields.items()}
        drawn = posterior_draws(context, 2 * n, both, 1, key_draws)[:, 0]
        return {
            "local_records": parameters(context, x, key_levels),
            "local_draws": drawn[:n],
            "local_conditions": conditions(context, n, fields),
            "local_observed_draws": drawn[n:],
        }

    def rows(self, context, columns):
        kept, note = self._known(columns)
        if len(kept["records"]) < _FEWEST:
            return [Row("local_c2st_p", float("nan"), note=f"it needs {_FEWEST} records or more{note}")]
        found = self._test(context, kept, self.nulls)
        null = f"{np.mean(found.null_statistics):.4f} of permuted labels, as of an exact model{note}"
        return [
            Row("local_c2st", found.statistic, note=f"mean of (probability - 1/2)^2 at the observation; {null}"),
            Row(
                "local_c2st_p",
                found.p_value,
                note=f"of {self.nulls} permutations, so {1 / (self.nulls + 1):.2g} at least",
            ),
        ]

    def figures(self, context, columns):
        kept, _ = self._known(columns)
        if len(kept["records"]) < _FEWEST:
            return {}
        probabilities = self._test(context, kept, 0).probabilities
        return {"local": plot.local(kept["observed_draws"], probabilities)}

    def _observed(self, context):
        if isinstance(self.observation, int):
            return context.data.rows(context.split, self.observation, self.observation + 1)[1]
        return {"params": np.asarray([self.observation], np.float32)}

    def _test(self, context, kept, nulls):
        observation = conditions(context, 1, self._observed(context))[0]
        return local_c2st(**kept, observation=observation, nulls=nulls, seed=self.seed)

    def _known(self, columns):
        """The columns whose draws are finite, and what is to be said of the others."""
        kept = {name: columns[f"local_{name}"] for name in ("records", "draws", "conditions", "observed_draws")}
        known = np.all(np.isfinite(np.concatenate([kept["draws"], kept["observed_draws"]], axis=1)), axis=1)
        left_out = np.sum(~known)
        said = f"; {left_out} of {len(known)} have draws that are not finite, and are left out" if left_out else ""
        return {name: values[known] for name, values in kept.items()}, said


@dataclasses.dataclass(frozen=True)
class LocalTest:
    """What `local_c2st` finds.

    Arguments:
        statistic: Mean of (probability - 1/2)^2 over the draws at the observation.
        p_value: Share of the statistics, itself among them, that are as large; nan without nulls.
        probabilities: Probability of each draw at the observation to be a record, (m,): above 1/2 where the model has
            too few draws, below where it has too many.
        null_statistics: Statistics of classifiers that were trained on permuted labels, (nulls,).

    Example:
        >>> theta, x, draws, observed_draws = np.random.default_rng(0).normal(size=(4, 30, 2))
        >>> found = local_c2st(theta, draws, x, observed_draws, np.asarray([0.3, 1.7]), nulls=0)
        >>> figure = sgm.plot.local(observed_draws, found.probabilities)
    """

    statistic: float
    p_value: float
    probabilities: Float[np.ndarray, " m"]
    null_statistics: Float[np.ndarray, " nulls"]


def local_c2st(
    records: Float[Array | np.ndarray, "n parameters"],
    draws: Float[Array | np.ndarray, "n parameters"],
    conditions: Float[Array | np.ndarray, "n condition"],
    observed_draws: Float[Array | np.ndarray, "m parameters"],
    observation: Float[Array | np.ndarray, " condition"],
    *,
    nulls: int = 100,
    seed: int = 1,
) -> LocalTest:
    """Test a model's draws at one observation against the posterior, of which no draw is known.

    A classifier is trained on pairs (theta, x) of the simulator against pairs of the same x with theta of the model. If
    the model is exact, theta and its draw can be exchanged, so that labels are permuted within each such pair.

    Arguments:
        records: Parameters theta, of which the simulator made x.
        draws: Draws of the model, one given each x.
        conditions: Each x.
        observed_draws: Draws of the model given the observation.
        observation: Observed x.
        nulls: Number of classifiers that are trained on permuted labels; 0 for no p-value.
        seed: Seed of the classifiers and of the permutations.

    Returns:
        The statistic, its p-value, and the probability at each draw.

    Raises:
        TypeError: for a number of nulls that is not whole.
        ValueError: for a negative number of nulls, arrays that do not belong together, fewer than 20 records, or
            entries that are not finite.

    Example:
        >>> theta, x, draws, observed_draws = np.random.default_rng(0).normal(size=(4, 30, 2))
        >>> found = local_c2st(theta, draws, x, observed_draws, np.asarray([0.3, 1.7]), nulls=10)
        >>> found.probabilities.shape, found.null_statistics.shape
        ((30,), (10,))

    Reference: Linhart, Gramfort and Rodrigues 2023 (arXiv:2306.03580).
    """
    check_count("local_c2st", "nulls", nulls, 0)
    tables = {"records": records, "draws": draws, "conditions": conditions, "observed_draws": observed_draws}
    records, draws, conditions, observed_draws = (to_table("local_c2st", *table) for table in tables.items())
    observation = np.asarray(observation)
    shapes = records.shape, draws.shape, observed_draws.shape
    if not (shapes[0] == shapes[1] and shapes[0][1:] == shapes[2][1:] and len(conditions) == len(records)):
        raise ValueError(
            f"local_c2st: records, draws and observed_draws have the shapes {shapes}, with {len(conditions)} "
            "conditions; pass a draw and a condition for each record, of as many parameters."
        )
    if observation.shape != conditions.shape[1:]:
        raise ValueError(
            f"local_c2st: observation has shape {observation.shape}, but a condition has {conditions.shape[1:]}; pass "
            "one of that shape."
        )
    if len(records) < _FEWEST:
        raise ValueError(f"local_c2st: there are {len(records)} records; pass {_FEWEST} or more.")
    observed = np.broadcast_to(observation, (len(observed_draws), len(observation)))
    sets = [np.concatenate(pair, axis=1) for pair in ((draws, conditions), (records, conditions))]
    asked = np.concatenate([observed_draws, observed], axis=1)
    for name, values in (("draws", sets[0]), ("records", sets[1]), ("observed_draws", asked)):
        check_finite("local_c2st", values, name)
    of = np.concatenate(sets)
    x, asked = z_scored(of, of), z_scored(asked, of)
    n, rng = len(records), np.random.default_rng(seed)

    def probabilities(swapped):
        classifier = mlp_classifier(x.shape[1], seed, alpha=_WEIGHT_DECAY, max_iter=1000)
        classifier.fit(x, np.concatenate([swapped, ~swapped]))
        return classifier.predict_proba(asked)[:, 1]

    own = probabilities(np.zeros(n, bool))
    statistic = float(np.mean((own - 0.5) ** 2))
    null = np.asarray([np.mean((probabilities(rng.random(n) < 0.5) - 0.5) ** 2) for _ in range(nulls)])
    p_value = float((1 + np.sum(null >= statistic)) / (1 + nulls)) if nulls else float("nan")
    return LocalTest(statistic, p_value, own, null)

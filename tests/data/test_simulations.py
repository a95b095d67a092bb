import json
from functools import partial

import jax
import jax.numpy as jnp
import jax.random as jr
import numpy as np
import pytest
from classes import forget

import sgm
from sgm.data import AbstractSimulator, Arrays, Simulations
from sgm.experiment import Experiment, differences
from sgm.flags import from_flags
from sgm.model import Gaussian, Uniform
from sgm.options import ExperimentError
from sgm.serial import from_json, to_json

MEAN, COV = jnp.asarray([3.0, -20.0]), jnp.asarray([[0.5, 1.0], [1.0, 4.0]])
MATRIX = jnp.asarray([[1.0, 0.0], [0.5, 0.1], [0.0, 2.0]])


def simulate(key, theta):
    return MATRIX @ theta + 0.3 * jr.normal(key, (3,))


LINEAR = Simulations(simulate, Gaussian(MEAN, COV))


def test_pairs_have_the_moments_of_the_joint_distribution():
    theta, fields = LINEAR.batch(0, 20_000, seed=1)
    joint = np.concatenate([theta, fields["params"]], axis=1)
    linear = np.concatenate([np.eye(2), MATRIX])
    cov = linear @ np.asarray(COV) @ linear.T + np.diag([0, 0, 0.09, 0.09, 0.09])
    std = np.sqrt(np.diag(cov))
    np.testing.assert_array_less(np.abs(joint.mean(0) - linear @ np.asarray(MEAN)), 5 * std / np.sqrt(len(joint)))
    np.testing.assert_array_less(np.abs(np.cov(joint.T) - cov), 5 * np.sqrt(2 / len(joint)) * np.outer(std, std))


def test_records_are_what_the_data_set_says():
    theta, fields = LINEAR.batch(3, 7, seed=0)
    assert theta.shape == (7, *LINEAR.shape) == (7, 2) and set(fields) == {"params"}
    assert fields["params"].shape == (7, LINEAR.conditioning.params) == (7, 3)
    assert theta.dtype == fields["params"].dtype == np.float32 and LINEAR.levels is None
    assert LINEAR.size("train") == LINEAR.size("test") == 10_000


def test_batches_are_functions_of_step_and_seed():
    first, again, *others = (LINEAR.batch(step, 16, seed) for step, seed in ((5, 2), (5, 2), (6, 2), (5, 3), (0, 0)))
    np.testing.assert_array_equal(first[0], again[0])
    np.testing.assert_array_equal(first[1]["params"], again[1]["params"])
    for theta, fields in others:
        assert not np.any(theta == first[0]) and not np.any(fields["params"] == first[1]["params"])


def test_splits_are_fixed_and_apart():
    train, test, again = (LINEAR.rows(split, 0, 50)[0] for split in ("train", "test", "test"))
    np.testing.assert_array_equal(test, again)
    assert not np.any(train == test)


def test_units_and_statistics_are_those_of_the_distribution():
    std = np.sqrt(np.diag(COV))
    np.testing.assert_array_less(np.abs(LINEAR.units.mean.value - MEAN), 5 * std / 100)
    np.testing.assert_allclose(LINEAR.units.std.value, std, rtol=0.05)
    mean, std = LINEAR.statistics()
    expected = np.sqrt(np.diag(MATRIX @ COV @ MATRIX.T) + 0.09)
    np.testing.assert_array_less(np.abs(mean - MATRIX @ MEAN), 5 * expected / 100)
    np.testing.assert_allclose(std, expected, rtol=0.05)
    assert mean.dtype == std.dtype == np.float32


def test_a_model_is_built_for_it():
    network = sgm.nn.MLP(LINEAR.shape, 8, 1, conditioning=LINEAR.conditioning, key=jr.key(0))
    model = sgm.ScoreModel(network, data=LINEAR)
    cond = sgm.Condition(params=jnp.ones(3))
    draw = lambda key: sgm.sample(sgm.VP(), model, key, 2, cond=cond, method=sgm.DDIM(2))  # noqa: E731
    assert jax.eval_shape(draw, jr.key(1)).shape == (2, 2)


def test_fixed_simulations_are_arrays_of_one_s_own():
    data = LINEAR.fixed(jr.key(4), 200)
    assert isinstance(data, Arrays) and (data.size("train"), data.size("test")) == (180, 20)
    assert data.shape == (2,) and data.conditioning == LINEAR.conditioning
    theta, fields = data.rows("train", 0, 180)
    residual = fields["params"] - theta @ np.asarray(MATRIX).T
    assert abs(residual.std() - 0.3) < 5 * 0.3 / np.sqrt(2 * residual.size)
    np.testing.assert_array_equal(theta, LINEAR.fixed(jr.key(4), 200).rows("train", 0, 180)[0])
    assert LINEAR.fixed(jr.key(4), 200, held_out=0.5).size("test") == 100
    own = Arrays(theta, params=fields["params"])
    assert own.conditioning == data.conditioning and own.shape == data.shape


def test_more_simulations_than_are_done_at_once_are_as_many():
    theta, fields = LINEAR.batch(0, 1500, seed=0)
    residual = fields["params"] - theta @ np.asarray(MATRIX).T
    assert len(np.unique(residual[:, 0])) > 1490 and abs(residual.std() - 0.3) < 0.02


def test_numbers_are_vectors_of_one_entry():
    class Unit:
        def sample(self, key, n):
            return jr.uniform(key, (n,))

    data = Simulations(lambda key, theta: theta[0] + jr.normal(key), Unit())
    theta, fields = data.batch(0, 5, seed=0)
    assert theta.shape == (5, 1) and data.shape == (1,)
    assert fields["params"].shape == (5, 1) and data.conditioning.params == 1


def test_a_simulation_that_is_not_finite_is_an_error_that_names_its_parameters():
    prior = Uniform(jnp.asarray([-1.0, 2.0]), jnp.asarray([1.0, 3.0]))
    data = Simulations(lambda key, theta: jnp.log(theta), prior)
    message = r"simulator gives x that is not finite in \d+ of 64 draws, the first with theta = \[-0\.\d+ +2\.\d+ *\]"
    with pytest.raises(ValueError, match=message + r" and x = \[ *nan"):
        data.batch(0, 64, seed=0)
    for call in (
        lambda: data.rows("train", 0, 100),
        data.statistics,
        lambda: data.units,
        lambda: data.fixed(jr.key(0), 90),
    ):
        with pytest.raises(ValueError, match="simulator gives x that is not finite"):
            call()


def test_an_observation_that_tells_nothing_is_refused():
    data = Simulations(lambda key, theta: jnp.stack([theta[0], jnp.asarray(2.0)]), Gaussian(MEAN, COV))
    with pytest.raises(ValueError, match=r"entry 1 of x is constant \(= 2\)"):
        data.statistics()


class Plain:
    """A prior by a function of key and number."""

    def __init__(self, sample):
        self.sample = sample


def drawn_by_numpy(n=2):
    return np.random.randn(n).astype(np.float32)  # noqa: NPY002


@jax.jit
def compiled(key, theta):
    return theta + jr.normal(key, (2,)) + drawn_by_numpy()


@pytest.mark.parametrize(
    "simulator",
    [
        lambda key, theta: theta + drawn_by_numpy(),
        lambda key, theta: theta + float(drawn_by_numpy(1)[0]),
        lambda key, theta: theta ** np.random.randint(10**6),  # noqa: NPY002
        lambda key, theta: jax.lax.fori_loop(0, 3, lambda _, x: x + drawn_by_numpy(), theta),
        lambda key, theta: jax.lax.cond(theta[0] > 0, lambda x: x + drawn_by_numpy(), lambda x: x, theta),
        compiled,
    ],
    ids=["array", "number", "power", "loop", "branch", "jit"],
)
def test_a_simulator_that_draws_by_numpy_is_refused(simulator):
    for _ in range(2):  # also where jax.jit keeps the function as it was traced before
        with pytest.raises(ValueError, match="the simulator draws other numbers when it is traced again, as np"):
            Simulations(simulator, Gaussian(MEAN, COV))


def test_a_prior_that_draws_by_numpy_is_refused():
    prior = Plain(lambda key, n: jnp.asarray(drawn_by_numpy(2 * n).reshape(n, 2)))
    with pytest.raises(ValueError, match=r"prior.sample draws other numbers when it is traced again, .* jax.random"):
        Simulations(lambda key, theta: theta + jr.normal(key, (2,)), prior)


def test_a_simulator_that_holds_numbers_keys_and_functions_is_not_refused():
    table, own = np.asarray([[0.5, np.nan], [2.0, 1.0]], np.float32), jr.key(7)

    def simulator(key, theta):
        x = jax.nn.relu(jnp.asarray(table)[1] * theta) + jr.normal(jr.fold_in(key, 3), (2,))
        called = jax.pure_callback(lambda theta: theta, jax.ShapeDtypeStruct((2,), jnp.float32), theta)
        return x + called + jr.normal(own, (2,))

    assert Simulations(simulator, Gaussian(MEAN, COV)).conditioning.params == 2


def test_a_simulator_for_another_shape_of_theta_is_told_the_shape():
    def walk(key, theta):
        return jax.lax.scan(lambda x, key: (x + theta + jr.normal(key), x), 0.0, jr.split(key, 10))[1]

    prior = Plain(lambda key, n: jr.uniform(key, (n,)))
    message = (
        r"Simulations: the simulator fails for theta of shape \(1,\) \(TypeError: scan .* with theta\[0\] for the num"
    )
    with pytest.raises(ValueError, match=message) as found:
        Simulations(walk, prior)
    assert isinstance(found.value.__cause__, TypeError) and "carry" in str(found.value.__cause__)
    assert Simulations(lambda key, theta: walk(key, theta[0]), prior).conditioning.params == 10


@pytest.mark.usefixtures("types_unchecked")
@pytest.mark.parametrize(
    ("simulator", "prior", "error", "message"),
    [
        (
            lambda key, theta: jnp.outer(theta, theta),
            Gaussian(MEAN, COV),
            ValueError,
            r"x of shape \(2, 2\); let it give",
        ),
        (
            lambda key, theta: np.sort(theta),
            Gaussian(MEAN, COV),
            TypeError,
            "no function of JAX; write it with jax.numpy",
        ),
        (
            lambda key, theta: theta[theta > 0],
            Gaussian(MEAN, COV),
            TypeError,
            "no function of JAX; write it with jax.numpy",
        ),
        (
            lambda key, theta: MATRIX.T @ theta,
            Gaussian(MEAN, COV),
            ValueError,
            r"the simulator fails for theta of shape \(2,\) \(TypeError: .*; let simulator\(key, theta\) take that\.$",
        ),
        (
            simulate,
            Plain(lambda key, n: jr.normal(key, (n, 2)) @ MATRIX),
            ValueError,
            r"prior.sample fails for n = 3 \(TypeError: .*; let sample\(key, n\) take that\.$",
        ),
        (
            lambda key, theta: (theta, theta),
            Gaussian(MEAN, COV),
            TypeError,
            r"what the simulator gives is a tuple; let it give one array, as jnp\.stack\(x\)",
        ),
        (simulate, Uniform, TypeError, "prior is the class Uniform"),
        (simulate, 3.0, TypeError, "prior = 3.0; pass an instance such as sgm.model.Uniform"),
        (None, Gaussian(MEAN, COV), TypeError, r"simulator = None; pass a function simulate\(key, theta\), or an ins"),
        (
            lambda theta: theta,
            Gaussian(MEAN, COV),
            TypeError,
            r"the simulator does not take its arguments \(too many positional arguments\); write it as simulator\(key",
        ),
        (
            simulate,
            Plain(lambda key: jr.normal(key, (2,))),
            TypeError,
            r"prior.sample does not take its arguments .* write it as sample\(key, n\)",
        ),
        (
            simulate,
            Plain(lambda key, n: jnp.full((n, 2), int(jr.key_data(key)[0]))),
            TypeError,
            "prior.sample looks at the values of what it is given, and so is no function of JAX",
        ),
        (
            simulate,
            Plain(lambda key, n: jr.normal(key, (2,))),
            ValueError,
            r"prior.sample\(key, 3\) gives theta of shape \(2,\); let it give n draws along the first axis",
        ),
    ],
)
def test_wrong_arguments_are_named(simulator, prior, error, message):
    with pytest.raises(error, match=message):
        Simulations(simulator, prior)


@pytest.fixture(scope="module")
def named():
    """A class of simulators that flags and files can name, which is there for these tests alone."""

    class Named(AbstractSimulator):
        """Noise around theta.

        Arguments:
            std: Standard deviation of the noise.
        """

        std: float = 0.5

        def __call__(self, key, theta):
            return theta + self.std * jr.normal(key, theta.shape)

    yield Named
    forget(Named)


def test_a_named_simulator_of_a_uniform_prior_comes_back_from_json(named):
    experiment = Experiment(Simulations(named(0.25), Uniform((0.0, -1.5), (0.1, 7.0))), partial(sgm.nn.MLP, width=8))
    written = json.loads(json.dumps(to_json(experiment)))
    assert written["data"]["simulator"] == {"type": "Named", "module": __name__, "std": 0.25}
    np.testing.assert_allclose(written["data"]["prior"]["high"], [0.1, 7.0], rtol=1e-7)
    again = from_json(written, Experiment)
    assert to_json(again) == written and not differences(experiment, again)
    np.testing.assert_array_equal(again.data.batch(1, 8, seed=2)[0], experiment.data.batch(1, 8, seed=2)[0])
    assert again.build()[1].shape == (2,)


def test_flags_name_a_simulator_and_the_ends_of_a_uniform_prior(named):
    flags = "--data Simulations --data.simulator Named --data.simulator.std 0.75 --data.prior Uniform"
    ends = "--data.prior.low 0 -1.5 --data.prior.high 0.1 7 --network MLP"
    data = from_flags(Experiment, [*flags.split(), *ends.split()]).data
    assert isinstance(data, Simulations) and data.simulator == named(0.75)
    np.testing.assert_array_equal(data.prior.low, np.float32([0, -1.5]))
    np.testing.assert_array_equal(data.prior.high, np.float32([0.1, 7]))
    changed = from_flags(Experiment, ["--data.prior.high", "2", "8"], Experiment(data, partial(sgm.nn.MLP))).data
    np.testing.assert_array_equal([changed.prior.low, changed.prior.high], np.float32([[0, -1.5], [2, 8]]))
    assert changed.simulator == named(0.75)


def test_what_cannot_be_written_is_named(named):
    for data, place in ((LINEAR, "simulator is a function"), (Simulations(named(), LINEAR.prior), "prior.mean is a")):
        with pytest.raises(ExperimentError, match=f"data.{place}"):
            to_json(Experiment(data, partial(sgm.nn.MLP)))


def test_a_simulator_may_have_loops():
    """A simulator may be any function of JAX, such as a solve."""

    def walk(key, theta):
        return jax.lax.scan(lambda x, key: (x + theta[0] + 0.01 * jr.normal(key), x), 0.0, jr.split(key, 10))[1]

    theta, fields = Simulations(walk, Uniform(jnp.zeros(1), jnp.ones(1))).batch(0, 4, seed=0)
    np.testing.assert_allclose(fields["params"][:, -1], 9 * theta[:, 0], atol=0.2)

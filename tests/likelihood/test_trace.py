from dataclasses import replace

import jax
import jax.numpy as jnp
import jax.random as jr
import numpy as np
import pytest
from truth import gaussian

import sgm

X = jr.normal(jr.key(0), (4, 6, 2))
MATRIX = jr.normal(jr.key(1), (X.size, X.size))
SYMMETRIC = (MATRIX + MATRIX.T) / 2
TRACES = {
    "Exact": sgm.Exact(),
    "signs": sgm.Hutchinson(4),
    "normal": sgm.Hutchinson(4, "normal"),
    "Probing": sgm.Probing((2, 3, 1), 3),
}
each_trace = pytest.mark.parametrize("trace", TRACES.values(), ids=TRACES.keys())


def field(x):
    return (MATRIX @ x.reshape(-1)).reshape(x.shape) + jnp.sin(x)


def estimate(trace, key):
    _, products = trace.along(lambda x: (MATRIX @ x.reshape(-1)).reshape(x.shape), X, trace.draw(key, X))
    return trace.combine(trace.estimates(products))


@each_trace
def test_products_with_the_jacobian(trace):
    drawn = trace.draw(jr.key(2), X)
    value, products = trace.along(field, X, drawn)
    np.testing.assert_allclose(value, field(X), rtol=1e-6)
    probes = jnp.stack([trace.probe(drawn, index, X).reshape(-1) for index in range(trace.products(X.shape))])
    jacobian = MATRIX + jnp.diag(jnp.cos(X).reshape(-1))
    np.testing.assert_allclose(products, jnp.einsum("pi,ij,pj->p", probes, jacobian, probes), rtol=1e-4, atol=1e-3)


@pytest.mark.parametrize("name", TRACES)
def test_chunks_change_nothing(name):
    trace = TRACES[name]
    options = {name: getattr(trace, name) for name in ("count", "distribution", "strides") if hasattr(trace, name)}
    drawn = trace.draw(jr.key(2), X)
    value, products = trace.along(field, X, drawn)
    for chunk in (1, 5, 7):
        chunked_value, chunked = type(trace)(**options, chunk=chunk).along(field, X, drawn)
        np.testing.assert_allclose(chunked_value, value, rtol=1e-6)
        np.testing.assert_allclose(chunked, products, rtol=1e-5, atol=1e-4)


@each_trace
def test_estimates_are_unbiased_and_their_errors_right(trace):
    values, stderrs, _ = jax.jit(jax.vmap(lambda key: estimate(trace, key)))(jr.split(jr.key(3), 4000))
    spread = float(values.std())
    assert abs(float(values.mean()) - float(jnp.trace(MATRIX))) <= 4 * spread / 4000**0.5 + 1e-4
    np.testing.assert_allclose(float(jnp.mean(stderrs**2)) ** 0.5, spread, rtol=0.06, atol=1e-4)


def test_variances_are_those_of_the_papers():
    off = SYMMETRIC - jnp.diag(jnp.diag(SYMMETRIC))
    index = np.stack(np.meshgrid(*map(np.arange, X.shape), indexing="ij"), -1).reshape(-1, 3) % (2, 3, 1)
    same = jnp.asarray((index[:, None] == index[None]).all(-1))
    expected = {
        "Exact": 0.0,
        "signs": 2 * jnp.sum(off**2) / 4,
        "normal": 2 * jnp.sum(SYMMETRIC**2) / 4,
        "Probing": 2 * jnp.sum(jnp.where(same, off, 0) ** 2) / 3,
    }
    for name, trace in TRACES.items():
        values = jax.jit(jax.vmap(lambda key, trace=trace: estimate(trace, key)[0]))(jr.split(jr.key(4), 4000))
        np.testing.assert_allclose(float(values.var()), float(expected[name]), rtol=0.12, atol=1e-6)


def test_probing_is_exact_where_strides_are_the_axes():
    value, stderr, dof = estimate(sgm.Probing(X.shape, 2), jr.key(5))
    np.testing.assert_allclose(value, jnp.trace(MATRIX), rtol=1e-5)
    assert float(stderr) < 1e-5 and float(dof) > 1


def test_a_single_probe_has_no_error_bar():
    value, stderr, _ = sgm.Hutchinson(1).combine(jnp.asarray([2.0]))
    assert float(value) == 2 and bool(jnp.isnan(stderr))


def test_small_spreads_have_degrees_of_freedom():
    trace = sgm.Probing((2,), 3)
    products = 1e-13 * jnp.asarray([1.0, 2.0, 1.5, 0.5, 0.7, 3.0])
    _, stderr, dof = trace.combine(products)
    _, large_stderr, large_dof = trace.combine(1e13 * products)
    np.testing.assert_allclose(dof, large_dof, rtol=1e-4)
    np.testing.assert_allclose(1e13 * stderr, large_stderr, rtol=1e-4)


@pytest.mark.slow_except("Hutchinson 8")
@pytest.mark.parametrize(
    "trace",
    [sgm.Hutchinson(2), sgm.Hutchinson(8), sgm.Hutchinson(16, "normal"), sgm.Probing((4,), 4)],
    ids=lambda trace: f"{type(trace).__name__} {trace.count}",
)
def test_intervals_cover_the_truth_as_often_as_they_say(trace):
    """On an exact Gaussian; 2% are four standard errors of the share of 2,000 intervals."""
    sde, model = sgm.VP(), gaussian(16)
    x = model.marginal(sde, sde.t0).sample(jr.key(6), 2000)
    truth = jax.vmap(model.marginal(sde, sde.t0).log_prob)(x)
    result = sgm.log_prob(sde, model, x, jr.key(7), trace=trace, prior=model.marginal(sde, sde.t1), full=True)
    low, high = result.interval(0.95)
    assert abs(np.mean((low <= truth) & (truth <= high)) - 0.95) < 0.02


@pytest.mark.parametrize(
    ("build", "message"),
    [
        (lambda: sgm.Hutchinson(0), "Hutchinson: count = 0; pass count >= 1"),
        (lambda: sgm.Exact(chunk=0), "Exact: chunk = 0; pass chunk >= 1"),
        (lambda: sgm.Probing((2, 0)), r"Probing: strides\[1\] = 0"),
        (
            lambda: sgm.log_prob(sgm.VP(), gaussian(2), jnp.ones(2), jr.key(0), trace=sgm.Probing((2, 2, 1))),
            r"Probing: strides = \(2, 2, 1\), but examples have the shape \(2,\); pass one stride an axis",
        ),
        (
            lambda: sgm.log_prob(sgm.VP(), gaussian(2), jnp.ones(2), trace=sgm.Probing((2,))),
            "log_prob: key is None, but Probing draws random probes; pass key=",
        ),
    ],
)
def test_wrong_options_are_named(build, message):
    with pytest.raises(ValueError, match=message):
        build()


@pytest.mark.usefixtures("types_unchecked")
def test_a_function_in_place_of_a_distribution_is_named():
    with pytest.raises(ValueError, match=r'Hutchinson: distribution is rademacher; pass the name "rademacher" or "no'):
        sgm.Hutchinson(4, jr.rademacher)  # type: ignore


def test_the_chunk_sets_the_memory_of_an_exact_trace():
    """At D = 3072: so much for each product, and nothing of the size of the Jacobian."""
    network = sgm.nn.MLP((32, 32, 3), 64, 1, key=jr.key(8))
    x = jnp.zeros((32, 32, 3))

    def memory(**options):
        trace = sgm.Exact(**options)
        program = jax.jit(lambda x: trace.along(lambda u: network(jnp.asarray(0.3), u), x, None)).lower(x).compile()
        return program.memory_analysis().temp_size_in_bytes

    few, default, many = memory(chunk=8), memory(), memory(chunk=512)
    np.testing.assert_allclose((many - default) / (512 - 2**18 // 3072), (many - few) / (512 - 8), rtol=0.1)
    assert many < 3072**2


@pytest.mark.slow
def test_a_batch_of_images_takes_no_more_memory_than_a_chunk():
    network = sgm.nn.UNet((32, 32, 3), 8, (1,), 1, key=jr.key(9))
    model = sgm.ScoreModel(network, shape=(32, 32, 3))

    def memory(batch):
        call = jax.jit(lambda x: sgm.log_prob(sgm.VP(), model, x, trace=sgm.Exact()))
        x = jnp.zeros((batch, 32, 32, 3))
        return call.lower(x).compile().memory_analysis().temp_size_in_bytes - 3 * x.nbytes

    assert memory(10) < 1.3 * memory(1)


@pytest.mark.slow
@pytest.mark.parametrize("trace", [sgm.Exact(chunk=6), sgm.Hutchinson(4, chunk=8)], ids=["Exact", "Hutchinson"])
def test_groups_change_nothing(trace):
    x = gaussian(3).sample(jr.key(10), 7)
    traces = replace(trace, chunk=99), trace
    alone, grouped = (sgm.log_prob(sgm.VP(), gaussian(3), x, jr.key(11), trace=each) for each in traces)
    assert trace.examples((3,)) == 2
    np.testing.assert_allclose(grouped, alone, rtol=1e-4, atol=1e-4)


@pytest.mark.usefixtures("types_unchecked")
@pytest.mark.parametrize(
    ("strides", "message"),
    [
        (2, r"Probing: strides = 2; pass one stride an axis, such as \(2, 2, 1\)"),
        ((2.5, 2), r"Probing: strides\[0\] = 2.5; pass a whole number"),
    ],
)
def test_strides_of_another_type_are_named(strides, message):
    with pytest.raises(TypeError, match=message):
        sgm.Probing(strides)

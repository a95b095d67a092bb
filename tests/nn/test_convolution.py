import itertools

import jax
import jax.numpy as jnp
import jax.random as jr
import numpy as np
import pytest
from jax.test_util import check_grads

from sgm.nn import convolution
from sgm.nn.convolution import Convolution, convolve

each_size = pytest.mark.parametrize("size", [1, 3])


def plain(x, kernel):
    """XLA's convolution, with its own derivatives."""
    return jax.lax.conv_general_dilated(x, kernel, (1, 1), "SAME", dimension_numbers=("NHWC", "HWIO", "NHWC"))


def by_definition(x, kernel, periodic):
    """y[p] = sum over offsets d of x[p + d] kernel[d], offset by offset."""
    axes, reach = tuple(range(1, x.ndim - 1)), kernel.shape[0] // 2
    widths = [(0, 0), *[(reach, reach)] * len(axes), (0, 0)]
    padded = x if periodic else jnp.pad(x, widths)
    total = 0
    for offsets in itertools.product(range(kernel.shape[0]), repeat=len(axes)):
        moved = jnp.roll(padded, [reach - offset for offset in offsets], axes)
        inner = moved if periodic else moved[tuple([slice(None), *[slice(reach, n + reach) for n in x.shape[1:-1]]])]
        total = total + inner @ kernel[offsets]
    return total


def operands(size, n=6):
    return jr.normal(jr.key(0), (n, 5, 4, 3)), jr.normal(jr.key(1), (size, size, 3, 2))


@each_size
@pytest.mark.parametrize("periodic", [False, True], ids=["zeros", "torus"])
@pytest.mark.parametrize("space", [(5,), (5, 4), (5, 4, 3)], ids=["signals", "images", "volumes"])
def test_value_and_gradients_of_every_rank_are_those_of_the_definition(size, periodic, space, float64):
    x = jr.normal(jr.key(0), (4, *space, 3))
    kernel = jr.normal(jr.key(1), (*[size] * len(space), 3, 2))

    def loss(x, kernel, function):
        return jnp.sum(jnp.sin(function(x, kernel, periodic)))

    compiled = jax.jit(jax.value_and_grad(loss, (0, 1)), static_argnums=2)
    both = [compiled(x, kernel, function) for function in (convolve, by_definition)]
    jax.tree.map(lambda ours, true: np.testing.assert_allclose(ours, true, rtol=1e-9, atol=1e-11), *both)


@pytest.mark.parametrize("periodic", [False, True], ids=["zeros", "torus"])
def test_volumes_by_slices_are_the_convolution_of_other_devices(periodic, float64):
    x, kernel = jr.normal(jr.key(0), (2, 5, 4, 3, 3)), jr.normal(jr.key(1), (3, 3, 3, 3, 2))
    how = {"periodic": periodic, "precision": None}
    np.testing.assert_allclose(convolution._by_slices(x, kernel, **how), convolution._by_xla(x, kernel, **how))


def test_convolution_is_the_sum_it_says():
    layer = Convolution(2, 3, key=jr.key(3))
    x = jr.normal(jr.key(4), (5, 6, 2))
    padded = jnp.pad(x, ((1, 1), (1, 1), (0, 0)))
    expected = jnp.einsum("ijc,ijco->o", padded[2:5, 3:6], layer.kernel)
    np.testing.assert_allclose(layer(x)[2, 3], expected, rtol=1e-5, atol=1e-6)
    pointwise = Convolution(2, 3, size=1, key=jr.key(3))
    np.testing.assert_allclose(pointwise(x), x @ pointwise.kernel[0, 0], rtol=1e-5, atol=1e-6)


def test_convolution_keeps_the_scale():
    x = jr.normal(jr.key(5), (32, 32, 64))
    assert float(Convolution(64, 64, key=jr.key(6))(x).std()) == pytest.approx(1, abs=0.1)


@pytest.mark.slow_except("*-hessian-3", "*-grad-1", "*-jacfwd-1")
@each_size
@pytest.mark.parametrize("differentiate", [jax.grad, jax.jacfwd, jax.hessian])
@pytest.mark.parametrize("argument", [0, 1])
def test_derivatives_are_those_of_the_plain_convolution(size, differentiate, argument, float64):
    x, kernel = operands(size, n=2)

    def derivative(function):
        # As networks call it: mapped over examples that share the kernel.
        one = lambda x, kernel: function(x[None], kernel)[0]  # noqa: E731
        total = lambda x, kernel: jnp.sum(jnp.sin(jax.vmap(one, (0, None))(x, kernel)))  # noqa: E731
        return jax.jit(differentiate(total, argument))

    np.testing.assert_allclose(derivative(convolve)(x, kernel), derivative(plain)(x, kernel), rtol=1e-9, atol=1e-12)


@each_size
def test_derivatives_of_both_orders_by_differences(size, float64):
    check_grads(jax.jit(convolve), operands(size), order=2)


@pytest.mark.slow_except("*-3")
@each_size
@pytest.mark.parametrize("share", [1, 2, 3, 6])
def test_the_kernels_gradient_is_the_same_in_any_chunks(size, share, float64, monkeypatch):
    x, kernel = operands(size)
    monkeypatch.setattr(convolution, "_CHUNK_BYTES", share * 5 * 4 * 3 * 4)
    gradient = jax.jit(jax.grad(lambda kernel, f: jnp.sum(jnp.sin(f(x, kernel)))), static_argnums=1)
    np.testing.assert_allclose(gradient(kernel, convolve), gradient(kernel, plain), rtol=1e-10)


@each_size
def test_many_kernels(size, float64):
    x, _ = operands(size)
    kernels = jr.normal(jr.key(2), (4, size, size, 3, 2))
    for axes in ((None, 0), (0, 0)):
        examples = x if axes[0] is None else jnp.stack([x, 2 * x, -x, x])

        def loss(kernels, function, axes=axes, x=examples):
            return jnp.sum(jnp.sin(jax.vmap(function, axes)(x, kernels)))

        compiled = jax.jit(jax.value_and_grad(loss), static_argnums=1)
        outputs = [compiled(kernels, function) for function in (convolve, plain)]
        np.testing.assert_allclose(outputs[0][0], outputs[1][0], rtol=1e-10)
        np.testing.assert_allclose(outputs[0][1], outputs[1][1], rtol=1e-9, atol=1e-12)


def test_the_gradient_keeps_the_precision_of_the_kernel():
    x, kernel = (operand.astype(jnp.bfloat16) for operand in operands(3))
    gradient = jax.jit(jax.grad(lambda kernel: jnp.sum(convolve(x, kernel))))(kernel)
    assert gradient.dtype == jnp.bfloat16
    exact = jax.grad(lambda kernel: jnp.sum(plain(x.astype(jnp.float32), kernel)))(kernel.astype(jnp.float32))
    np.testing.assert_allclose(gradient.astype(jnp.float32), exact, rtol=2e-2, atol=0.1)


def test_the_precision_of_the_context_holds_where_it_is_lowered_later():
    x, kernel = operands(3)

    def gradient(x, kernel):
        with jax.default_matmul_precision("highest"):
            return jax.grad(lambda x: jnp.sum(convolve(x, kernel) ** 2))(x)

    def lowered(function):
        return jax.jit(function).trace(x, kernel).lower(lowering_platforms=("cuda",)).as_text()

    assert lowered(gradient).count("HIGHEST") >= 2 * 2  # two convolutions, each with two operands
    assert "HIGHEST" not in lowered(convolve)


def test_even_kernels_have_no_middle():
    with pytest.raises(ValueError, match="convolve: the kernel has size 2; pass an odd one"):
        convolve(jnp.ones((1, 4, 4, 1)), jnp.ones((2, 2, 1, 1)))


def test_chunks_are_what_the_cache_holds():
    sizes = [
        convolution._chunk_size(n, share * convolution._CHUNK_BYTES) for n, share in ((16, 1 / 9), (16, 3), (6, 1 / 4))
    ]
    assert sizes == [8, 1, 3]


@pytest.mark.parametrize("devices", [2, 3, 4])
def test_a_kernel_gradient_of_groups_of_examples_is_that_of_all(devices, monkeypatch, float64):
    x, kernel = operands(3, n=6)  # four devices do not share six examples

    def gradient(function):
        return jax.jit(jax.grad(lambda kernel: jnp.sum(jnp.sin(function(x, kernel)))))(kernel)

    monkeypatch.setattr(jax, "device_count", lambda: devices)
    np.testing.assert_allclose(gradient(convolve), gradient(plain), rtol=1e-9)

import jax
import jax.numpy as jnp
import jax.random as jr
import numpy as np
import pytest
from jax.test_util import check_grads

from sgm.nn.product import product

KERNEL = jr.normal(jr.key(0), (3, 2))


@pytest.mark.parametrize("rows", [(), (4,), (5, 4)])
def test_a_product_is_that_of_the_last_axis(rows):
    x = jr.normal(jr.key(1), (*rows, 3))
    np.testing.assert_allclose(product(x, KERNEL), jnp.einsum("...i,io->...o", x, KERNEL), rtol=1e-6)


@pytest.mark.slow_except("*-hessian", "1-jacfwd")
@pytest.mark.parametrize("differentiate", [jax.grad, jax.jacfwd, jax.hessian])
@pytest.mark.parametrize("argument", [0, 1])
def test_derivatives_are_those_of_the_plain_product(differentiate, argument, float64):
    x, kernel = jr.normal(jr.key(1), (4, 3)), jr.normal(jr.key(0), (3, 2))

    def derivative(multiply):
        return jax.jit(differentiate(lambda *operands: jnp.sum(jnp.sin(multiply(*operands))), argument))(x, kernel)

    np.testing.assert_allclose(derivative(product), derivative(jnp.matmul), rtol=1e-12)
    check_grads(jax.jit(lambda *operands: product(*map(jnp.asarray, operands))), (x, kernel), order=2)


@pytest.mark.parametrize("axes", [(0, None), (1, None), (None, 0), (0, 0), (1, 2)])
def test_a_batch_of_either_operand_or_of_both(axes):
    x, kernel = jr.normal(jr.key(2), (6, 6, 3)), jr.normal(jr.key(3), (6, 3, 6))
    operands = [part if axis is not None else part[0] for part, axis in zip((x, kernel), axes, strict=True)]
    if axes[1] == 2:
        operands[1] = jnp.moveaxis(kernel, 0, 2)
    mapped = [jax.vmap(multiply, axes)(*operands) for multiply in (product, jnp.matmul)]
    np.testing.assert_allclose(*mapped, rtol=1e-5, atol=1e-6)


def test_examples_of_a_batch_are_rows_of_one_product():
    def loss(kernel, x):
        return jnp.sum(jax.vmap(lambda x: product(x, kernel))(x) ** 2)

    x = jnp.ones((5, 4, 3))
    shapes = {
        tuple(operand.aval.shape for operand in equation.invars)
        for equation in jax.make_jaxpr(jax.grad(loss))(KERNEL, x).eqns
        if equation.primitive.name in ("product", "dot_general")
    }
    assert shapes == {((20, 3), (3, 2)), ((3, 20), (20, 2))}


def test_a_product_is_as_precise_as_its_caller_asks():
    with jax.default_matmul_precision("highest"):
        equations = jax.make_jaxpr(product)(jnp.ones((4, 3)), KERNEL).eqns
    assert [e.params["precision"] for e in equations if e.primitive.name == "product"] == ["highest"]
    assert product(jnp.ones((4, 3), jnp.bfloat16), KERNEL.astype(jnp.bfloat16)).dtype == jnp.bfloat16

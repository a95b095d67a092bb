"""The product of features and a kernel that a whole batch shares, as a bilinear primitive.

    y[n] = sum over i of x[n, i] kernel[i]

Rows of all examples are one matrix, however often `jax.vmap` adds an axis to them. XLA's CPU backend finds the gradient
of a kernel from two such matrices at twice the speed at which it finds it from arrays of more axes.
"""

import functools

import jax
import jax.numpy as jnp
from jax.extend.core import Primitive
from jax.interpreters import ad, batching, mlir
from jaxtyping import Array, Float


def product(x: Float[Array, "*rows inputs"], kernel: Float[Array, "inputs outputs"]) -> Float[Array, "*rows outputs"]:
    """x @ kernel, of the same type."""
    # Read here: a primitive is lowered when the caller's context may have been left.
    precision = jax.config.jax_default_matmul_precision  # pyright: ignore[reportAttributeAccessIssue]
    y = _product_p.bind(x.reshape(-1, x.shape[-1]), kernel, precision=precision)
    return y.reshape(*x.shape[:-1], kernel.shape[-1])


def _gradient_of_x(dy, x, kernel, **how):
    return _product_p.bind(dy, kernel.T, **how)


def _gradient_of_kernel(dy, x, kernel, *, precision):
    return jnp.matmul(x.T, dy, precision=precision)


def _batched(operands, axes, **how):
    x, kernel = operands
    x_axis, kernel_axis = axes
    if kernel_axis is not None:
        return jax.vmap(functools.partial(jnp.matmul, **how), axes)(x, kernel), 0
    x = jnp.moveaxis(x, x_axis, 0)
    y = _product_p.bind(x.reshape(-1, x.shape[-1]), kernel, **how)
    return y.reshape(*x.shape[:-1], -1), 0


_product_p = Primitive("product")
_product_p.def_impl(jax.jit(jnp.matmul, static_argnames="precision"))
_product_p.def_abstract_eval(lambda x, kernel, **how: x.update(shape=(x.shape[0], kernel.shape[1])))
mlir.register_lowering(_product_p, mlir.lower_fun(jnp.matmul, multiple_results=False))
batching.primitive_batchers[_product_p] = _batched
ad.defbilinear(_product_p, _gradient_of_x, _gradient_of_kernel)

"""Convolutions of channels-last images, as a bilinear primitive whose gradients are fast on the CPU as well.

    y[p] = sum over offsets d of x[p + d] kernel[d]

XLA's CPU backend finds the gradient of a kernel, sum_p x[p + d]^T dy[p], by a convolution with a window as large as the
image: slow for large images and batches, and slower still inside loops, where the rearrangement that makes it bearable
is not made (https://github.com/jax-ml/jax/issues/12868). There it is found by products of matrices instead, a few
examples at a time, so that they stay in the processor's cache.
"""

import functools

import equinox as eqx
import jax
import jax.numpy as jnp
import jax.random as jr
from jax.extend.core import Primitive
from jax.interpreters import ad, batching, mlir
from jaxtyping import Array, Float, PRNGKeyArray

_CHUNK_BYTES = 2**20


class Convolution(eqx.Module):
    """A convolution with zero padding, of `size` x `size` pixels, 3 or 1.

    Channels-last in memory and in the kernel: inside a loop on the CPU the other layout is many times slower.
    """

    kernel: Float[Array, "size size inputs outputs"]
    bias: Float[Array, " outputs"]

    def __init__(self, inputs: int, outputs: int, size: int = 3, *, key: PRNGKeyArray):
        reach = (3 / (size**2 * inputs)) ** 0.5  # keeps the variance
        self.kernel = jr.uniform(key, (size, size, inputs, outputs), minval=-reach, maxval=reach)
        self.bias = jnp.zeros(outputs)

    def __call__(self, x: Float[Array, "height width inputs"]) -> Float[Array, "height width outputs"]:
        return convolve(x[None], self.kernel.astype(x.dtype))[0] + self.bias.astype(x.dtype)


def convolve(
    x: Float[Array, "n height width inputs"], kernel: Float[Array, "size size inputs outputs"]
) -> Float[Array, "n height width outputs"]:
    """The convolution of `n` images with a kernel of odd size, as large as they are: zeros lie outside."""
    if kernel.shape[0] % 2 == 0:
        raise ValueError(f"convolve: the kernel has size {kernel.shape[0]}; pass an odd one, which has a middle.")
    # Read here: a primitive is lowered when the caller's context may have been left.
    precision = jax.config.jax_default_matmul_precision  # pyright: ignore[reportAttributeAccessIssue]
    return _convolve_p.bind(x, kernel, precision=precision)


def _convolve(x, kernel, *, precision):
    if kernel.shape[0] == 1:
        return jnp.matmul(x, kernel[0, 0], precision=precision)
    return jax.lax.conv_general_dilated(
        x, kernel, (1, 1), "SAME", dimension_numbers=("NHWC", "HWIO", "NHWC"), precision=precision
    )


def _image_gradient(dy, x, kernel, *, precision):
    return _convolve_p.bind(dy, kernel[::-1, ::-1].swapaxes(2, 3), precision=precision)


def _kernel_gradient(dy, x, kernel, *, precision):
    def by_convolution(dy, x):
        transpose = jax.linear_transpose(lambda kernel: _convolve(x, kernel, precision=precision), kernel.aval)
        return transpose(dy)[0]

    def by_products(dy, x):
        return _sum_of_products(dy, x, kernel.aval.shape[0], precision).astype(kernel.aval.dtype)

    return jax.lax.platform_dependent(dy, x, cpu=by_products, default=by_convolution)


def _sum_of_products(dy, x, size, precision):
    n, height, width, inputs = x.shape
    count = _chunk_size(n, height * width * inputs * 4)
    pad = size // 2

    def of_chunk(chunk, total):
        # Every (n / count)-th example, so that a batch that is spread over devices stays where it is.
        x_chunk, dy_chunk = (
            jnp.asarray(part).reshape(count, n // count, *part.shape[1:])[:, chunk] for part in (x, dy)
        )
        flat = jnp.moveaxis(x_chunk, -1, 0).reshape(inputs, -1)
        padded = jnp.pad(dy_chunk, ((0, 0), (pad, pad), (pad, pad), (0, 0)))
        shifted = jnp.stack([padded[:, :, 2 * pad - j :][:, :, :width] for j in range(size)], axis=3)
        rows = [shifted[:, 2 * pad - i :][:, :height].reshape(flat.shape[1], -1) for i in range(size)]
        products = [jnp.matmul(flat, row, precision=precision, preferred_element_type=total.dtype) for row in rows]
        return total + jnp.stack(products)

    accumulator = jnp.float32 if x.dtype.itemsize < 4 else x.dtype
    total = jnp.zeros((size, inputs, size * dy.shape[-1]), accumulator)
    total = jax.lax.fori_loop(0, n // count, of_chunk, total)
    return total.reshape(size, inputs, size, -1).swapaxes(1, 2)


def _chunk_size(n, example_bytes):
    """How many of `n` examples are taken at a time: a divisor of n that the devices share and that the cache holds."""
    shared = [size for size in range(1, n + 1) if n % size == 0 and size % jax.local_device_count() == 0] or [n]
    return max((size for size in shared if size * example_bytes <= _CHUNK_BYTES), default=shared[0])


def _batched(operands, axes, *, precision):
    x, kernel = operands
    x_axis, kernel_axis = axes
    if kernel_axis is not None:
        return jax.vmap(functools.partial(_convolve, precision=precision), axes)(x, kernel), 0
    x = jnp.moveaxis(x, x_axis, 0)
    y = _convolve_p.bind(x.reshape(-1, *x.shape[2:]), kernel, precision=precision)
    return y.reshape(*x.shape[:-1], -1), 0


_convolve_p = Primitive("convolve")
_convolve_p.def_impl(jax.jit(_convolve, static_argnames="precision"))
_convolve_p.def_abstract_eval(lambda x, kernel, *, precision: x.update(shape=(*x.shape[:-1], kernel.shape[-1])))
mlir.register_lowering(_convolve_p, mlir.lower_fun(_convolve, multiple_results=False))
batching.primitive_batchers[_convolve_p] = _batched
ad.defbilinear(_convolve_p, _image_gradient, _kernel_gradient)

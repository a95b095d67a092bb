"""Convolutions of channels-last signals, images and volumes, as a bilinear primitive that is fast on the CPU as well.

    y[p] = sum over offsets d of x[p + d] kernel[d]

XLA's CPU backend finds the gradient of a kernel, sum_p x[p + d]^T dy[p], by a convolution with a window as large as the
image: slow for large images and batches, and slower still inside loops, where the rearrangement that makes it bearable
is not made (https://github.com/jax-ml/jax/issues/12868). There it is found by products of matrices instead, a few
examples at a time, so that they stay in the processor's cache.

Its convolution of volumes runs at less than half of the speed of its convolution of images. There a convolution of
volumes is a sum of convolutions of their slices.
"""

import functools
import math

import equinox as eqx
import jax
import jax.numpy as jnp
from jax.extend.core import Primitive
from jax.interpreters import ad, batching, mlir
from jaxtyping import Array, Float, PRNGKeyArray

from sgm.nn.product import product
from sgm.random import initial

_CHUNK_BYTES = 2**19
_SPACE = {1: "H", 2: "HW", 3: "DHW"}


class Convolution(eqx.Module):
    """A convolution of `size` entries a side, 3 or 1, over one, two or three axes of space.

    Zeros lie outside, or with `periodic` the other side. Channels-last in memory and in the kernel: inside a loop on
    the CPU the other layout is many times slower.
    """

    kernel: Float[Array, "*sizes inputs outputs"]
    bias: Float[Array, " outputs"]
    periodic: bool = eqx.field(static=True)

    def __init__(
        self, inputs: int, outputs: int, size: int = 3, *, rank: int = 2, periodic: bool = False, key: PRNGKeyArray
    ):
        reach = (3 / (size**rank * inputs)) ** 0.5  # keeps the variance
        self.kernel = initial(key, (*[size] * rank, inputs, outputs), reach)
        self.bias = jnp.zeros(outputs)
        self.periodic = periodic

    def __call__(self, x: Float[Array, "*space inputs"]) -> Float[Array, "*space outputs"]:
        return convolve(x[None], self.kernel.astype(x.dtype), self.periodic)[0] + self.bias.astype(x.dtype)


def convolve(
    x: Float[Array, "n *space inputs"], kernel: Float[Array, "*sizes inputs outputs"], periodic: bool = False
) -> Float[Array, "n *space outputs"]:
    """The convolution of `n` arrays with a kernel of odd size, as large as they are.

    Arguments:
        x: Signals, images or volumes.
        kernel: Kernel of as many axes, of the same odd size along each.
        periodic: Whether the other side lies outside, in place of zeros.
    """
    if kernel.shape[0] % 2 == 0:
        raise ValueError(f"convolve: the kernel has size {kernel.shape[0]}; pass an odd one, which has a middle.")
    if kernel.shape[0] == 1:
        return product(x, kernel.reshape(kernel.shape[-2:]))
    # Read here: a primitive is lowered when the caller's context may have been left.
    precision = jax.config.jax_default_matmul_precision  # pyright: ignore[reportAttributeAccessIssue]
    return _convolve_p.bind(x, kernel, periodic=periodic, precision=precision)


def _convolve(x, kernel, *, periodic, precision):
    rank = x.ndim - 2
    plain = functools.partial(_by_xla, periodic=periodic, precision=precision)
    if rank < 3:
        return plain(x, kernel)
    slices = functools.partial(_by_slices, periodic=periodic, precision=precision)
    return jax.lax.platform_dependent(x, kernel, cpu=slices, default=plain)


def _by_xla(x, kernel, *, periodic, precision):
    rank, pad = x.ndim - 2, kernel.shape[0] // 2
    space = _SPACE[rank]
    return jax.lax.conv_general_dilated(
        _padded(x, pad, range(1, 1 + rank), periodic) if periodic else x,
        kernel,
        (1,) * rank,
        "VALID" if periodic else "SAME",
        dimension_numbers=(f"N{space}C", f"{space}IO", f"N{space}C"),
        precision=precision,
    )


def _by_slices(x, kernel, *, periodic, precision):
    n, depth, *slice_shape = x.shape
    padded = _padded(x, kernel.shape[0] // 2, (1,), periodic)

    def of_offset(start, kernel):
        slices = padded[:, start : start + depth].reshape(n * depth, *slice_shape)
        return _by_xla(slices, kernel, periodic=periodic, precision=precision)

    total = sum(of_offset(start, of_slices) for start, of_slices in enumerate(kernel))
    return jnp.asarray(total).reshape(*x.shape[:-1], kernel.shape[-1])


def _padded(x, pad, axes, periodic):
    widths = [(pad, pad) if axis in axes else (0, 0) for axis in range(x.ndim)]
    return jnp.pad(x, widths, mode="wrap" if periodic else "constant")


def _gradient_of_x(dy, x, kernel, **how):
    rank = kernel.ndim - 2
    return _convolve_p.bind(dy, jnp.flip(kernel, range(rank)).swapaxes(-2, -1), **how)


def _gradient_of_kernel(dy, x, kernel, *, periodic, precision):
    def by_convolution(dy, x):
        def of_kernel(kernel):
            return _by_xla(x, kernel, periodic=periodic, precision=precision)

        return jax.linear_transpose(of_kernel, kernel.aval)(dy)[0]

    def by_products(dy, x):
        # Each device adds up its own examples, and then all of them once: a sum in a loop would be sent at every turn.
        groups = jax.device_count() if len(x) % jax.device_count() == 0 else 1
        dy, x = (part.reshape(groups, -1, *part.shape[1:]) for part in (dy, x))
        of_group = functools.partial(
            _sum_of_products, size=kernel.aval.shape[0], periodic=periodic, precision=precision
        )
        total = jnp.sum(jax.vmap(of_group)(dy, x), axis=0) if groups > 1 else of_group(dy[0], x[0])
        return total.astype(kernel.aval.dtype)

    return jax.lax.platform_dependent(dy, x, cpu=by_products, default=by_convolution)


def _sum_of_products(dy, x, size, periodic, precision):
    """The kernel's gradient, sum_p x[p + d]^T dy[p].

    Offsets d along the last axis move dy, those along the axis before it move x: one product has all of both, and few
    copies are made. Offsets along a third axis have products of their own.
    """
    n, *space, inputs = x.shape
    rank, pad = len(space), size // 2
    count = _chunk_size(n, math.prod(space) * inputs * 4)

    def moved(part, axis, back=False):
        """The part as each offset along an axis reads it, or with `back`, as each is read."""
        padded, length = _padded(part, pad, (axis,), periodic), part.shape[axis]
        starts = range(2 * pad, -1, -1) if back else range(size)
        return [jax.lax.slice_in_dim(padded, start, start + length, axis=axis) for start in starts]

    def of_chunk(total, chunk):
        x_chunk, dy_chunk = chunk
        left = jnp.moveaxis(x_chunk, -1, 0)
        if rank > 1:
            left = jnp.concatenate(moved(left, rank), axis=0)
        left = left.reshape(len(left), -1)
        right = jnp.concatenate(moved(dy_chunk, rank, back=True), axis=-1)
        slices = moved(right, 1, back=True) if rank > 2 else [right]
        products = [
            jnp.matmul(left, part.reshape(left.shape[1], -1), precision=precision, preferred_element_type=total.dtype)
            for part in slices
        ]
        return total + jnp.stack(products), None

    accumulator = jnp.float32 if x.dtype.itemsize < 4 else x.dtype
    rows, slices = (size if rank > axes else 1 for axes in (1, 2))
    total = jnp.zeros((slices, rows * inputs, size * dy.shape[-1]), accumulator)
    chunks = tuple(part.reshape(-1, count, *part.shape[1:]) for part in (x, dy))
    total, _ = jax.lax.scan(of_chunk, total, chunks)
    apart = total.reshape(slices, rows, inputs, size, -1).swapaxes(2, 3)
    return apart.reshape(*[size] * rank, inputs, -1)


def _chunk_size(n, example_bytes):
    """How many of `n` examples are taken at a time: the largest divisor of n that the cache holds, or 1."""
    return max((size for size in range(1, n + 1) if n % size == 0 and size * example_bytes <= _CHUNK_BYTES), default=1)


def _batched(operands, axes, **how):
    x, kernel = operands
    x_axis, kernel_axis = axes
    if kernel_axis is not None:
        return jax.vmap(functools.partial(_convolve, **how), axes)(x, kernel), 0
    x = jnp.moveaxis(x, x_axis, 0)
    y = _convolve_p.bind(x.reshape(-1, *x.shape[2:]), kernel, **how)
    return y.reshape(*x.shape[:-1], -1), 0


_convolve_p = Primitive("convolve")
_convolve_p.def_impl(jax.jit(_convolve, static_argnames=("periodic", "precision")))
_convolve_p.def_abstract_eval(lambda x, kernel, **how: x.update(shape=(*x.shape[:-1], kernel.shape[-1])))
mlir.register_lowering(_convolve_p, mlir.lower_fun(_convolve, multiple_results=False))
batching.primitive_batchers[_convolve_p] = _batched
ad.defbilinear(_convolve_p, _gradient_of_x, _gradient_of_kernel)

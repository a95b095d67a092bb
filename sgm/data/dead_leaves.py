"""Dead leaves: opaque discs of all sizes that hide one another, as objects in natural images do.

Notation: lengths are in pixels, and pixels are points, at the integers 0 ... N - 1 (N = `resolution`) along both axes.
n leaves fall one after another, each hiding what lies below it. They are independent: their radius r, their centre,
uniform on the square of side N - 1 + 2 r_max about the image, so that none which reaches a pixel is left out, and their
grey level g,

    p(r) = 2 r^-3 / (r_min^-2 - r_max^-2) on [r_min, r_max]        g uniform on [-a, a], a = sqrt(3 (1 - noise^2))

The density r^-3 is that of scale invariance: the leaves of every octave of radii take an equal share of the image. A
pixel shows the uppermost leaf, with noise of its own; its mean is 0 and its variance 1. Two pixels at distance d show
the same leaf with probability P(d), where gamma_r(d) is the area a disc of radius r shares with itself shifted by d:

    P(d) = E[gamma_r(d)] / E[2 pi r^2 - gamma_r(d)]        Cov[x, x'] = (1 - noise^2) P(d)

Reference: Lee, Mumford and Huang 2001, "Occlusion models for natural images"; for P, Pitkow 2010, "Exact feature
    probabilities in images with occlusion".
"""

import dataclasses
import math

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, PRNGKeyArray

from sgm.data.simulated import AbstractSimulated
from sgm.random import normal

# The pixels of an image that no leaf covers, on average: of the 10,000 images of a split, 10 at most are to have one.
_BARE = 1e-3

# Images drawn at a time. More are no faster, and the leaves of a whole split would fill the memory.
_CHUNK = 64


@dataclasses.dataclass(frozen=True)
class DeadLeaves(AbstractSimulated):
    """Images of dead leaves, real numbers of mean 0 and variance 1.

    Without noise the pixels of a leaf are equal, so that the images have no density and no likelihood means anything:
    `noise` is there to give them one. No model then has an expected log p(x) above that of the noise alone,
    -1/2 log2(2 pi e noise^2) bits a pixel, by default 2.27. The truth lies below it, by the information in the leaves,
    and is not known.

    On the same scale white noise has -2.05 bits a pixel. For dead leaves of Theis et al. (2012), Sohl-Dickstein et al.
    (2015, arXiv:1503.03585) report 1.244 with the authors' own model and at least 1.489 with the first diffusion model
    (tables 2 and 1; by the readme of their code, the last column of table 1 is the improvement over N(0, I)). Such
    numbers depend on the noise and the radii, which are not given there: compare none with them.

    Arguments:
        resolution: Pixels a side.
        r_min: Smallest radius of a leaf, in pixels.
        r_max: Largest radius of a leaf, in pixels. An image takes about (resolution + 2 r_max)^2 / r_min^2 leaves.
        noise: Standard deviation of the noise of a pixel, at least 0 and less than 1, that of the pixel.

    Raises:
        ValueError: for a setting out of range.

    Example:
        >>> data = DeadLeaves(resolution=16, r_max=8)
        >>> x, _ = data.batch(0, 32, seed=0)
        >>> x.shape
        (32, 16, 16, 1)
    """

    resolution: int = 32
    r_min: float = 2.0
    r_max: float = 16.0
    noise: float = 0.05

    def __post_init__(self):
        if self.resolution < 1:
            raise ValueError(f"resolution is {self.resolution}: images need at least 1 pixel a side")
        if not 0 < self.r_min < self.r_max < math.inf:
            raise ValueError(f"radii are {self.r_min} to {self.r_max}: give a positive r_min and a larger r_max")
        if not 0 <= self.noise < 1:
            raise ValueError(f"noise is {self.noise}: give at least 0 and less than 1, the standard deviation of x")

    @property
    def shape(self) -> tuple[int, ...]:
        return self.resolution, self.resolution, 1

    @property
    def coverage(self) -> float:
        """The probability that a leaf covers a given pixel, whichever: pi E[r^2] / (N - 1 + 2 r_max)^2.

        E[r^2] = 2 log(r_max / r_min) / (r_min^-2 - r_max^-2).
        """
        mean_square = 2 * math.log(self.r_max / self.r_min) / (self.r_min**-2 - self.r_max**-2)
        return math.pi * mean_square / self._side**2

    @property
    def leaves(self) -> int:
        """n, the least number of leaves with N^2 (1 - coverage)^n <= 1/1000.

        That is the mean number of bare pixels in an image. They show the ground, whose grey level has the law of a
        leaf's: the law of a pixel is the same as ever, and P(d) is raised by less than 1/1000 / N^2.
        """
        return math.ceil(math.log(_BARE / self.resolution**2) / math.log1p(-self.coverage))

    def radius(self, u: Float[Array, "*batch"]) -> Float[Array, "*batch"]:
        """The radius below which a share u of all radii lies: r^-2 = (1 - u) r_min^-2 + u r_max^-2."""
        return ((1 - u) * self.r_min**-2 + u * self.r_max**-2) ** -0.5

    def draw(self, key: PRNGKeyArray) -> Float[Array, "resolution resolution 1"]:
        """An image, float32."""
        key_radius, key_centre, key_grey, key_noise = jax.random.split(key, 4)
        n, reach = self.leaves, math.sqrt(3 * (1 - self.noise**2))
        radii = self.radius(jax.random.uniform(key_radius, (n,), jnp.float32))
        centres = jax.random.uniform(key_centre, (n, 2), jnp.float32, -self.r_max, self._side - self.r_max)
        greys = jax.random.uniform(key_grey, (n + 1,), jnp.float32, -reach, reach)
        place = jnp.arange(self.resolution, dtype=jnp.float32)

        def fall(image, leaf):
            (row, column), radius, grey = leaf
            covered = (place[:, None] - row) ** 2 + (place - column) ** 2 <= radius**2
            return jnp.where(covered, grey, image), None

        ground = jnp.full(self.shape[:2], greys[n])
        image, _ = jax.lax.scan(fall, ground, (centres, radii, greys[:n]))
        return image[..., None] + self.noise * normal(key_noise, self.shape, jnp.float32)

    def simulate(self, key: PRNGKeyArray, n: int) -> tuple[Float[Array, "n resolution resolution 1"], dict[str, Array]]:
        return jax.lax.map(self.draw, jax.random.split(key, n), batch_size=_CHUNK), {}

    @property
    def _side(self) -> float:
        return self.resolution - 1 + 2 * self.r_max

"""How examples are drawn, by their shape."""

from collections.abc import Mapping

from sgm.plot.base import SHOWN, Batch, Figure
from sgm.plot.images import image_grid, signal_grid
from sgm.plot.plane import points
from sgm.plot.tables import corner


def is_of_the_plane(shape: tuple[int, ...]) -> bool:
    """Whether examples of a shape are points of the plane.

    Arguments:
        shape: Shape of one example.

    Returns:
        True of the shape (2,).

    Example:
        >>> is_of_the_plane(sgm.data.Moons().shape), is_of_the_plane((28, 28, 1))
        (True, False)
    """
    return shape == (2,)


def manner(shape: tuple[int, ...]) -> str | None:
    """Say how `examples` draws examples of a shape, where that does not go without saying.

    Points of the plane and images of 1 or 3 channels go without saying.

    Arguments:
        shape: Shape of one example.

    Returns:
        The manner in words, or None where it goes without saying.

    Example:
        >>> manner((64, 12))
        'lines, a colour for each of the first 8 of 12 channels'
    """
    many = shape[-1] if shape else 0
    shown = f"the first {SHOWN} of {many}" if many > SHOWN else "the"
    if is_of_the_plane(shape) or (len(shape) == 3 and many in (1, 3)):
        return None
    if len(shape) == 1:
        return f"a corner plot of {shown} columns; paths are left out"
    if len(shape) == 2:
        return f"lines, a colour for each of {shown} channels"
    if len(shape) == 3:
        return "RGB and alpha, on white" if many == 4 else f"{shown} channels side by side, in grey"
    if len(shape) == 4:
        return "the slice in the middle of each volume"
    return f"none, for examples of shape {shape}: tables, signals (length, channels), images and volumes are drawn"


def middle_slices(x: Batch) -> Batch:
    """The slice in the middle of each volume, across its first axis, as an image.

    Arguments:
        x: Volumes, (*batch, depth, height, width, channels).

    Returns:
        Images, (*batch, height, width, channels).

    Example:
        >>> volumes, _ = sgm.data.GaussianVolume(8).batch(0, 4, seed=0)
        >>> middle_slices(volumes).shape  # for `image_grid`
        (4, 8, 8, 1)
    """
    return x[..., x.shape[-4] // 2, :, :, :]


def examples(panels: Mapping[str, Batch]) -> Figure:
    """Draw batches of examples under their titles, in the manner of their shape.

    Arguments:
        panels: Batches of one shape by their titles: tables (n, columns), of any number of titles; signals (n, length,
            channels), or images (n, height, width, channels) or volumes (n, depth, height, width, channels) with
            entries in [-1, 1], of one title. Of volumes the slices in the middle are drawn.

    Returns:
        The figure.

    Raises:
        ValueError: for other shapes.

    Example:
        >>> table = np.random.default_rng(0).normal(size=(2, 200, 3))
        >>> figure = sgm.plot.examples({"data": table[0], "draws": table[1]})  # a corner plot
        >>> figure = sgm.plot.examples({"maps": np.zeros((9, 16, 16, 1))})  # a grid of images
    """
    (title, x), *others = panels.items()
    if x.ndim == 2:
        return points(panels) if x.shape[-1] == 2 else corner(panels)
    if x.ndim not in (3, 4, 5) or others:
        shapes = ", ".join(str(batch.shape) for batch in panels.values())
        raise ValueError(
            f"examples: the panels have shapes {shapes}; pass tables (n, columns), or one batch of signals (n, length, "
            "channels), images (n, height, width, channels) or volumes (n, depth, height, width, channels)."
        )
    if x.ndim == 3:
        return signal_grid(x, title)
    return image_grid(middle_slices(x) if x.ndim == 5 else x, title)

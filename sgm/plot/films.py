"""Films: figures that follow one another."""

import io
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

import numpy as np

from sgm.parallel.processes import is_first
from sgm.plot.base import Batch, Figure, axes_in_a_row, check_batch
from sgm.plot.plane import framed
from sgm.plot.shapes import examples

_DPI, _COLOURS, _FEWEST_COLOURS = 56, 16, 4
_LARGEST = 1_000_000  # bytes
_SECONDS, _LAST_SECONDS = 0.1, 2.0


def save_film(figures: Iterable[Figure], path: str | Path) -> None:
    """Write figures as an animated GIF, the last of which stays for two seconds. Of several processes, the first does.

    A film has less than 1 MB: it has 16 colours, or 8, or 4, and then every second frame alone, or every fourth, and
    so on.

    Arguments:
        figures: Figures of one size, of which one at a time is kept.
        path: File.

    Example:
        >>> paths = np.random.default_rng(0).normal(size=(50, 3, 2)).cumsum(axis=1)
        >>> sgm.plot.save_film(growing_trajectories(paths), "flow.gif")
    """
    if not is_first():
        return
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from PIL import Image

    images = []
    for figure in figures:
        figure.set_dpi(_DPI)
        canvas = FigureCanvasAgg(figure)
        canvas.draw()
        images.append(Image.fromarray(np.asarray(canvas.buffer_rgba())[..., :3]))
    colours, stride = _COLOURS, 1
    while len(encoded := _encoded(images, colours, stride)) >= _LARGEST and stride < len(images):
        colours, stride = (colours // 2, stride) if colours > _FEWEST_COLOURS else (colours, 2 * stride)
    Path(path).write_bytes(encoded)


def _encoded(images: list[Any], colours: int, stride: int) -> bytes:
    """The bytes of a GIF of every image at a multiple of `stride` from the last, its pixels of the nearest colours."""
    first, *others = (image.quantize(colours, dither=0) for image in images[::-1][::stride][::-1])
    milliseconds = [round(1000 * stride * _SECONDS)] * len(others) + [round(1000 * _LAST_SECONDS)]
    file = io.BytesIO()
    first.save(file, format="GIF", save_all=True, append_images=others, duration=milliseconds, loop=0)
    return file.getvalue()


def film(frames: Batch, title: str = "") -> Iterator[Figure]:
    """Draw the frames of examples, all on one scale; of images and volumes, noise on its own.

    Arguments:
        frames: Frames (n, times, *shape) of points in the plane, signals, images or volumes, these with entries in
            [-1, 1].
        title: Title of the figures.

    Returns:
        A figure for each time.

    Raises:
        ValueError: for other shapes.

    Example:
        >>> noise = jr.normal(jr.key(3), x.shape)
        >>> frames = jnp.stack([sde.alpha(t) * x + sde.sigma(t) * noise for t in (1.0, 0.5, 0.2, 0.01)], axis=1)
        >>> len(list(sgm.plot.film(frames, "from noise to data")))  # figures, for `save_film`
        4
    """
    frames = np.asarray(frames, np.float32)
    if frames.ndim == 3:
        check_batch("film", "frames", frames, "times, 2", "path")
        return _clouds(frames, title)
    if frames.ndim == 4:
        return (examples({title: frame}) for frame in np.swapaxes(frames / np.nanmax(np.abs(frames)), 0, 1))
    reach = np.maximum(np.quantile(np.abs(frames), 0.9, axis=tuple(range(2, frames.ndim)), keepdims=True), 1)
    return (examples({title: frame}) for frame in np.swapaxes(frames / reach, 0, 1))


def growing_trajectories(paths: Batch, title: str = "probability flow") -> Iterator[Figure]:
    """Draw paths in the plane up to each of their times.

    Arguments:
        paths: Paths (n, times, 2).
        title: Title of the figures.

    Returns:
        A figure for each time.

    Raises:
        ValueError: for other shapes, as one path alone.

    Example:
        >>> paths = np.random.default_rng(0).normal(size=(50, 8, 2)).cumsum(axis=1)
        >>> len(list(growing_trajectories(paths, "a random walk")))
        8
    """
    check_batch("growing_trajectories", "paths", paths, "times, 2", "path")
    return _clouds(np.asarray(paths, np.float32), title, with_paths=True)


def _clouds(frames: Any, title: str, with_paths: bool = False) -> Iterator[Figure]:
    # A few points of noise lie beyond, which would make the others small.
    reach = 1.3 * float(np.nanquantile(np.abs(frames), 0.99))
    for time in range(frames.shape[1]):
        figure, axes = axes_in_a_row(1, (4, 4))
        if with_paths:
            axes[0].plot(*np.moveaxis(frames[:, : time + 1], -1, 0).swapaxes(1, 2), color="0.75", linewidth=0.4)
        axes[0].scatter(*frames[:, time].T, s=4, linewidths=0, color="C0", zorder=3)
        framed(axes[0], reach, title)
        axes[0].set_axis_off()
        yield figure

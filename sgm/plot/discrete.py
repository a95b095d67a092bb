"""Figures of examples of categories."""

from collections.abc import Mapping, Sequence

import numpy as np
from jaxtyping import Float

from sgm.plot.base import Figure, axes_in_a_row


def rows(panels: Mapping[str, Float[np.ndarray, "n places"]], place: str) -> Figure:
    """Draw examples one below the other, a pixel an entry, from white, the least entry, to black.

    Arguments:
        panels: Examples along the first axis, by their titles, which stand side by side.
        place: Name of the second axis.

    Returns:
        The figure.

    Example:
        >>> examples = sgm.data.Heartbeat(20, 5).examples.reshape(-1, 20)
        >>> figure = sgm.plot.rows({"data": np.asarray(examples, np.float32)}, place="bit")
    """
    tallest, widest = (max(x.shape[axis] for x in panels.values()) for axis in (0, 1))
    figure, axes = axes_in_a_row(len(panels), (len(panels) * max(2.0, 0.12 * widest), max(2.0, 0.12 * tallest)))
    for axis, (title, x) in zip(axes, panels.items(), strict=True):
        axis.imshow(x, cmap="gray_r", interpolation="nearest")
        axis.set(title=title, xlabel=place, yticks=[])
    return figure


def strings(panels: Mapping[str, Sequence[str]]) -> Figure:
    """Draw lines of text under their titles, which stand side by side.

    Arguments:
        panels: Lines by their titles.

    Returns:
        The figure.

    Example:
        >>> data = sgm.data.Letters(16)
        >>> figure = sgm.plot.strings({"data": data.text(data.batch(0, 8, seed=0)[0])})
    """
    tallest, widest = (max(map(measure, panels.values())) for measure in (len, lambda lines: max(map(len, lines))))
    figure, axes = axes_in_a_row(len(panels), (len(panels) * (0.085 * widest + 0.6), 0.16 * tallest + 0.6))
    for axis, (title, lines) in zip(axes, panels.items(), strict=True):
        axis.text(0, 1, "\n".join(lines), family="monospace", fontsize=8, va="top", transform=axis.transAxes)
        axis.set_title(title, fontsize=9)
        axis.set_axis_off()
    return figure

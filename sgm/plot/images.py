"""Figures of images and of signals."""

import math

import jax
import numpy as np
from einops import rearrange

from sgm.plot.base import SHOWN, Batch, Figure, axes_in_a_row, check_batch


def image_grid(images: Batch, title: str = "") -> Figure:
    """Draw images in rows and columns, as near to a square as they go.

    Arguments:
        images: Images (n, height, width, channels) with entries in [-1, 1]. One channel is grey, three are RGB, four
            are RGB and alpha, laid on white; others stand side by side in grey, at most eight.
        title: Title of the figure.

    Returns:
        The figure.

    Raises:
        ValueError: for an array of another rank, as one image alone.

    Example:
        >>> images = np.random.default_rng(0).uniform(-1, 1, (16, 8, 8, 3))
        >>> figure = sgm.plot.image_grid(images, "noise")
    """
    check_batch("image_grid", "images", images, "height, width, channels", "image")
    padded = _padded(images)
    columns = _columns(len(padded), padded.shape[2] / padded.shape[1])
    filled = np.pad(padded, ((0, -len(padded) % columns), (0, 0), (0, 0), (0, 0)), constant_values=1)
    tiled = rearrange(filled, "(r c) h w k -> (r h) (c w) k", c=columns)
    return _picture(tiled, (5, 5), title)


def film_strip(frames: Batch, title: str = "") -> Figure:
    """Draw a row for each example, its frames from left to right; frames of noise are scaled to their own range.

    Arguments:
        frames: Frames (n, times, height, width, channels), with channels as in `image_grid`.
        title: Title of the figure.

    Returns:
        The figure.

    Raises:
        ValueError: for an array of another rank, as the frames of one image alone.

    Example:
        >>> clean = np.broadcast_to(np.linspace(-1, 1, 8)[:, None], (2, 1, 8, 8, 1))  # a ramp
        >>> noise = np.random.default_rng(0).normal(size=clean.shape)
        >>> frames = np.concatenate([clean + sigma * noise for sigma in (10.0, 1.0, 0.1)], axis=1)
        >>> figure = sgm.plot.film_strip(frames, "three noise levels")
    """
    check_batch("film_strip", "frames", frames, "times, height, width, channels", "film")
    flat = np.asarray(frames, np.float32)
    reach = np.maximum(np.quantile(np.abs(flat), 0.9, axis=(2, 3, 4), keepdims=True), 1)
    padded = _padded(rearrange(flat / reach, "n t h w k -> (n t) h w k"))
    tiled = rearrange(padded, "(n t) h w k -> (n h) (t w) k", n=flat.shape[0])
    stretch = math.sqrt(padded.shape[2] / padded.shape[1])
    return _picture(tiled, (flat.shape[1] * stretch, flat.shape[0] / stretch), title)


def signal_grid(signals: Batch, title: str = "") -> Figure:
    """Draw signals as lines, in rows and columns on one scale, with a colour for each channel.

    Arguments:
        signals: Signals (n, length, channels), of which at most eight channels are shown.
        title: Title of the figure.

    Returns:
        The figure.

    Raises:
        ValueError: for an array of another rank, as one signal alone.

    Example:
        >>> signals, _ = sgm.data.GaussianProcess(32).batch(0, 12, seed=0)
        >>> figure = sgm.plot.signal_grid(signals, "data")
    """
    check_batch("signal_grid", "signals", signals, "length, channels", "signal")
    flat = np.asarray(signals, np.float32)
    columns = _columns(len(flat), 2)
    filled = np.pad(flat, ((0, -len(flat) % columns), (0, 0), (0, 0)), constant_values=np.nan)
    return _lines(rearrange(filled, "(r c) l k -> r c l k", c=columns), title)


def signal_strip(frames: Batch, title: str = "") -> Figure:
    """Draw a row for each signal, its frames from left to right on one scale, with a colour for each channel.

    Arguments:
        frames: Frames (n, times, length, channels), of which at most eight channels are shown.
        title: Title of the figure.

    Returns:
        The figure.

    Raises:
        ValueError: for an array of another rank, as the frames of one signal alone.

    Example:
        >>> signals, _ = sgm.data.GaussianProcess(32).batch(0, 4, seed=0)
        >>> frames = np.stack([share * signals for share in (0.25, 0.5, 1.0)], axis=1)
        >>> figure = sgm.plot.signal_strip(frames)
    """
    check_batch("signal_strip", "frames", frames, "times, length, channels", "film")
    return _lines(np.asarray(frames, np.float32), title)


def _columns(count, aspect):
    """The columns and rows of a grid of `count` cells of an aspect, width over height, that is about a square."""
    return min(count, math.ceil((count / aspect) ** 0.5))


def _padded(images):
    """Grey or RGB in [0, 1] with a white margin of one pixel."""
    unit = np.clip((np.asarray(jax.device_get(images)) + 1) / 2, 0, 1)
    if unit.shape[-1] == 4:
        unit = unit[..., 3:] * unit[..., :3] + (1 - unit[..., 3:])
    elif unit.shape[-1] not in (1, 3):
        apart = np.pad(unit[..., :SHOWN], ((0, 0), (0, 0), (0, 1), (0, 0)), constant_values=1)
        # Examples are farther apart than their channels.
        unit = np.pad(rearrange(apart, "n h w k -> n h (k w) 1"), ((0, 0), (0, 2), (0, 1), (0, 0)), constant_values=1)
    return np.pad(unit, ((0, 0), (0, 1), (0, 1), (0, 0)), constant_values=1)


def _lines(signals, title):
    """Lines in the cells of a grid: (rows, columns, length, channels)."""
    rows, columns, length, channels = signals.shape
    figure, axes = axes_in_a_row(1, (1.2 * columns + 0.5, 0.6 * rows + 0.5))
    reach = float(np.nanmax(np.abs(signals))) or 1.0
    across = np.arange(columns) + np.linspace(0.05, 0.95, length)[:, None, None]
    places = np.broadcast_to(across, (length, rows, columns)).reshape(length, -1)
    heights = 0.45 * signals / reach - np.arange(rows)[:, None, None, None]
    for channel in range(min(channels, SHOWN)):
        lines = rearrange(heights[..., channel], "r c l -> l (r c)")
        axes[0].plot(places, lines, color=f"C{channel}", linewidth=0.7)
    axes[0].set(xlim=(0, columns), ylim=(0.5 - rows, 0.5), title=title)
    axes[0].set_axis_off()
    return figure


def _picture(tiled, size, title):
    figure, axes = axes_in_a_row(1, size)
    axes[0].imshow(tiled, cmap="gray", vmin=0, vmax=1, interpolation="nearest")
    axes[0].set_axis_off()
    axes[0].set_title(title)
    return figure

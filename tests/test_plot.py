import re

import jax
import jax.numpy as jnp
import numpy as np
import PIL.Image
import pytest

from sgm import plot
from sgm.plot import films
from sgm.plot.training import sizes_of


def drawn(figure):
    """The pixels of a figure's one image."""
    return figure.axes[0].images[0].get_array().data


def constant(channels, n=1, height=3, width=4):
    """Images each of whose channels has one level in [-1, 1]."""
    return np.broadcast_to(np.asarray(channels, np.float32), (n, height, width, len(channels)))


def test_grey_and_colour_are_drawn_as_they_are():
    np.testing.assert_array_equal(drawn(plot.image_grid(constant([0.5])))[:3, :4], np.full((3, 4), 0.75))
    np.testing.assert_array_equal(drawn(plot.image_grid(constant([-1, 0, 1])))[0, 0], [0, 0.5, 1])


def test_alpha_is_laid_on_white():
    np.testing.assert_allclose(drawn(plot.image_grid(constant([-1, 0, 1, -0.5])))[0, 0], [0.75, 0.875, 1])


@pytest.mark.parametrize("channels", [2, 5, 20])
def test_other_channels_stand_side_by_side(channels):
    levels = np.linspace(-1, 1, channels, dtype=np.float32)
    shown = min(channels, 8)
    pixels = drawn(plot.image_grid(constant(levels)))
    assert pixels.shape == (3 + 3, 5 * shown + 2)
    by_channel = pixels[:3, : 5 * shown].reshape(3, shown, 5)
    np.testing.assert_allclose(by_channel[0, :, 0], (levels[:shown] + 1) / 2, atol=1e-6)
    assert np.all(by_channel[..., :4] == by_channel[:1, :, :1]) and np.all(by_channel[..., 4] == 1)
    strip = drawn(plot.film_strip(jnp.tile(constant(levels)[:, None], (1, 3, 1, 1, 1))))
    np.testing.assert_array_equal(strip, np.tile(pixels, (1, 3)))


@pytest.mark.parametrize(
    ("n", "height", "width", "cells"), [(64, 8, 8, (8, 8)), (64, 1, 48, (32, 2)), (1, 9, 2, (1, 1))]
)
def test_grids_are_about_square(n, height, width, cells):
    pixels = drawn(plot.image_grid(constant([0], n, height, width)))
    assert pixels.shape[:2] == (cells[0] * (height + 1), cells[1] * (width + 1))


def test_signals_are_lines_in_their_cells():
    signals = np.random.default_rng(0).normal(size=(5, 16, 2)).astype(np.float32)
    lines = plot.signal_grid(signals).axes[0].lines
    assert len(lines) == 2 * 6  # a grid of 3 rows and 2 columns for each channel
    x, y = lines[6 + 3].get_data()  # channel 1 of signal 3: row 1, column 1
    assert x.min() > 1 and x.max() < 2
    np.testing.assert_allclose(y, 0.45 * signals[3, :, 1] / np.abs(signals).max() - 1, rtol=1e-5)
    assert np.isnan(lines[5].get_ydata()).all()
    assert len(plot.signal_strip(np.zeros((2, 3, 16, 1), np.float32)).axes[0].lines) == 6


@pytest.mark.parametrize("columns", [1, 5, 11])
def test_tables_are_corner_plots(columns):
    table = np.random.default_rng(0).normal(size=(100, columns)).astype(np.float32)
    figure = plot.corner({"data": table, "samples": 2 * table})
    shown = min(columns, 8)
    assert len(figure.axes) == shown**2
    for row, column in np.ndindex(shown, shown):
        axis = figure.axes[row * shown + column]
        clouds = [np.asarray(cloud.get_offsets()) for cloud in axis.collections]
        if row > column:
            np.testing.assert_array_equal(clouds[0], table[:, [column, row]])
            np.testing.assert_array_equal(clouds[1], 2 * table[:, [column, row]])
        else:
            assert not clouds and axis.axison == (row == column)
    assert [text.get_text() for text in figure.legends[0].get_texts()] == ["data", "samples"]


def test_columns_of_a_corner_plot_have_names():
    table = np.random.default_rng(0).normal(size=(100, 2)).astype(np.float32)
    axes = plot.corner({"data": table}, ("redshift", "colour")).axes
    assert [axis.get_xlabel() for axis in axes] == ["", "", "redshift", "colour"]
    assert axes[2].get_ylabel() == "colour"
    assert plot.corner({"data": table}).axes[2].get_xlabel() == "column 0"
    with pytest.raises(ValueError, match=re.escape("corner: there are 1 names for 2 columns; pass a name for each.")):
        plot.corner({"data": table}, ("redshift",))


def test_a_figure_is_saved_under_a_name(tmp_path):
    plot.save(plot.points({"data": np.zeros((3, 2), np.float32)}), str(tmp_path / "points.png"))
    assert (tmp_path / "points.png").is_file()


@pytest.mark.parametrize(
    ("shape", "words"),
    [
        ((2,), None),
        ((8, 8, 1), None),
        ((8, 6, 3), None),
        ((5,), "a corner plot of the columns; paths are left out"),
        ((12,), "a corner plot of the first 8 of 12 columns; paths are left out"),
        ((64, 2), "lines, a colour for each of the channels"),
        ((8, 8, 2), "the channels side by side, in grey"),
        ((8, 8, 9), "the first 8 of 9 channels side by side, in grey"),
        ((8, 8, 4), "RGB and alpha, on white"),
        ((4, 4, 4, 1), "the slice in the middle of each volume"),
        (
            (2, 4, 4, 4, 1),
            "none, for examples of shape (2, 4, 4, 4, 1): tables, signals (length, channels), images and volumes are "
            "drawn",
        ),
    ],
)
def test_the_manner_is_said_where_it_does_not_go_without_saying(shape, words):
    assert plot.manner(shape) == words
    x = np.random.default_rng(0).normal(size=(4, *shape)).astype(np.float32)
    if len(shape) < 5:
        assert plot.examples({"data": x}).axes
    else:
        with pytest.raises(ValueError, match=r"examples: the panels have shapes \(4, 2, 4, 4, 4, 1\); pass tables"):
            plot.examples({"data": x})


@pytest.mark.parametrize("columns", [2, 3])
def test_entries_that_are_missing_are_left_out(columns):
    table = np.random.default_rng(0).normal(size=(50, columns)).astype(np.float32)
    holes = np.where(np.arange(50)[:, None] == np.arange(columns), np.nan, table)
    ends = [axis.get_xlim() for axis in plot.examples({"data": holes}).axes]
    assert np.all(np.isfinite(ends))


def test_volumes_are_drawn_by_their_middle_slices():
    x = np.random.default_rng(0).uniform(-1, 1, size=(3, 5, 4, 6, 1)).astype(np.float32)
    np.testing.assert_array_equal(plot.middle_slices(x), x[:, 2])
    ours, plain = (plot.examples({"": batch}).axes[0].images[0].get_array() for batch in (x, x[:, 2]))
    np.testing.assert_array_equal(ours, plain)


@pytest.mark.parametrize(
    ("call", "shape", "message"),
    [
        ("image_grid", (8, 8, 1), "(n, height, width, channels): x[None] of one image alone"),
        ("film_strip", (5, 8, 8, 1), "(n, times, height, width, channels): x[None] of one film alone"),
        ("signal_grid", (9, 1), "(n, length, channels): x[None] of one signal alone"),
        ("signal_strip", (3, 9, 1), "(n, times, length, channels): x[None] of one film alone"),
        ("points", (2,), "(n, 2): x[None] of one point alone"),
        ("points", (4, 3), "(n, 2): x[None] of one point alone"),
        ("corner", (5,), "(n, columns): x[None] of one row alone"),
    ],
)
def test_one_example_alone_is_refused_with_the_remedy(call, shape, message):
    x = np.zeros(shape, np.float32)
    with pytest.raises(ValueError, match=re.escape(f" has shape {shape}; pass a batch {message}")):
        getattr(plot, call)({"data": x} if call in ("points", "corner") else x)


POINTS = np.arange(1, 10) / 10
BAND = POINTS - 0.05, POINTS + 0.05


def band_of(axis):
    """The corners of the shaded band."""
    return axis.collections[0].get_paths()[0].vertices


def test_ranks_are_drawn_as_differences_from_the_uniform():
    ecdfs = np.stack([POINTS + 0.02, POINTS**2])
    axis = plot.ranks(POINTS, ecdfs, *BAND).axes[0]
    drawn = [line.get_ydata() for line in axis.lines if len(line.get_xdata()) == 9]
    np.testing.assert_allclose(drawn, ecdfs - POINTS)
    assert band_of(axis)[:, 1].min() == pytest.approx(-0.05) and band_of(axis)[:, 1].max() == pytest.approx(0.05)
    labels = [text.get_text() for text in axis.get_legend().get_texts()]
    assert labels == ["95% band", "parameter 0", "parameter 1"]
    assert len(plot.ranks(POINTS, np.tile(POINTS, (11, 1)), *BAND).axes[0].lines) == 1 + 8


def test_coverage_is_drawn_against_credibility():
    axis = plot.coverage(POINTS, POINTS**2, *BAND).axes[0]
    diagonal, model = axis.lines
    np.testing.assert_array_equal(diagonal.get_data(), [[0, 1], [0, 1]])
    np.testing.assert_array_equal(model.get_data(), [POINTS, POINTS**2])
    assert band_of(axis)[:, 1].min() == pytest.approx(0.05) and band_of(axis)[:, 1].max() == pytest.approx(0.95)


def test_predictions_are_scaled_to_their_own_intervals():
    """Quantiles of output 0 are 10 + (-4, -2, 0, 2, 4); output 1 is constant."""
    quantiles = np.stack([10 + np.asarray([-4.0, -2, 0, 2, 4]), np.full(5, 3.0)], axis=1)
    axis = plot.predictive(quantiles, np.asarray([16.0, 4.0])).axes[0]
    wide, inner, observed = axis.collections
    np.testing.assert_allclose(wide.get_segments(), [[[0, -1], [0, 1]], [[1, 0], [1, 0]]])
    np.testing.assert_allclose(inner.get_segments(), [[[0, -0.5], [0, 0.5]], [[1, 0], [1, 0]]])
    np.testing.assert_allclose(observed.get_offsets(), [[0, 1.5], [1, 1]])
    many = plot.predictive(np.zeros((5, 500)), np.zeros(500)).axes[0].collections[2].get_offsets()
    assert len(many) == 60 and many[-1, 0] == 499


@pytest.mark.parametrize("columns", [1, 2, 3])
def test_probabilities_are_drawn_where_they_are(columns):
    theta, probabilities = np.random.default_rng(0).normal(size=(20, columns)), np.linspace(0.05, 0.95, 20)
    histogram, cloud, _ = plot.local(theta, probabilities).axes
    heights = [bar.get_height() for bar in histogram.patches]
    np.testing.assert_array_equal(heights, np.histogram(probabilities, 40, (0, 1))[0])
    points = cloud.collections[0]
    np.testing.assert_array_equal(points.get_offsets()[:, 0], theta[:, 0])
    np.testing.assert_array_equal(points.get_offsets()[:, 1], theta[:, 1] if columns > 1 else probabilities)
    np.testing.assert_array_equal(points.get_array(), probabilities)
    assert points.get_clim() == (0, 1)  # 1/2 is the middle of the colours


@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
def test_sizes_of_an_array_are_those_of_numpy(dtype):
    x = jnp.exp(5 * jax.random.normal(jax.random.key(0), (400, 25))).astype(dtype).at[:, ::2].set(0)
    entries = np.asarray(x, np.float64)[np.asarray(x) != 0]
    ((count, mean, low, high),) = sizes_of([-x])
    assert count == len(entries) == 4800
    np.testing.assert_allclose(mean, np.sqrt(np.mean(entries**2)), rtol=1e-5)
    np.testing.assert_allclose([low, high], np.quantile(entries, [0.05, 0.95]), rtol=0.05)


def test_arrays_of_zeros_alone_are_left_out(tmp_path):
    figure = plot.arrays({"a": jnp.zeros(3), "b": jnp.full((2, 2), -2.0), "c": np.asarray([1e-30, 0.0])}, "weights")
    (points,) = (part for part in figure.axes[0].collections if len(part.get_offsets()) == 2)
    np.testing.assert_allclose(points.get_offsets(), [[1, 2], [2, 1e-30]], rtol=1e-5)
    plot.save(plot.arrays({"a": jnp.zeros(3)}, "gradients"), tmp_path / "gradients.png")


@pytest.mark.parametrize(
    "shape", [(2,), (9, 2), (4, 5, 1), (3, 4, 5, 1)], ids=["points", "signals", "images", "volumes"]
)
def test_a_film_has_a_frame_for_each_time(shape, tmp_path):
    frames = np.random.default_rng(0).normal(size=(3, 5, *shape)).astype(np.float32)
    plot.save_film(plot.film(frames, "noise"), tmp_path / "film.gif")
    with PIL.Image.open(tmp_path / "film.gif") as film:
        assert film.is_animated and film.n_frames == 5
        sizes, times = [], []
        for frame in range(film.n_frames):
            film.seek(frame)
            sizes.append(film.size)
            times.append(film.info["duration"])
    assert len(set(sizes)) == 1 and times == [100] * 4 + [2000]


def test_a_film_of_much_noise_has_few_colours_and_frames(tmp_path, monkeypatch):
    """Twelve frames of noise take 430 kB in 16 colours."""
    monkeypatch.setattr(films, "_LARGEST", 100_000)
    noise = np.random.default_rng(0).normal(size=(1, 12, 150, 150, 3)).astype(np.float32)
    plot.save_film(plot.film(noise), tmp_path / "film.gif")
    assert (tmp_path / "film.gif").stat().st_size < 100_000
    with PIL.Image.open(tmp_path / "film.gif") as film:
        assert 1 < film.n_frames < 12 and len(film.convert("RGB").getcolors()) <= 4


def test_the_clouds_of_a_film_are_on_one_scale_and_paths_grow():
    paths = np.random.default_rng(0).normal(size=(7, 3, 2)).astype(np.float32)
    figures = list(plot.growing_trajectories(paths))
    assert len({figure.axes[0].get_xlim() for figure in figures}) == 1
    for time, figure in enumerate(figures):
        lines = figure.axes[0].lines
        np.testing.assert_array_equal([line.get_xydata() for line in lines], paths[:, : time + 1])
        np.testing.assert_array_equal(figure.axes[0].collections[0].get_offsets(), paths[:, time])


def test_a_film_of_other_shapes_is_refused():
    with pytest.raises(ValueError, match=re.escape("film: frames has shape (4, 6, 3); pass a batch (n, times, 2)")):
        plot.film(np.zeros((4, 6, 3), np.float32))
    with pytest.raises(ValueError, match=re.escape("growing_trajectories: paths has shape (6, 2); pass a batch")):
        plot.growing_trajectories(np.zeros((6, 2), np.float32))

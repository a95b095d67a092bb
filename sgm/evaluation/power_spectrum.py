"""The power spectrum of samples against that of the data."""

import jax
import jax.numpy as jnp
import jax.random as jr
import numpy as np

from sgm.data.spectra import power_spectrum
from sgm.evaluation.metric import AbstractMetric, Row, samples_like


class PowerSpectrum(AbstractMetric):
    """The power spectra of samples and data: signals, square images and cubes of any number of channels.

    One sample is drawn for each example, given its condition. The mean power of each shell of wave numbers is compared;
    the spectra themselves are among the columns.

    Raises:
        ValueError: when evaluated, for examples of other shapes, and for a split of one example.

    Example:
        >>> data = sgm.data.GaussianProcess(16)
        >>> model = sgm.model.Gaussian(jnp.zeros((16, 1)), jnp.asarray(data.covariance, jnp.float32))
        >>> report = sgm.evaluate(sde, model, data, [PowerSpectrum()], key, n=8, sampler=sgm.DDIM(10))
        >>> report.columns["samples_power"].shape, report.columns["data_power"].shape  # a row an example
        ((8, 8), (8, 8))
    """

    def check(self, context):
        shape = context.data.shape
        if len(shape) not in (2, 3, 4) or len(set(shape[:-1])) > 1:
            raise ValueError(
                f"PowerSpectrum: examples have the shape {shape}; pass signals, square images or cubes, or another "
                "metric."
            )
        if context.data.size(context.split) < 2:
            raise ValueError("PowerSpectrum: there is one example; pass two or more, for a standard error.")

    def columns(self, context, x, fields, key):
        key_sample, key_levels = jr.split(key)
        parts = {"data": context.real(x, key_levels), "samples": samples_like(context, len(x), fields, key_sample)}
        return {f"{name}_power": np.asarray(_spectra(jnp.asarray(part))) for name, part in parts.items()}

    def rows(self, context, columns):
        samples, data = (np.asarray(columns[f"{name}_power"], np.float64) for name in ("samples", "data"))
        ratios = np.log(samples.mean(axis=0) / data.mean(axis=0))
        # Those of the log of a ratio of two means.
        shares = [part.std(axis=0, ddof=1) / part.mean(axis=0) for part in (samples, data)]
        errors = np.sqrt((shares[0] ** 2 + shares[1] ** 2) / len(data))
        worst = int(np.argmax(np.abs(ratios)))
        return [
            Row("power_error", float(np.sqrt(np.mean(ratios**2))), note="rms over shells of log(samples / data)"),
            Row(
                "power_error_floor",
                float(np.sqrt(np.mean(errors**2))),
                note="what is due to the number of examples",
                is_score=False,
            ),
            Row("power_error_worst", float(ratios[worst]), float(errors[worst]), note=f"at wave number {worst + 1}"),
        ]


@jax.jit
def _spectra(x):
    """The mean over channels of each example's spectrum."""
    of_channel = jax.vmap(lambda field: power_spectrum(field[..., None])[1], in_axes=-1)
    return jax.vmap(lambda x: jnp.mean(of_channel(x), axis=0))(x)

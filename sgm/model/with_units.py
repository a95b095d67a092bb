"""A model in other units than it was made for."""

from sgm.checks import check_instance
from sgm.model.base import AbstractModel, AbstractWrapper
from sgm.nn.units import Units, check_units


class WithUnits(AbstractWrapper):
    """A model of standardised data as a model of data in their own units, x = mean + std z.

    Arguments:
        model: Model of z.
        units: Units of x.

    Raises:
        ValueError: for units that do not fit the model's shape.

    Example:
        >>> model = WithUnits(Gaussian(jnp.zeros(2), jnp.eye(2)), sgm.Units(mean=10.0, std=3.0))  # N(10, 9)
        >>> model.denoise(sgm.VE(), 1.0, jnp.zeros(2)).round(1)  # noise alone: the mean
        Array([10., 10.], dtype=float32)
    """

    model: AbstractModel
    _units: Units

    def __init__(self, model: AbstractModel, units: Units):
        check_instance("WithUnits", "model", model, AbstractModel, "sgm.model.Gaussian(mean, covariance)")
        check_instance("WithUnits", "units", units, Units, "sgm.Units(mean=3.0, std=0.4)")
        check_units("WithUnits", units, model.shape)
        self.model, self._units = model, units

    @property
    def units(self):
        return self._units

    def predict(self, level, u, cond=None, key=None):
        return self.model.predict(level, u, cond, key)

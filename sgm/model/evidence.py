"""The output of a network of categories."""

from sgm.checks import check_instance
from sgm.model.categorical import CategoricalModel, network_shape
from sgm.model.reading import AbstractReading
from sgm.sde.categorical import AbstractCategoricalChain


class Evidence(AbstractReading[AbstractCategoricalChain]):
    """The output is the evidence for each category of x_0, as a `CategoricalModel` reads it."""

    def check(self, sde):
        check_instance("Evidence", "sde", sde, AbstractCategoricalChain, "sgm.BinomialChain()")

    def network_shape(self, sde, shape):
        return network_shape(shape, sde.states)

    def model(self, network, sde, *, shape=None, units=None, data=None):
        return CategoricalModel(network, sde.categories, sde.states, shape=shape, data=data)

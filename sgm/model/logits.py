"""The output of a network of categories."""

from sgm.checks import check_instance
from sgm.model.categorical import CategoricalModel, network_shape
from sgm.model.parameterisation import AbstractParameterisation
from sgm.sde.categorical import AbstractCategoricalChain


class Logits(AbstractParameterisation[AbstractCategoricalChain]):
    """The output is logits for the categories of x_0, as a `CategoricalModel` reads them.

    Raises:
        TypeError: when an experiment is built, for a process that is no chain of categories.

    Example:
        >>> network = partial(MLP, width=64)
        >>> experiment = sgm.Experiment(data=Heartbeat(), network=network, sde=sgm.BinomialChain(), prediction=Logits())
    """

    def check(self, sde):
        check_instance("Logits", "sde", sde, AbstractCategoricalChain, "sgm.BinomialChain()")

    def network_shape(self, sde, shape):
        return network_shape(shape, sde.states)

    def model(self, network, sde, *, shape=None, units=None, data=None):
        return CategoricalModel(network, sde.categories, sde.states, shape=shape, data=data)

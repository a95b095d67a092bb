"""The method by which a process is sampled where none is asked for."""

import functools

from sgm.sde.categorical import AbstractCategoricalChain
from sgm.sde.process import AbstractProcess
from sgm.solve.categorical import CategoricalAncestral
from sgm.solve.euler_maruyama import EulerMaruyama
from sgm.solve.sampling import AbstractSamplingMethod


@functools.singledispatch
def default_method(process: AbstractProcess) -> AbstractSamplingMethod:
    """The method for a kind of process, by default `EulerMaruyama()`.

    Arguments:
        process: Process. Another kind is given a method by `default_method.register`.

    Returns:
        The method.

    Example:
        >>> default_method(sgm.VP())
        EulerMaruyama()
        >>> default_method(sgm.BinomialChain())
        CategoricalAncestral()
    """
    return EulerMaruyama()


@default_method.register
def _(process: AbstractCategoricalChain) -> AbstractSamplingMethod:
    return CategoricalAncestral()

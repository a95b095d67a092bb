"""Metrics of a model on a data set."""

from sgm.evaluation.chain_bound import ChainBound as ChainBound
from sgm.evaluation.continuous_bound import ContinuousBound as ContinuousBound
from sgm.evaluation.evaluate import Report as Report
from sgm.evaluation.evaluate import evaluate as evaluate
from sgm.evaluation.evaluate import read_columns as read_columns
from sgm.evaluation.evaluate import write_columns as write_columns
from sgm.evaluation.log_likelihood import LogLikelihood as LogLikelihood
from sgm.evaluation.metric import AbstractMetric as AbstractMetric
from sgm.evaluation.metric import Context as Context
from sgm.evaluation.metric import Row as Row
from sgm.evaluation.power_spectrum import PowerSpectrum as PowerSpectrum
from sgm.evaluation.sliced_wasserstein import SlicedWasserstein as SlicedWasserstein
from sgm.evaluation.sliced_wasserstein import sliced_wasserstein as sliced_wasserstein

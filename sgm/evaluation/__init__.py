"""The likelihood of a whole data set."""

from sgm.evaluation.metrics_section import AbstractMetric as AbstractMetric
from sgm.evaluation.metrics_section import ChainBound as ChainBound
from sgm.evaluation.metrics_section import LogLikelihood as LogLikelihood
from sgm.evaluation.metrics_section import SlicedWasserstein as SlicedWasserstein

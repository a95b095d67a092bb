"""Log-likelihoods along the probability flow, and the parts of a chain's bound."""

from sgm.likelihood.categorical_last_step import (
    AbstractCategoricalReconstruction as AbstractCategoricalReconstruction,
)
from sgm.likelihood.categorical_last_step import ForwardEntropy as ForwardEntropy
from sgm.likelihood.categorical_last_step import Modelled as Modelled
from sgm.likelihood.dequantise import bits_per_dim as bits_per_dim
from sgm.likelihood.dequantise import dequantise as dequantise
from sgm.likelihood.dequantise import quantise as quantise
from sgm.likelihood.discrete import AbstractDequantisation as AbstractDequantisation
from sgm.likelihood.discrete import DiscreteLogProb as DiscreteLogProb
from sgm.likelihood.discrete import TruncatedNormalDequantisation as TruncatedNormalDequantisation
from sgm.likelihood.discrete import UniformDequantisation as UniformDequantisation
from sgm.likelihood.discrete import discrete_log_prob as discrete_log_prob
from sgm.likelihood.last_step import AbstractReconstruction as AbstractReconstruction
from sgm.likelihood.last_step import DiscretisedGaussian as DiscretisedGaussian
from sgm.likelihood.last_step import Flat as Flat
from sgm.likelihood.log_prob import LogProb as LogProb
from sgm.likelihood.log_prob import log_prob as log_prob
from sgm.likelihood.prior_mismatch import prior_mismatch as prior_mismatch
from sgm.likelihood.reconstruction import reconstruction as reconstruction
from sgm.likelihood.sample_and_log_prob import sample_and_log_prob as sample_and_log_prob
from sgm.likelihood.trace import AbstractTrace as AbstractTrace
from sgm.likelihood.trace import Exact as Exact
from sgm.likelihood.trace import Hutchinson as Hutchinson
from sgm.likelihood.trace import Probing as Probing

"""Training: the loss, the step, the loop, and what of it is kept on disk."""

from sgm.training.loss import score_matching_loss as score_matching_loss
from sgm.training.loss_section import Loss as Loss
from sgm.training.objective import Absolute as Absolute
from sgm.training.objective import AbstractObjective as AbstractObjective
from sgm.training.objective import Bound as Bound
from sgm.training.objective import Hybrid as Hybrid
from sgm.training.objective import Squared as Squared
from sgm.training.objective import SquaredVelocity as SquaredVelocity
from sgm.training.settings import AbstractOptimiser as AbstractOptimiser
from sgm.training.settings import Adam as Adam
from sgm.training.settings import AdamW as AdamW
from sgm.training.settings import Training as Training
from sgm.training.times import AbstractTimeSampling as AbstractTimeSampling
from sgm.training.times import ChainSteps as ChainSteps
from sgm.training.times import NormalLogSNR as NormalLogSNR
from sgm.training.times import UniformLogSNR as UniformLogSNR
from sgm.training.times import UniformTime as UniformTime
from sgm.training.weightings import AbstractWeighting as AbstractWeighting
from sgm.training.weightings import KarrasWeighting as KarrasWeighting
from sgm.training.weightings import LikelihoodWeighting as LikelihoodWeighting
from sgm.training.weightings import UniformWeighting as UniformWeighting

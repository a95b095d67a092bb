"""Models: from a network, or a closed form, to an estimate of what is under the noise."""

from sgm.model.analytic import AbstractAnalyticModel as AbstractAnalyticModel
from sgm.model.analytic import Empirical as Empirical
from sgm.model.analytic import Gaussian as Gaussian
from sgm.model.analytic import GaussianMixture as GaussianMixture
from sgm.model.base import AbstractModel as AbstractModel
from sgm.model.base import Estimate as Estimate
from sgm.model.base import from_denoised as from_denoised
from sgm.model.base import from_noise as from_noise
from sgm.model.base import from_velocity as from_velocity
from sgm.model.guidance import Clipped as Clipped
from sgm.model.kernel import AbstractVariance as AbstractVariance
from sgm.model.kernel import FixedLarge as FixedLarge
from sgm.model.kernel import FixedSmall as FixedSmall
from sgm.model.kernel import Interpolated as Interpolated
from sgm.model.kernel import Learned as Learned
from sgm.model.prediction import AbstractPrediction as AbstractPrediction
from sgm.model.prediction import Denoised as Denoised
from sgm.model.prediction import Karras as Karras
from sgm.model.prediction import MeanCoefficient as MeanCoefficient
from sgm.model.prediction import Noise as Noise
from sgm.model.prediction import Score as Score
from sgm.model.prediction import Velocity as Velocity
from sgm.model.prediction import WithVariance as WithVariance
from sgm.model.score_model import ScoreModel as ScoreModel
from sgm.model.with_units import WithUnits as WithUnits
from sgm.nn.condition import Condition as Condition

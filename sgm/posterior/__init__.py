"""What is known of one example besides the model, and draws of the posterior that it makes."""

from sgm.posterior.ancestral import PosteriorAncestral as PosteriorAncestral
from sgm.posterior.evidence import AbstractEvidence as AbstractEvidence
from sgm.posterior.evidence import Denoising as Denoising
from sgm.posterior.evidence import Inpainting as Inpainting
from sgm.posterior.evidence import MatchedDenoising as MatchedDenoising

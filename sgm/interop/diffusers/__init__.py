"""Models of HuggingFace diffusers, read from their folders and written to them, without torch."""

from sgm.interop.diffusers.dit import DiTTransformer2DModel as DiTTransformer2DModel
from sgm.interop.diffusers.folder import Loaded as Loaded
from sgm.interop.diffusers.folder import load as load
from sgm.interop.diffusers.folder import load_network as load_network
from sgm.interop.diffusers.unet import UNet2DModel as UNet2DModel
from sgm.interop.diffusers.write import save as save
from sgm.interop.diffusers.write import save_network as save_network

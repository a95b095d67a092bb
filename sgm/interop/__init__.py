"""Models in files, on the HuggingFace hub, and in the forms of other libraries, each in a module of its own."""

from sgm.interop.hub import HubError as HubError
from sgm.interop.saved import SavedError as SavedError
from sgm.interop.tensor_files import TensorFileError as TensorFileError

"""Why a network generalizes: sharpness, loss landscapes and Hessian spectra, by class."""

from jaxlt.analysis.dataset_losses import DatasetLosses as DatasetLosses
from jaxlt.analysis.dataset_losses import LossesFn as LossesFn
from jaxlt.analysis.group_sharpness import GroupSharpness as GroupSharpness
from jaxlt.analysis.group_sharpness import group_sharpness as group_sharpness
from jaxlt.analysis.hessian import Spectrum as Spectrum
from jaxlt.analysis.hessian import Trace as Trace
from jaxlt.analysis.hessian import hessian_product as hessian_product
from jaxlt.analysis.hessian import spectrum as spectrum
from jaxlt.analysis.hessian import trace as trace
from jaxlt.analysis.landscape import PrincipalPlane as PrincipalPlane
from jaxlt.analysis.landscape import filter_normalized as filter_normalized
from jaxlt.analysis.landscape import losses_along as losses_along
from jaxlt.analysis.landscape import losses_over_plane as losses_over_plane
from jaxlt.analysis.landscape import principal_plane as principal_plane
from jaxlt.analysis.landscape import random_direction as random_direction

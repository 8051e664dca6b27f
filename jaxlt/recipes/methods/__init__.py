"""The methods, as parts of a recipe: how a stage takes its gradient."""

from typing import TYPE_CHECKING, TypeAlias

from jaxlt.recipes.methods.by_class import CCSAM, SSESAM, ImbSAM
from jaxlt.recipes.methods.flattening import GradientNormPenalty, RandomPerturbation
from jaxlt.recipes.methods.method import REUSED as REUSED
from jaxlt.recipes.methods.method import SAM, SGD, FocalSAM
from jaxlt.recipes.methods.method import ClassCounts as ClassCounts
from jaxlt.recipes.methods.method import Method as Method
from jaxlt.recipes.methods.method import Reusing as Reusing
from jaxlt.recipes.methods.radius import has_radius as has_radius
from jaxlt.recipes.methods.radius import with_radius as with_radius

if TYPE_CHECKING:
    AnyMethod: TypeAlias = Method
else:
    AnyMethod = (
        SGD | SAM | ImbSAM | SSESAM | FocalSAM | CCSAM | GradientNormPenalty | RandomPerturbation
    )

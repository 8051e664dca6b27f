"""Per-example losses, their class weights and CC-SAM's feature adversary, as parts of a recipe."""

from typing import TYPE_CHECKING, TypeAlias

from jaxlt.recipes.losses.adjustments import BalancedSoftmax, LogitAdjusted, VectorScaling
from jaxlt.recipes.losses.adversary import Adversary, PaperAdversary, ReleasedAdversary
from jaxlt.recipes.losses.loss import ClassBalanced as ClassBalanced
from jaxlt.recipes.losses.loss import CrossEntropy, Focal
from jaxlt.recipes.losses.loss import Loss as Loss
from jaxlt.recipes.losses.margins import GCL, LADE, LDAM, LabelAwareSmoothing

if TYPE_CHECKING:
    AnyLoss: TypeAlias = Loss
    AnyAdversary: TypeAlias = Adversary
else:
    AnyLoss = CrossEntropy | Focal | LDAM | LogitAdjusted | BalancedSoftmax | VectorScaling
    AnyLoss |= GCL | LabelAwareSmoothing | LADE
    AnyAdversary = PaperAdversary | ReleasedAdversary

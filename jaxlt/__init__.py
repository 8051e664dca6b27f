"""Sharpness-aware minimization for long-tailed classification, as optax transformations.

`gradient_norm_penalty` and `random_perturbation` are here for comparison; the other methods are
what the package is for. `checked` and `value_and_grad` serve training loops. The place of
`adversarial_features`, `adversarial_losses` and `released_class_weights` is `jaxlt.losses`.
"""

from jaxlt import losses as losses
from jaxlt.batch.class_losses import ClassLosses as ClassLosses
from jaxlt.batch.class_losses import FactoredLosses as FactoredLosses
from jaxlt.batch.class_losses import Linear as Linear
from jaxlt.batch.class_losses import class_losses as class_losses
from jaxlt.batch.cosine import Cosine as Cosine
from jaxlt.batch.known_losses import value_and_grad as value_and_grad
from jaxlt.batch.over_axis import over_axis as over_axis
from jaxlt.batch.passes import Blocks as Blocks
from jaxlt.batch.passes import Capacity as Capacity
from jaxlt.errors import UsageError as UsageError
from jaxlt.losses.feature_adversary import adversarial_features as adversarial_features
from jaxlt.losses.feature_adversary import adversarial_losses as adversarial_losses
from jaxlt.losses.feature_adversary import released_class_weights as released_class_weights
from jaxlt.methods.cc_sam import cc_sam as cc_sam
from jaxlt.methods.checked import checked as checked
from jaxlt.methods.every import every as every
from jaxlt.methods.flattening import gradient_norm_penalty as gradient_norm_penalty
from jaxlt.methods.flattening import random_perturbation as random_perturbation
from jaxlt.methods.focal_sam import focal_sam as focal_sam
from jaxlt.methods.groups import Groups as Groups
from jaxlt.methods.imb_sam import imb_sam as imb_sam
from jaxlt.methods.per_shard import per_shard as per_shard
from jaxlt.methods.sam import sam as sam
from jaxlt.methods.sharpness_aware import sharpness_aware as sharpness_aware
from jaxlt.methods.sse_sam import sse_sam as sse_sam
from jaxlt.sharpness.equation import Objective as Objective
from jaxlt.sharpness.state import SharpnessState as SharpnessState

__version__ = "0.2.0"

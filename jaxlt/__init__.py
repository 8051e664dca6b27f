"""Sharpness-aware minimisation for long-tailed classification, as optax transformations."""

from jaxlt import losses as losses
from jaxlt.class_losses import ClassLosses as ClassLosses
from jaxlt.class_losses import class_losses as class_losses
from jaxlt.classifiers import Cosine as Cosine
from jaxlt.classifiers import Linear as Linear
from jaxlt.errors import UsageError as UsageError
from jaxlt.factored_losses import Blocks as Blocks
from jaxlt.factored_losses import Capacity as Capacity
from jaxlt.factored_losses import FactoredLosses as FactoredLosses
from jaxlt.feature_adversary import adversarial_features as adversarial_features
from jaxlt.feature_adversary import adversarial_losses as adversarial_losses
from jaxlt.feature_adversary import released_class_weights as released_class_weights
from jaxlt.flattening import gradient_norm_penalty as gradient_norm_penalty
from jaxlt.flattening import random_perturbation as random_perturbation
from jaxlt.m_sharpness import per_shard as per_shard
from jaxlt.over_axis import over_axis as over_axis
from jaxlt.transformation import SharpnessState as SharpnessState
from jaxlt.transforms import cc_sam as cc_sam
from jaxlt.transforms import focal_sam as focal_sam
from jaxlt.transforms import imb_sam as imb_sam
from jaxlt.transforms import sam as sam
from jaxlt.transforms import sse_sam as sse_sam

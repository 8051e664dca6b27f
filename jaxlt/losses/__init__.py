"""Per-example losses for long-tailed classification, each `(B, C), (B,) -> (B,)`.

Losses are in nats, computed in at least 32 bits. A label outside [0, C), such as -1 for padding,
costs 0; `jaxlt.class_losses` gives such rows no share. Each loss is of its own row alone, except
`lade`. `adversarial_features` and what goes with it are CC-SAM's second stage.
"""

from jaxlt.losses.feature_adversary import adversarial_features as adversarial_features
from jaxlt.losses.feature_adversary import adversarial_losses as adversarial_losses
from jaxlt.losses.feature_adversary import released_class_weights as released_class_weights
from jaxlt.losses.focal import focal as focal
from jaxlt.losses.label_smoothing import label_aware_smoothing as label_aware_smoothing
from jaxlt.losses.label_smoothing import smoothing_factors as smoothing_factors
from jaxlt.losses.lade import lade as lade
from jaxlt.losses.margins import gcl as gcl
from jaxlt.losses.margins import gcl_noise as gcl_noise
from jaxlt.losses.margins import ldam as ldam
from jaxlt.losses.softmax import balanced_softmax as balanced_softmax
from jaxlt.losses.softmax import cross_entropy as cross_entropy
from jaxlt.losses.softmax import logit_adjusted as logit_adjusted
from jaxlt.losses.softmax import vector_scaling as vector_scaling
from jaxlt.losses.weights import class_balanced_weights as class_balanced_weights
from jaxlt.losses.weights import deferred_reweighting as deferred_reweighting

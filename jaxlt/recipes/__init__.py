"""Recipes: every number that a run depends on, as a tree of typed parts, and what trains one.

>>> from jaxlt import recipes
>>> recipes.named("focal_sam_cifar100").first.method.rho
0.3
"""

from jaxlt.recipes.data import IDX as IDX
from jaxlt.recipes.data import TFDS as TFDS
from jaxlt.recipes.data import Balanced as Balanced
from jaxlt.recipes.data import Data as Data
from jaxlt.recipes.data import Digits as Digits
from jaxlt.recipes.data import Exponential as Exponential
from jaxlt.recipes.data import Folder as Folder
from jaxlt.recipes.data import Lists as Lists
from jaxlt.recipes.data import Native as Native
from jaxlt.recipes.data import Profile as Profile
from jaxlt.recipes.data import Source as Source
from jaxlt.recipes.data import Step as Step
from jaxlt.recipes.execution import Execution as Execution
from jaxlt.recipes.images import Augmentation as Augmentation
from jaxlt.recipes.images import AutoAugment as AutoAugment
from jaxlt.recipes.images import ClassAware as ClassAware
from jaxlt.recipes.images import ClassBalancedSampler as ClassBalancedSampler
from jaxlt.recipes.images import EffectiveNumber as EffectiveNumber
from jaxlt.recipes.images import InstanceBalanced as InstanceBalanced
from jaxlt.recipes.images import Progressive as Progressive
from jaxlt.recipes.images import RandAugment as RandAugment
from jaxlt.recipes.images import Sampler as Sampler
from jaxlt.recipes.images import SquareRoot as SquareRoot
from jaxlt.recipes.losses import GCL as GCL
from jaxlt.recipes.losses import LADE as LADE
from jaxlt.recipes.losses import LDAM as LDAM
from jaxlt.recipes.losses import Adversary as Adversary
from jaxlt.recipes.losses import BalancedSoftmax as BalancedSoftmax
from jaxlt.recipes.losses import ClassBalanced as ClassBalanced
from jaxlt.recipes.losses import CrossEntropy as CrossEntropy
from jaxlt.recipes.losses import Focal as Focal
from jaxlt.recipes.losses import LabelAwareSmoothing as LabelAwareSmoothing
from jaxlt.recipes.losses import LogitAdjusted as LogitAdjusted
from jaxlt.recipes.losses import Loss as Loss
from jaxlt.recipes.losses import PaperAdversary as PaperAdversary
from jaxlt.recipes.losses import ReleasedAdversary as ReleasedAdversary
from jaxlt.recipes.losses import VectorScaling as VectorScaling
from jaxlt.recipes.methods import CCSAM as CCSAM
from jaxlt.recipes.methods import SAM as SAM
from jaxlt.recipes.methods import SGD as SGD
from jaxlt.recipes.methods import SSESAM as SSESAM
from jaxlt.recipes.methods import FocalSAM as FocalSAM
from jaxlt.recipes.methods import GradientNormPenalty as GradientNormPenalty
from jaxlt.recipes.methods import ImbSAM as ImbSAM
from jaxlt.recipes.methods import Method as Method
from jaxlt.recipes.methods import RandomPerturbation as RandomPerturbation
from jaxlt.recipes.named import named as named
from jaxlt.recipes.network import Adaptation as Adaptation
from jaxlt.recipes.network import Clip as Clip
from jaxlt.recipes.network import Cosine as Cosine
from jaxlt.recipes.network import DINOv2 as DINOv2
from jaxlt.recipes.network import ImageNetResNet as ImageNetResNet
from jaxlt.recipes.network import Linear as Linear
from jaxlt.recipes.network import Network as Network
from jaxlt.recipes.network import RandomEncoder as RandomEncoder
from jaxlt.recipes.network import Small as Small
from jaxlt.recipes.optimizer import Optimizer as Optimizer
from jaxlt.recipes.part import Clock as Clock
from jaxlt.recipes.part import Part as Part
from jaxlt.recipes.recipe import Evaluation as Evaluation
from jaxlt.recipes.recipe import Recipe as Recipe
from jaxlt.recipes.recipe import read_recipe as read_recipe
from jaxlt.recipes.stage import NearestClassMean as NearestClassMean
from jaxlt.recipes.stage import Stage as Stage
from jaxlt.recipes.stage import TauNorm as TauNorm
from jaxlt.recipes.train import train as train
from jaxlt.recipes.trained_run import TrainedRun as TrainedRun

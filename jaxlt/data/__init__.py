"""Data: sources, long-tailed splits, samplers, and pipelines of tf.data or on the device.

TensorFlow is imported when a pipeline that needs it is built, not when this package is.
"""

from jaxlt.data.batches import Batch as Batch
from jaxlt.data.batches import Chunk as Chunk
from jaxlt.data.batches import Pipeline as Pipeline
from jaxlt.data.device_evaluation import DeviceEvaluation as DeviceEvaluation
from jaxlt.data.device_pipeline import DevicePipeline as DevicePipeline
from jaxlt.data.draws import Augmentation as Augmentation
from jaxlt.data.draws import DrawStream as DrawStream
from jaxlt.data.draws import Policy as Policy
from jaxlt.data.draws import Shift as Shift
from jaxlt.data.image_set import ArrayImages as ArrayImages
from jaxlt.data.image_set import ImageSet as ImageSet
from jaxlt.data.image_set import refuse_undecodable as refuse_undecodable
from jaxlt.data.long_tail import Profile as Profile
from jaxlt.data.long_tail import SelectionRule as SelectionRule
from jaxlt.data.long_tail import held_out_images as held_out_images
from jaxlt.data.long_tail import long_tailed_counts as long_tailed_counts
from jaxlt.data.long_tail import profile_counts as profile_counts
from jaxlt.data.long_tail import select_images as select_images
from jaxlt.data.pipeline import TfDataPipeline as TfDataPipeline
from jaxlt.data.pipeline import evaluation_batches as evaluation_batches
from jaxlt.data.resampling import Resize as Resize
from jaxlt.data.samplers import ClassAware as ClassAware
from jaxlt.data.samplers import ClassProbability as ClassProbability
from jaxlt.data.samplers import InstanceBalanced as InstanceBalanced
from jaxlt.data.samplers import Sampler as Sampler
from jaxlt.data.samplers import SamplerName as SamplerName
from jaxlt.data.samplers import create_sampler as create_sampler
from jaxlt.data.sources import Normalization as Normalization
from jaxlt.data.sources import Relabel as Relabel
from jaxlt.data.sources import Source as Source
from jaxlt.data.sources import is_of_files as is_of_files
from jaxlt.data.sources import load_source as load_source
from jaxlt.data.splits import Split as Split
from jaxlt.data.splits import long_tailed_split as long_tailed_split
from jaxlt.data.unreadable import SkipLog as SkipLog
from jaxlt.data.unreadable import Unreadable as Unreadable

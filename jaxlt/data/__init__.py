"""Data: sources, long-tailed splits, samplers, and pipelines of tf.data or on the device.

TensorFlow is imported when a pipeline that needs it is built, not when this package is.
"""

from jaxlt.data.pipelines.batches import Batch as Batch
from jaxlt.data.pipelines.batches import Chunk as Chunk
from jaxlt.data.pipelines.batches import Pipeline as Pipeline
from jaxlt.data.pipelines.device_pipeline import DeviceEvaluation as DeviceEvaluation
from jaxlt.data.pipelines.device_pipeline import DevicePipeline as DevicePipeline
from jaxlt.data.pipelines.draws import DrawStream as DrawStream
from jaxlt.data.pipelines.draws import ImageAugmentation as ImageAugmentation
from jaxlt.data.pipelines.draws import Policy as Policy
from jaxlt.data.pipelines.draws import Shift as Shift
from jaxlt.data.pipelines.tf_pipeline import TfDataPipeline as TfDataPipeline
from jaxlt.data.pipelines.tf_pipeline import evaluation_batches as evaluation_batches
from jaxlt.data.sampling.long_tail import Profile as Profile
from jaxlt.data.sampling.long_tail import SelectionRule as SelectionRule
from jaxlt.data.sampling.long_tail import Split as Split
from jaxlt.data.sampling.long_tail import long_tailed_counts as long_tailed_counts
from jaxlt.data.sampling.long_tail import long_tailed_split as long_tailed_split
from jaxlt.data.sampling.long_tail import profile_counts as profile_counts
from jaxlt.data.sampling.long_tail import select_images as select_images
from jaxlt.data.sampling.samplers import InstanceBalancedSampler as InstanceBalancedSampler
from jaxlt.data.sampling.samplers import Sampler as Sampler
from jaxlt.data.sampling.samplers import SamplerName as SamplerName
from jaxlt.data.sampling.samplers import create_sampler as create_sampler
from jaxlt.data.sampling.validation import held_out_images as held_out_images
from jaxlt.data.sampling.validation import validation_images as validation_images
from jaxlt.data.sources.array_images import ArrayImages as ArrayImages
from jaxlt.data.sources.image_set import ImageSet as ImageSet
from jaxlt.data.sources.resampling import Resize as Resize
from jaxlt.data.sources.source import Normalization as Normalization
from jaxlt.data.sources.source import Relabel as Relabel
from jaxlt.data.sources.source import Source as Source
from jaxlt.data.sources.source import load_source as load_source
from jaxlt.data.sources.unreadable import Unreadable as Unreadable

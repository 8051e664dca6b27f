"""Training: state, jitted step, schedules, checkpoints and the resumable loop."""

from jaxlt.devices.memory import device_memory as device_memory
from jaxlt.errors import Interrupted as Interrupted
from jaxlt.runs.checkpoint import Checkpoints as Checkpoints
from jaxlt.runs.workdir import Workdir as Workdir
from jaxlt.training.loop.job import Job as Job
from jaxlt.training.loop.job import JobStage as JobStage
from jaxlt.training.loop.job import Steps as Steps
from jaxlt.training.loop.program import Program as Program
from jaxlt.training.loop.program import steps_per_chunk as steps_per_chunk
from jaxlt.training.loop.train import train as train
from jaxlt.training.loop.train import train_together as train_together
from jaxlt.training.step.ensemble import EnsemblePipeline as EnsemblePipeline
from jaxlt.training.step.ensemble import at_one_step as at_one_step
from jaxlt.training.step.ensemble import over_members as over_members
from jaxlt.training.step.ensemble import stack as stack
from jaxlt.training.step.measurement import Measurements as Measurements
from jaxlt.training.step.measurement import make_measure_fn as make_measure_fn
from jaxlt.training.step.network_pass import Moment as Moment
from jaxlt.training.step.network_pass import PerExampleLoss as PerExampleLoss
from jaxlt.training.step.network_pass import Regime as Regime
from jaxlt.training.step.state import TrainState as TrainState
from jaxlt.training.step.state import make_state_fn as make_state_fn
from jaxlt.training.step.state import next_stage as next_stage
from jaxlt.training.step.train_step import make_logits_fn as make_logits_fn
from jaxlt.training.step.train_step import make_train_step as make_train_step
from jaxlt.training.step.train_step import over_shards as over_shards

"""Training: state, jitted step, schedules, checkpoints and the resumable loop."""

from jaxlt.errors import Interrupted as Interrupted
from jaxlt.training.checkpoint import Checkpoints as Checkpoints
from jaxlt.training.job import Job as Job
from jaxlt.training.job import JobStage as JobStage
from jaxlt.training.job import Steps as Steps
from jaxlt.training.loop import train as train
from jaxlt.training.loop import train_together as train_together
from jaxlt.training.measurement import Measurements as Measurements
from jaxlt.training.measurement import make_measure_fn as make_measure_fn
from jaxlt.training.memory import device_memory as device_memory
from jaxlt.training.network_pass import Moment as Moment
from jaxlt.training.network_pass import PerExampleLoss as PerExampleLoss
from jaxlt.training.network_pass import Regime as Regime
from jaxlt.training.program import Program as Program
from jaxlt.training.program import steps_per_chunk as steps_per_chunk
from jaxlt.training.replicas import ReplicaPipeline as ReplicaPipeline
from jaxlt.training.replicas import at_one_step as at_one_step
from jaxlt.training.replicas import over_replicas as over_replicas
from jaxlt.training.replicas import stack as stack
from jaxlt.training.state import TrainState as TrainState
from jaxlt.training.state import make_state_fn as make_state_fn
from jaxlt.training.state import next_stage as next_stage
from jaxlt.training.step import make_logits_fn as make_logits_fn
from jaxlt.training.step import make_train_step as make_train_step
from jaxlt.training.step import over_shards as over_shards
from jaxlt.training.workdir import Workdir as Workdir

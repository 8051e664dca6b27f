"""Training: state, jitted step and the resumable loop."""

from jaxlt.errors import Interrupted as Interrupted
from jaxlt.runs.checkpoint import Checkpoints as Checkpoints
from jaxlt.runs.workdir import Workdir as Workdir
from jaxlt.training.loop.job import Job as Job
from jaxlt.training.loop.job import JobStage as JobStage
from jaxlt.training.loop.job import Steps as Steps
from jaxlt.training.loop.program import Program as Program
from jaxlt.training.loop.train import train as train
from jaxlt.training.step.decoupling import next_stage as next_stage
from jaxlt.training.step.measurement import Measurements as Measurements
from jaxlt.training.step.measurement import make_measure_fn as make_measure_fn
from jaxlt.training.step.network_pass import Regime as Regime
from jaxlt.training.step.per_example_loss import Moment as Moment
from jaxlt.training.step.per_example_loss import PerExampleLoss as PerExampleLoss
from jaxlt.training.step.state import TrainState as TrainState
from jaxlt.training.step.state import make_state_fn as make_state_fn
from jaxlt.training.step.train_step import make_logits_fn as make_logits_fn
from jaxlt.training.step.train_step import make_train_step as make_train_step

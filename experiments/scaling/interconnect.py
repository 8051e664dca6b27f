"""A model of data-parallel steps: arithmetic, collectives and input of one step, in seconds.

The batch of each device is fixed. Collectives reduce-scatter within the node, all-reduce each
device's share between nodes, and all-gather within the node. Devices wait for all of them, but for
the all-reduce of the last gradient, which runs beside a share of the backward pass that makes it: a
perturbation waits for its whole gradient, batch norm for its statistics. Input comes meanwhile.
"""

import dataclasses
import math

from jaxlt import UsageError


@dataclasses.dataclass(frozen=True)
class Machine:
    """The accelerators; the defaults are of NVIDIA's DGX H100, from its data sheet or as said."""

    peak_flops: float = 989e12
    """FLOP/s of one accelerator, bfloat16 without sparsity."""
    utilization: float = 0.35
    """Share of them that training reaches: an assumption."""
    devices_per_node: int = 8
    """Accelerators of a node."""
    node_bandwidth: float = 450e9
    """Bytes a second that one accelerator sends within its node (NVLink)."""
    network_bandwidth: float = 50e9
    """Bytes a second that one accelerator sends to other nodes (400 Gbit/s each)."""
    node_latency: float = 2e-6
    """Seconds of a hop within a node: an assumption."""
    network_latency: float = 5e-6
    """Seconds of a hop between nodes: an assumption."""
    overlap: float = 0.5
    """Share of the backward pass beside which the last gradient is reduced: an assumption."""
    node_cores: int = 112
    """Cores of a node, which decode."""
    core_images: float = 332.0
    """Images a second that a core decodes, crops and flips: half of what two cores of an AMD EPYC
    virtual machine made in experiments.input_throughput."""
    host_bandwidth: float = 50e9
    """Bytes a second from the host to one accelerator: an assumption for PCIe 5."""

    def __post_init__(self):
        """Raises UsageError unless every number is positive, and shares are at most 1."""
        for name, value in dataclasses.asdict(self).items():
            if not (0 < value < math.inf or (name == "overlap" and value == 0)):
                raise UsageError(f"{name} must be positive, got {value}")
            if name in ("utilization", "overlap") and value > 1:
                raise UsageError(f"{name} must be at most 1, got {value}")

    def levels(self, devices: int) -> tuple[int, int]:
        """Returns how many nodes so many devices fill, and how many devices each has of them."""
        if devices > self.devices_per_node and devices % self.devices_per_node:
            raise UsageError(
                f"devices must fill nodes of {self.devices_per_node} or be fewer, got {devices}"
            )
        nodes = max(1, devices // self.devices_per_node)
        return nodes, devices // nodes


@dataclasses.dataclass(frozen=True)
class Traffic:
    """The collectives of one step, and the bytes that each device puts into all of a kind."""

    all_reduces: int
    reduced_bytes: int
    all_gathers: int = 0
    gathered_bytes: int = 0


@dataclasses.dataclass(frozen=True)
class Work:
    """What one device does in a step.

    `image_bytes` are of one image as it goes to the device, `backward_flops` of the backward pass
    beside which the last gradient is reduced.
    """

    flops: float
    gradient_bytes: int
    traffic: Traffic
    images: int
    image_bytes: int
    backward_flops: float = 0.0


@dataclasses.dataclass(frozen=True)
class StepTime:
    """Seconds of one step on some devices; `transfer` is what runs beside no backward pass."""

    compute: float
    latency: float
    transfer: float
    input: float

    @property
    def without_input(self) -> float:
        """Seconds of a step that never waits for its images."""
        return self.compute + self.latency + self.transfer

    @property
    def efficiency(self) -> float:
        """Share of the step in which the device computes."""
        return self.compute / max(self.without_input, self.input)

    @property
    def interconnect_efficiency(self) -> float:
        """The same of a step that never waits for its images."""
        return self.compute / self.without_input

    @property
    def bound(self) -> str:
        """What takes most of the step."""
        if self.input > self.without_input:
            return "input"
        parts = {"compute": self.compute, "latency": self.latency, "bandwidth": self.transfer}
        return max(parts, key=parts.__getitem__)


def step_time(work: Work, devices: int, machine: Machine) -> StepTime:
    """Returns what the model says of a step in which each of so many devices does `work`."""
    traffic, rate = work.traffic, machine.peak_flops * machine.utilization
    last = min(work.gradient_bytes, traffic.reduced_bytes)
    waited = reduce_seconds(traffic.reduced_bytes - last, devices, machine)
    waited += gather_seconds(traffic.gathered_bytes, devices, machine)
    hidden = machine.overlap * work.backward_flops / rate
    images = work.images * min(devices, machine.devices_per_node)
    return StepTime(
        compute=work.flops / rate,
        latency=(2 * traffic.all_reduces + traffic.all_gathers) * hop_seconds(devices, machine),
        transfer=waited + max(0.0, reduce_seconds(last, devices, machine) - hidden),
        input=max(
            images / (machine.node_cores * machine.core_images),
            work.images * work.image_bytes / machine.host_bandwidth,
        ),
    )


def reduce_seconds(size: float, devices: int, machine: Machine) -> float:
    """Returns the seconds that the bytes of an all-reduce take: 2 (n - 1) / n of them, by level."""
    nodes, local = machine.levels(devices)
    inside = 2 * (local - 1) / local * size / machine.node_bandwidth
    return inside + 2 * (nodes - 1) / nodes * size / local / machine.network_bandwidth


def gather_seconds(size: float, devices: int, machine: Machine) -> float:
    """Returns the seconds that bytes of each device take to all others, between nodes first."""
    nodes, local = machine.levels(devices)
    between = (nodes - 1) * size / machine.network_bandwidth
    return between + (local - 1) * nodes * size / machine.node_bandwidth


def hop_seconds(devices: int, machine: Machine) -> float:
    """Returns the latency of half an all-reduce: around the node, and up the tree of nodes."""
    nodes, local = machine.levels(devices)
    height = math.ceil(math.log2(nodes))
    return (local - 1) * machine.node_latency + height * machine.network_latency

"""The loop that every stage shares: steps, averaged weights, saved state, several GPUs, logs.

A stage is a `Task`: its networks and optimizers, how to make a batch and what one step does with it. Batch and random
state of a step are derived from (seed, rank, step) alone, so a run that was cut off and resumed does exactly what it
would have done, with any number of workers.

Where time is what is short, train until a deadline (`--minutes`), which saves, validates and publishes; read the steps
a second from the log, and resume with `--set loop.steps=N` for the N that fits: the learning rate then falls over the
last `decay_share` of those N, from where it stands if that began in the past.

Several GPUs of one host (`torchrun --nproc-per-node N -m engine.training ...`): every process makes its own batches and
gradients are averaged in `TrainingLoop.update`, which also serves tasks that update several networks in one step.
"""

import copy
import logging
import multiprocessing
import os
import time
from abc import ABC, abstractmethod
from collections.abc import Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.distributed as distributed
from torch import Tensor, nn
from torch.utils.data import DataLoader, Dataset

from engine.errors import TrainingError
from engine.training.config import Orders

_log = logging.getLogger(__name__)

STATE_NAME = "state.pt"
_STEPS_BETWEEN_LOOKS = 20


@dataclass(frozen=True)
class LoopConfig:
    """How long and how to train; the `[loop]` part of a stage's settings.

    Attributes:
        steps: Length of the run.
        seed: Of weights, batches and noise.
        warmup_steps: Steps over which learning rates rise from zero.
        decay_share: Last share of the run over which they fall to zero (linear); in between they stay. Changing
            `steps` of a resumed run before its decay began loses nothing.
        decay_by_clock: Let the fall take the last share of the time to the deadline instead, where there is one.
        ema_decay: Averaging of the weights that are validated and published; it starts short and grows to this.
        gradient_norm: Gradients of one update are clipped to this norm.
        log_every: Steps between log lines.
        save_every: Steps between saved states.
        validate_every: Steps between validations, each followed by a publication if the task publishes.
        workers: Processes that make batches ahead; 0 makes them between the steps (so does a system without fork).
        num_threads: CPU threads of torch in this process; 0 leaves torch's own choice.
        amp: Compute in bfloat16 where torch holds that safe (CUDA only).
    """

    steps: int
    seed: int = 0
    warmup_steps: int = 100
    decay_share: float = 0.3
    decay_by_clock: bool = False
    ema_decay: float = 0.998
    gradient_norm: float = 5.0
    log_every: int = 20
    save_every: int = 200
    validate_every: int = 400
    workers: int = 0
    num_threads: int = 1
    amp: bool = True

    def __post_init__(self) -> None:
        if self.steps < 1 or min(self.log_every, self.save_every, self.validate_every) < 1 or self.workers < 0:
            raise TrainingError("steps, log_every, save_every and validate_every must be at least 1, workers 0.")
        if not 0 <= self.decay_share <= 1 or not 0 <= self.ema_decay < 1:
            raise TrainingError("decay_share must lie in [0, 1], ema_decay in [0, 1).")

    def learning_rate_scale(self, step: int, left: float | None = None) -> float:
        """Factor on every learning rate: rise, plateau, linear fall.

        Args:
            step: Which step.
            left: Share of the run that is left; None counts steps.
        """
        rise = min(1.0, (step + 1) / max(self.warmup_steps, 1))
        left = 1.0 - step / self.steps if left is None else left
        return rise * max(0.0, min(1.0, left / self.decay_share if self.decay_share else 1.0))


class Task(ABC):
    """What a stage trains.

    Attributes:
        networks: Trained networks by name, on the device they train on. Only these are averaged and saved.
        optimizers: By name; each name is what `TrainingLoop.update` takes.
    """

    networks: dict[str, nn.Module]
    optimizers: dict[str, torch.optim.Optimizer]

    @abstractmethod
    def batch(self, rng: np.random.Generator) -> Any:
        """Make the batch of one step from this random state alone.

        Runs in a forked process if there are workers: whatever it changes is lost, and it must not touch a GPU.
        """

    @abstractmethod
    def step(self, batch: Any, loop: "TrainingLoop") -> dict[str, Tensor]:
        """Compute losses and call `loop.update` once for each optimizer.

        Returns:
            Scalars for the log, detached; the smoke test asks that the one called "loss" falls.
        """

    @abstractmethod
    def validate(self, averaged: Mapping[str, nn.Module]) -> dict[str, float]:
        """Measure the averaged networks (in evaluation mode) on what training never saw; rank 0 only."""

    @abstractmethod
    def publish(self, averaged: Mapping[str, nn.Module], step: int, figures: Mapping[str, float]) -> None:
        """Write the averaged networks where the program finds them, if this task is told to; rank 0 only."""


class TrainingLoop:
    """Runs a task.

    Args:
        task: What to train. All processes must build it with the same weights: seed with `config.seed` before.
        config: Length and manner.
        run_folder: Takes the saved state and TensorBoard's log.
        resume: Go on from the saved state; a fresh start when there is none.

    Raises:
        TrainingError: There is a saved state and `resume` is not set, or it does not fit the task.
    """

    def __init__(self, task: Task, config: LoopConfig, run_folder: Path, *, resume: bool) -> None:
        self.task, self.config, self.run_folder = task, config, run_folder
        self.step = 0
        self._clock: tuple[float, float] | None = None
        self.rank = distributed.get_rank() if distributed.is_initialized() else 0
        self.torch_device = next(next(iter(task.networks.values())).parameters()).device
        self._base_rates = {
            name: [group["lr"] for group in optimizer.param_groups] for name, optimizer in task.optimizers.items()
        }
        self._average = {name: _copy_of(network) for name, network in task.networks.items()}
        run_folder.mkdir(parents=True, exist_ok=True)
        state = run_folder / STATE_NAME
        if state.exists() and not resume:
            raise TrainingError(
                f"{run_folder} holds a run already.", hint="Go on with --resume or choose another --run folder."
            )
        if state.exists():
            self._load(state)

    def run(self, *, until: int | None = None, deadline: float | None = None) -> dict[str, float]:
        """Train to the end, to step `until` or to a deadline; a run that is there already is only measured.

        Args:
            until: A step.
            deadline: Value of `time.monotonic()` after which no step begins; then this saves, validates and publishes.

        Returns:
            The figures of the validation at the end.
        """
        end = min(until or self.config.steps, self.config.steps)
        if self.config.num_threads:
            torch.set_num_threads(self.config.num_threads)
        if self.config.decay_by_clock and distributed.is_initialized():
            raise TrainingError("Processes of a group cannot decay by the clock.", hint="Set loop.steps instead.")
        figures: dict[str, float] = {}
        if self.step >= end:
            return self._validate()
        started, start_step = time.monotonic(), self.step
        self._clock = None if deadline is None else (started, deadline)
        with _log_writer(self.run_folder, self.rank, self.step) as writer, self._batches(end) as batches:
            for batch in batches:
                scalars = self._one_step(batch)
                self.step += 1
                last = self.step == end or self._is_late(deadline)
                if self.step % self.config.log_every == 0 or last:
                    values = {name: float(value) for name, value in scalars.items()}
                    rate = (self.step - start_step) / (time.monotonic() - started)
                    _write(writer, "train", values, self.step)
                    _log.info("step %d: %s (%.2f steps/s)", self.step, _words(values), rate)
                    if not all(np.isfinite(value) for value in values.values()):
                        raise TrainingError(f"Training diverged at step {self.step}.", hint="Lower the learning rate.")
                if self.step % self.config.save_every == 0 or last:
                    self.save()
                if self.step % self.config.validate_every == 0 or last:
                    figures = self._validate()
                    _write(writer, "validation", figures, self.step)
                if last:
                    break
        return figures

    def update(self, name: str, loss: Tensor) -> None:
        """One step of the optimizer `name` on this loss: gradients, their mean over processes, clipping, step."""
        optimizer = self.task.optimizers[name]
        optimizer.zero_grad(set_to_none=True)
        loss.backward()
        parameters = [p for group in optimizer.param_groups for p in group["params"] if p.grad is not None]
        gradients = [p.grad for p in parameters if p.grad is not None]
        if distributed.is_initialized():
            flat = torch.cat([gradient.flatten() for gradient in gradients])
            distributed.all_reduce(flat)
            flat /= distributed.get_world_size()
            parts = flat.split([gradient.numel() for gradient in gradients])
            for gradient, part in zip(gradients, parts, strict=True):
                gradient.copy_(part.view_as(gradient))
        norm = nn.utils.clip_grad_norm_(parameters, self.config.gradient_norm)
        if not torch.isfinite(norm):  # one bad batch must not cost the run; the log's losses tell if it is more
            _log.warning("step %d: the gradient of %s is not finite; left out", self.step, name)
            return
        scale = self._learning_rate_scale()
        for group, rate in zip(optimizer.param_groups, self._base_rates[name], strict=True):
            group["lr"] = rate * scale
        optimizer.step()

    def _learning_rate_scale(self) -> float:
        if not self.config.decay_by_clock or self._clock is None:
            return self.config.learning_rate_scale(self.step)
        started, deadline = self._clock
        return self.config.learning_rate_scale(self.step, (deadline - time.monotonic()) / (deadline - started))

    def autocast(self) -> AbstractContextManager[object]:
        """Mixed precision for the forward pass and the loss: bfloat16 on CUDA if `amp` is set, else nothing."""
        on = self.config.amp and self.torch_device.type == "cuda"
        return torch.autocast(self.torch_device.type, torch.bfloat16, enabled=on)

    def save(self) -> None:
        """Save everything that resuming needs, whole or not at all; rank 0 only."""
        if self.rank:
            return
        state = {
            "step": self.step,
            "networks": {name: network.state_dict() for name, network in self.task.networks.items()},
            "average": {name: network.state_dict() for name, network in self._average.items()},
            "optimizers": {name: optimizer.state_dict() for name, optimizer in self.task.optimizers.items()},
        }
        temporary = self.run_folder / (STATE_NAME + ".part")
        torch.save(state, temporary)
        os.replace(temporary, self.run_folder / STATE_NAME)

    def _load(self, path: Path) -> None:
        try:
            state = torch.load(path, map_location=self.torch_device, weights_only=True)
            for name, network in self.task.networks.items():
                network.load_state_dict(state["networks"][name])
                self._average[name].load_state_dict(state["average"][name])
            for name, optimizer in self.task.optimizers.items():
                optimizer.load_state_dict(state["optimizers"][name])
            self.step = int(state["step"])
        except (OSError, RuntimeError, KeyError, ValueError) as error:
            raise TrainingError(
                f"The saved state {path} does not fit this run: {error}.", hint="Start afresh in another --run folder."
            ) from error
        _log.info("resumed at step %d", self.step)

    def _one_step(self, batch: Any) -> dict[str, Tensor]:
        torch.manual_seed(_mix(self.config.seed, self.rank, self.step))
        for network in self.task.networks.values():
            network.train()
        scalars = self.task.step(batch, self)
        keep = min(self.config.ema_decay, (self.step + 1) / (self.step + 10))
        with torch.no_grad():
            for name, network in self.task.networks.items():
                _average_into(self._average[name], network, keep)
        return scalars

    def _validate(self) -> dict[str, float]:
        figures: dict[str, float] = {}
        if self.rank == 0:
            figures = self.task.validate(self._average)
            _log.info("validation at step %d: %s", self.step, _words(figures))
            self.task.publish(self._average, self.step, figures)
        if distributed.is_initialized():
            distributed.barrier()
        return figures

    def _is_late(self, deadline: float | None) -> bool:
        """Whether to stop; the processes of a group agree, and look only now and then because that costs them time."""
        if deadline is None:
            return False
        late = time.monotonic() >= deadline
        if not distributed.is_initialized():
            return late
        if self.step % _STEPS_BETWEEN_LOOKS:
            return False
        flag = torch.tensor(float(late), device=self.torch_device)
        distributed.broadcast(flag, src=0)
        return bool(flag)

    @contextmanager
    def _batches(self, end: int) -> Iterator[Iterator[Any]]:
        batches, steps = _Batches(self.task, self.config.seed, self.rank), range(self.step, end)
        workers = min(self.config.workers, len(steps))
        if not workers or "fork" not in multiprocessing.get_all_start_methods():
            yield map(batches.__getitem__, steps)
            return
        loader: DataLoader[Any] = DataLoader(
            batches,
            batch_size=None,
            sampler=steps,
            num_workers=workers,
            prefetch_factor=2,
            multiprocessing_context="fork",
            worker_init_fn=_start_worker,
            generator=torch.Generator(),  # leaves the random state of weights and steps alone
        )
        yield iter(loader)


class _Batches(Dataset[Any]):
    """The batch of every step, by its number."""

    def __init__(self, task: Task, seed: int, rank: int) -> None:
        self._task, self._seed, self._rank = task, seed, rank

    def __getitem__(self, step: int) -> Any:
        return self._task.batch(np.random.default_rng((self._seed, self._rank, step)))


def _start_worker(_number: int) -> None:
    torch.set_num_threads(1)


def run_task(task: Task, config: LoopConfig, orders: Orders) -> dict[str, float]:
    """Run a task as a stage was ordered to; see `TrainingLoop`."""
    loop = TrainingLoop(task, config, orders.run_folder, resume=orders.resume)
    return loop.run(until=orders.until, deadline=orders.deadline)


@contextmanager
def process_group() -> Iterator[torch.device | None]:
    """Join the other processes when torchrun started this one; gives this process's GPU, None when alone."""
    if "LOCAL_RANK" not in os.environ:
        yield None
        return
    local_rank = int(os.environ["LOCAL_RANK"])
    cuda = torch.cuda.is_available()
    if cuda:
        torch.cuda.set_device(local_rank)
    distributed.init_process_group("nccl" if cuda else "gloo")
    try:
        yield torch.device("cuda", local_rank) if cuda else torch.device("cpu")
    finally:
        distributed.destroy_process_group()


def _copy_of(network: nn.Module) -> nn.Module:
    return copy.deepcopy(network).eval().requires_grad_(False)


def _average_into(average: nn.Module, network: nn.Module, keep: float) -> None:
    old, new = average.state_dict(), network.state_dict()
    floating = [name for name, value in old.items() if value.is_floating_point()]
    torch._foreach_lerp_([old[name] for name in floating], [new[name] for name in floating], 1 - keep)
    for name in old.keys() - set(floating):
        old[name].copy_(new[name])


def _mix(*numbers: int) -> int:
    return int(np.random.SeedSequence(numbers).generate_state(1, np.uint64)[0] >> 1)


def _words(values: Mapping[str, float]) -> str:
    return ", ".join(f"{name} {value:.4g}" for name, value in values.items())


@contextmanager
def _log_writer(run_folder: Path, rank: int, step: int) -> Iterator[Any]:
    if rank:
        yield None
        return
    try:
        from torch.utils.tensorboard import SummaryWriter
    except ImportError as error:
        raise TrainingError("TensorBoard is not installed.", hint="pip install 'autovoice[training]'.") from error
    with SummaryWriter(str(run_folder), purge_step=step) as writer:
        yield writer


def _write(writer: Any, group: str, values: Mapping[str, float], step: int) -> None:
    if writer is not None:
        for name, value in values.items():
            writer.add_scalar(f"{group}/{name}", value, step)
        writer.flush()

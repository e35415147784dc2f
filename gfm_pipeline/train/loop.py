"""The training loop: what happens in which order, step after step."""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from gfm_pipeline.data.batch import HeterogeneousBatch
from gfm_pipeline.data.loader import Loader
from gfm_pipeline.errors import TrainingError
from gfm_pipeline.train.assemble import Hook, Run
from gfm_pipeline.train.checkpoint import CheckpointState, checkpoint_name
from gfm_pipeline.train.comm import assert_equal_on_all_ranks
from gfm_pipeline.train.console import Console, say
from gfm_pipeline.train.data_metrics import DataMeter
from gfm_pipeline.train.health import Health
from gfm_pipeline.train.load import latest_name
from gfm_pipeline.train.moments import count_updates
from gfm_pipeline.train.resume import load_latest
from gfm_pipeline.train.save import Saver
from gfm_pipeline.train.schedule import learning_rate
from gfm_pipeline.train.step import StepResult, train_step
from gfm_pipeline.train.track import gather_metrics
from gfm_pipeline.train.unmoved import MotionWatch

EVENTS = "events"
"""Table of what happened beside training: bad steps, rewinds, parameters that do not move."""

StopRequest = Callable[[], str | None]
"""Why this rank wants the run to end and be requeued, in words, or None."""


class Training:
    """A run under way, on one rank; all ranks take the same path through it."""

    def __init__(self, run: Run, loader: Loader, saver: Saver, health: Health, stop_request: StopRequest) -> None:
        self._run = run
        self._loader = loader
        self._saver = saver
        self._health = health
        self._stop_request = stop_request
        self._stopping = False
        self._console = Console(run.world, run.last_step)
        self._meter = DataMeter(loader)

    def train(self, hooks: Sequence[Hook], first_step: int) -> bool:
        """Take the steps from `first_step` on; return True at the end of the run, False when it is to be requeued."""
        run, config, world, last_step = self._run, self._run.config, self._run.world, self._run.last_step
        if first_step >= last_step:
            say(world, f"nothing to do: the run has taken {first_step} of {last_step} steps.")
            return True
        motion = MotionWatch(run.model) if config.health.unmoved_after_steps else None
        batches = iter(self._loader)
        if config.health.on_bad_step == "rewind" and latest_name(run.store) is None:
            self._save(0)  # there is always something to go back to
        for step in range(first_step, last_step):
            run.beat(f"step {step}")
            started = time.perf_counter()
            lanes = next(batches)
            waited = time.perf_counter() - started
            self._record_skipped(step)
            if step == first_step:
                layout = (self._loader.state(step).plan_digest, [lane.layout() for lane in lanes])
                assert_equal_on_all_ranks(world, "order of samples or batch layout", layout)
            result = self._step(lanes, step)
            if step % config.log.every_steps == 0 or step + 1 == last_step:
                self._log(result, step, started, waited)
            self._care(result, step)
            if motion and step + 1 - first_step == config.health.unmoved_after_steps:
                self._report_unmoved(motion, step)
            for hook in hooks:
                run.beat(f"evaluation after step {step}")
                hook(run, step)
            if (step + 1) % config.checkpoint.every_steps == 0 or step + 1 == last_step or self._stopping:
                self._save(step + 1)
            if self._stopping and step + 1 < last_step:
                self._saver.wait()
                return False
        self._saver.wait()
        say(world, f"finished: {last_step} steps, checkpoint in {run.store.url}/{checkpoint_name(last_step)}")
        return True

    def _step(self, lanes: tuple[HeterogeneousBatch, ...], step: int) -> StepResult:
        run = self._run
        return run.updates.take(
            lanes,
            step,
            run.engine.optimizer.param_groups,
            lambda some: train_step(run.engine, some, run.model, run.world, run.config.seed, self._judge),
        )

    def _judge(self, own_loss: float) -> float:
        """Agree with all ranks on the loss and on whether to stop; return the limit for the gradient's norm."""
        total, stops = self._run.world.exchange([own_loss, self._stop_request() is not None])
        self._stopping = stops > 0
        return self._health.norm_limit(total / self._run.world.size)

    def _care(self, result: StepResult, step: int) -> None:
        """Do what the configuration wants done about a bad step."""
        reason = self._health.note(step, result)
        if reason is None:
            return
        run, policy = self._run, self._run.config.health.on_bad_step
        event: dict[str, Any] = {"step": step, "event": policy, "reason": reason}
        if policy == "rewind":
            run.beat(f"rewind at step {step}")
            self._saver.wait()
            name = latest_name(run.store)
            assert name is not None  # one is written before the first step
            state = load_latest(run, name)
            self._health = self._health.rewound(state.health)
            event["left_out"] = [state.step, step]
        say(run.world, f"bad step {step}: {reason}; {policy.replace('_', ' ')}")
        run.track.write(event, EVENTS)

    def _report_unmoved(self, motion: MotionWatch, step: int) -> None:
        run = self._run
        names = motion.unmoved(run.engine, run.world)
        if not names:
            return
        text = (
            f"{len(names)} trainable parameters have not moved in {run.config.health.unmoved_after_steps} steps: "
            f"{', '.join(names[:5])}{' ...' if len(names) > 5 else ''}"
        )
        if run.config.health.on_unmoved == "stop":
            raise TrainingError(f"{text}. Look for what leaves them out of the loss, or set health.on_unmoved=warn.")
        say(run.world, f"warning: {text}. All are named in {EVENTS}.jsonl.")
        run.track.write({"step": step, "event": "unmoved", "names": names}, EVENTS)

    def _log(self, result: StepResult, step: int, started: float, waited: float) -> None:
        run, config = self._run, self._run.config
        epoch = step // run.mixture.steps_per_epoch
        row = {"step": step, "epoch": epoch, **gather_metrics(result, run.world, list(run.mixture.sensors))}
        for name, section in row["streams"].items():
            section["lr"] = learning_rate(run.rates[name].lr, step, config.schedule, run.mixture.steps_per_epoch)
        seconds = time.perf_counter() - started
        row |= {"images_per_s": row.pop("num_images") / seconds, "step_s": seconds, "data_wait_s": waited}
        row["data"] = self._meter.row(run.world)
        run.track.write(row)
        self._console.show(row)

    def _save(self, step: int) -> None:
        run = self._run
        run.beat(f"checkpoint after {step} steps")
        state = CheckpointState(
            step=step,
            updates=count_updates(run.engine),
            loader=self._loader.state(step).to_dict(),
            config=run.config.model_dump(mode="json"),
            sensors=run.mixture.sensors,
            nodata=run.mixture.nodata,
            normalisation={
                sensor: {"mean": list(map(float, norm.mean)), "std": list(map(float, norm.std))}
                for sensor, norm in run.mixture.normalisation.items()
            },
            manifests=run.mixture.manifest_digests,
            health=self._health.state(),
            world={"size": run.world.size, "zero_stage": run.config.engine.zero_stage},
        )
        self._saver.save(run.engine, run.model, state)

    def _record_skipped(self, step: int) -> None:
        """Append what the loader has left out of `step`; it has looked further ahead."""
        found = [item for item in self._loader.skipped if item.step == step]
        if found:
            path: Path = self._run.run_dir / f"skipped-{self._run.world.rank:05d}.jsonl"
            with path.open("a", encoding="utf-8") as file:
                file.writelines(json.dumps(item._asdict()) + "\n" for item in found)

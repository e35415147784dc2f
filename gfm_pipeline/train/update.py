"""Which rates an update uses, and how many updates a step makes.

A batch may lack streams (homogeneous batches, one update per stream). Under ZeRO an update touches every parameter, so
those that belong to absent sensors would still move, by momentum and decay: ghost updates. Their rate is 0 in such
an update, which leaves them as they are, to the bit; the moments of Adam do fade. What all streams share moves always.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from gfm_pipeline.data.batch import HeterogeneousBatch
from gfm_pipeline.train.config import ScheduleConfig
from gfm_pipeline.train.optim import StreamRate
from gfm_pipeline.train.schedule import learning_rate
from gfm_pipeline.train.step import LossName, StepResult

Groups = Sequence[dict[str, Any]]
"""The optimiser's parameter groups, as `optim.parameter_groups` makes them."""


@dataclass(frozen=True)
class Updates:
    """The updates of a run."""

    rates: Mapping[str, StreamRate]
    schedule: ScheduleConfig
    steps_per_epoch: int
    per_stream: bool
    """An update for each stream of a batch in turn, at that stream's rate, in place of one for all of them."""

    def take(
        self,
        lanes: Sequence[HeterogeneousBatch],
        step: int,
        groups: Groups,
        once: Callable[[Sequence[HeterogeneousBatch]], StepResult],
    ) -> StepResult:
        """Run `once`, which makes one update, on all streams of `lanes` or on one after the other."""
        present = list(lanes[0].streams)
        if not self.per_stream:
            self.set_rates(groups, present, step)
            return once(lanes)
        results = []
        for stream in present:
            self.set_rates(groups, [stream], step)
            for group in groups:
                if group["lr"]:
                    group["lr"] = self._rate(self.rates[stream].lr, step)
            results.append(once([replace(lane, streams={stream: lane.streams[stream]}) for lane in lanes]))
        return _joined(results)

    def set_rates(self, groups: Groups, present: Sequence[str], step: int) -> None:
        """Give every group its rate for an update on the streams `present`."""
        sensors = {sensor for stream in present for sensor in self.rates[stream].sensors}
        for group in groups:
            moves = group["sensors"] is None or not sensors.isdisjoint(group["sensors"])
            group["lr"] = self._rate(group["base_lr"], step) if moves else 0.0

    def _rate(self, base_lr: float, step: int) -> float:
        return learning_rate(base_lr, step, self.schedule, self.steps_per_epoch)


def _joined(results: list[StepResult]) -> StepResult:
    """Return what happened in several updates as one step: means of what each has, sums of counts."""
    losses: dict[LossName, Any] = {}
    for name in dict.fromkeys(name for result in results for name in result.losses):
        values = [result.losses[name] for result in results if name in result.losses]
        losses[name] = sum(values[1:], values[0]) / len(values)
    counts: dict[str, Any] = {}
    for result in results:
        for layer, tally in result.counts.items():
            counts[layer] = counts[layer] + tally if layer in counts else tally
    return replace(
        results[0],
        losses=losses,
        counts=counts,
        grad_norm=max(result.grad_norm for result in results),
        num_images=sum(result.num_images for result in results),
        num_skipped=sum(result.num_skipped for result in results),
        updated=all(result.updated for result in results),
    )

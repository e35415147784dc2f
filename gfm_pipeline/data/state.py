"""Where a run stands in its data: a few integers. Resuming hands `step` to the loader, which seeks."""

from __future__ import annotations

from dataclasses import asdict, dataclass, field
from typing import Any

from gfm_pipeline.data.plan import Plan
from gfm_pipeline.errors import PlanError


@dataclass(frozen=True)
class LoaderState:
    """Position of the whole job, the same on every rank and at any world size."""

    plan_digest: str
    epoch: int
    step: int
    """Optimizer steps taken, which is also the next step to take."""
    described: dict[str, str] = field(default_factory=dict)
    """What the plan was made of, so that a difference can be named."""

    @classmethod
    def of(cls, plan: Plan, step: int) -> LoaderState:
        """Return the state of a run that has taken `step` optimizer steps of `plan`."""
        return cls(plan_digest=plan.digest, epoch=plan.epoch(step), step=step, described=dict(plan.described))

    def to_dict(self) -> dict[str, Any]:
        """Return the state as plain values, for a checkpoint."""
        return asdict(self)

    @classmethod
    def from_dict(cls, tree: dict[str, Any]) -> LoaderState:
        """Return the state from `to_dict`'s values; raise PlanError when they are none."""
        try:
            state = cls(
                plan_digest=str(tree["plan_digest"]),
                epoch=int(tree["epoch"]),
                step=int(tree["step"]),
                described={str(key): str(value) for key, value in tree.get("described", {}).items()},
            )
        except (KeyError, TypeError, ValueError, AttributeError) as error:
            raise PlanError(f"not a loader state ({error!r}): expected plan_digest, epoch and step.") from error
        if state.step < 0:
            raise PlanError(f"a loader state holds step {state.step}, expected 0 or more.")
        return state

    def resume_step(self, plan: Plan) -> int:
        """Return the step to go on with; raise PlanError, saying what differs, if `plan` is another order."""
        if self.plan_digest == plan.digest:
            return self.step
        names = dict.fromkeys([*self.described, *plan.described])
        differences = [
            f"{name} was {self.described.get(name, 'not there')}, is {plan.described.get(name, 'not there')}"
            for name in names
            if self.described.get(name) != plan.described.get(name)
        ]
        raise PlanError(
            "the saved position belongs to another order of samples: "
            f"{'; '.join(differences) or f'plan {self.plan_digest[:16]}, now {plan.digest[:16]}'}. "
            "Restore the settings and collections of the run, or start a new one."
        )

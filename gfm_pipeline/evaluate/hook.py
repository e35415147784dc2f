"""Evaluation now and then during training, between an update and the checkpoint that may follow it."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING

from gfm_pipeline.evaluate.evaluator import Evaluator
from gfm_pipeline.evaluate.panels import draw_panels
from gfm_pipeline.evaluate.replica import copy_weights
from gfm_pipeline.models.msgfm import MsGFM
from gfm_pipeline.train.checkpoint import named_parameters
from gfm_pipeline.train.console import say

if TYPE_CHECKING:
    from gfm_pipeline.train.assemble import Run

TABLE = "evaluation"
"""Rows go to evaluation.jsonl in the run folder, and under this name to the trackers."""


class PeriodicEvaluation:
    """A hook of the training loop; it leaves the training as it was, to the bit."""

    def __init__(self, run: Run) -> None:
        """Open and check what is to be measured; raise ConfigError before the first step."""
        assert run.config.evaluate is not None
        self._config = run.config.evaluate
        self._evaluator = Evaluator(self._config, run.config.data, run.mixture)

    def __call__(self, run: Run, step: int) -> None:
        """Measure after the update of `step`, if it is its turn; every rank must call it."""
        done = step + 1
        if done % self._config.every_steps and done != run.last_step:
            return
        started = time.perf_counter()
        model = self._whole_model(run)
        # A batch that comes to the encoder shows the watchdog that the evaluation goes on, however long it takes.
        model.encoder.layers[0].register_forward_pre_hook(
            lambda module, inputs: run.beat(f"evaluation after step {step}")
        )
        found = self._evaluator.measure(model, run.world.device, run.world)
        if run.track.is_open:
            for name, held_out in self._evaluator.reconstructed.items():
                count = self._config.reconstruct[name].panels
                panels = draw_panels(model, held_out, run.mixture.sensors, count, done, run.world.device)
                for direction, picture in panels if count else ():
                    run.track.picture(f"{TABLE}/{name}/{direction}", picture, step)
        seconds = time.perf_counter() - started
        run.track.write({"step": step, **found, "seconds": seconds}, TABLE)
        say(run.world, f"evaluated after {done} steps ({seconds:.1f} s): {self._headline(found)}")

    def _whole_model(self, run: Run) -> MsGFM:
        config = run.config
        model = MsGFM(config.model, run.mixture.sensors, config.data.image_px, config.seed).to(run.world.device)
        copy_weights(dict(named_parameters(run.model)), model, run.world)
        return model.eval()

    def _headline(self, found: dict[str, dict[str, dict[str, dict[str, float]]]]) -> str:
        words = []
        for name, part in found.get("reconstruct", {}).items():
            words.append(f"{name} " + " ".join(f"{way} {loss:.4f}" for way, loss in part["loss"].items()))
        for name, part in found.get("probes", {}).items():
            best = {label: scores for label, scores in part.items() if isinstance(scores, dict)}
            metric = "linear_accuracy" if self._config.probes[name].task == "single" else "linear_map_micro"
            words.append(f"{name} " + " ".join(f"{label} {_score(scores, metric)}" for label, scores in best.items()))
        return "  ".join(words)


def _score(scores: dict[str, float], metric: str) -> str:
    return f"{scores[metric]:.3f}" + ("" if scores["linear_converged"] else " (not converged)")

"""MLflow (extra `mlflow`). A resumed run goes on in the same MLflow run, whose id the run folder keeps."""

from __future__ import annotations

import time
from collections.abc import Mapping
from typing import ClassVar

from gfm_pipeline.config import StrictModel
from gfm_pipeline.train.trackers.tracker import TRACKERS, Picture, RunRecord, import_extra


class MlflowConfig(StrictModel):
    """Credentials come from the environment, as MLflow wants them."""

    experiment: str
    uri: str | None = None
    """URL of the tracking server or a local store; None: MLFLOW_TRACKING_URI."""
    name: str | None = None
    """Name of the run; None: that of the run folder."""


@TRACKERS.register("mlflow")
class MlflowTracker:
    """Sends numbers and pictures to an MLflow tracking server, or to a local store."""

    Config: ClassVar[type[StrictModel]] = MlflowConfig

    def __init__(self, config: MlflowConfig, record: RunRecord) -> None:
        mlflow = import_extra("mlflow", "mlflow")
        self._client = mlflow.MlflowClient(tracking_uri=config.uri)
        self._metric = import_extra("mlflow.entities", "mlflow").Metric
        identity = record.run_dir / "mlflow-id"
        if not identity.exists():
            found = self._client.get_experiment_by_name(config.experiment)
            experiment = found.experiment_id if found else self._client.create_experiment(config.experiment)
            name = config.name or record.run_dir.name
            identity.write_text(self._client.create_run(experiment, run_name=name).info.run_id, encoding="utf-8")
        self._run_id = identity.read_text(encoding="utf-8").strip()
        self._client.update_run(self._run_id, status="RUNNING")
        self._client.log_dict(self._run_id, record.config, "config.yaml")

    def scalars(self, values: Mapping[str, float], step: int) -> None:
        """Log a row in one request."""
        now = int(time.time() * 1000)
        metrics = [self._metric(_allowed(name), value, now, step) for name, value in values.items()]
        self._client.log_batch(self._run_id, metrics=metrics)

    def picture(self, name: str, picture: Picture, step: int) -> None:
        """Log a picture as an artifact."""
        self._client.log_image(self._run_id, picture, artifact_file=f"{_allowed(name)}/{step:08d}.png")

    def close(self) -> None:
        """Mark the run as ended; a resumed one opens it again."""
        self._client.set_terminated(self._run_id)


def _allowed(name: str) -> str:
    """Return the name without characters that MLflow refuses: "s1->s2" becomes "s1-to-s2"."""
    return "".join(c if c.isalnum() or c in "_-./ " else "_" for c in name.replace("->", "-to-"))

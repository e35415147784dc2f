"""A run as a Kubernetes indexed Job: a pod per node, found by the others through a headless Service."""

from __future__ import annotations

import json
import re
import shutil
import subprocess
import textwrap
from dataclasses import dataclass

from gfm_pipeline.config import dump_config
from gfm_pipeline.errors import ConfigError, GfmError
from launch.job import RENDEZVOUS_PORT, TRAINER, Job
from launch.template import fill_template

GRACE_SECONDS = 300
"""Time a pod has for a checkpoint when it is told to stop."""
VOLUME_PATH = "/data"
"""Where the volume claim is mounted."""


@dataclass(frozen=True)
class Cluster:
    """What the cluster provides."""

    image: str
    secret: str | None
    """Secret whose entries become environment variables: credentials of the bucket."""
    claim: str | None
    """Volume claim mounted at /data, shared by all pods."""
    restarts: int


def job_manifest(job: Job, cluster: Cluster) -> str:
    """Return the YAML of ConfigMap, Service and Job; raise ConfigError for names that Kubernetes would refuse."""
    for option, name in (("--secret", cluster.secret), ("--claim", cluster.claim)):
        if name is not None and not re.fullmatch(r"[a-z0-9]([a-z0-9.-]{0,251}[a-z0-9])?", name):
            raise ConfigError(f"{option} {name!r}: expected lower-case letters, digits, '-' and '.'.")
    if not re.fullmatch(r"[\w./:@-]+", cluster.image):
        raise ConfigError(f"--image {cluster.image!r} is no name of an image.")
    if cluster.claim and not job.config.run_dir.startswith(f"{VOLUME_PATH}/"):
        raise ConfigError(
            f"run_dir is {job.config.run_dir}, which is lost with the pod; the claim is mounted at {VOLUME_PATH}. "
            f"Set run_dir to a folder below it: --set run_dir={VOLUME_PATH}/runs/{job.path.stem}"
        )
    environment = {"TORCH_ELASTIC_SHUTDOWN_TIMEOUT": str(GRACE_SECONDS - 30), **job.exports}
    return (
        fill_template(
            "kubernetes.yaml",
            name=job.name,
            config=textwrap.indent(dump_config(job.config).rstrip(), "    "),
            nodes=str(job.nodes),
            restarts=str(cluster.restarts),
            grace=str(GRACE_SECONDS),
            image=json.dumps(cluster.image),
            per_node=str(job.per_node),
            port=str(RENDEZVOUS_PORT),
            trainer=TRAINER,
            environment="\n".join(
                f"            - {{name: {name}, value: {json.dumps(value)}}}" for name, value in environment.items()
            ),
            secret=f"          envFrom:\n            - secretRef: {{name: {cluster.secret}}}\n"
            if cluster.secret
            else "",
            requests=f'{{cpu: "{job.cpus}", memory: {job.memory_mb}Mi}}',
            limits=f'{{cpu: "{job.cpus}"}}' if job.on_cpu else f"{{nvidia.com/gpu: {job.per_node}}}",
            mount=f"            - {{name: data, mountPath: {VOLUME_PATH}}}\n" if cluster.claim else "",
            volume=(
                f"        - {{name: data, persistentVolumeClaim: {{claimName: {cluster.claim}}}}}\n"
                if cluster.claim
                else ""
            ),
        ).rstrip()
        + "\n"
    )


def apply(manifest: str) -> str:
    """Hand the manifest to kubectl and return what it says."""
    if shutil.which("kubectl") is None:
        raise ConfigError("found no kubectl here; install it, or take --print for the manifest.")
    words = ["kubectl", "apply", "-f", "-"]
    done = subprocess.run(words, input=manifest, capture_output=True, text=True, check=False)  # noqa: S603
    if done.returncode:
        raise GfmError(f"kubectl refused the manifest: {' '.join(done.stderr.split())}")
    return done.stdout.strip()

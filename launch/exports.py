"""Environment variables that a run needs on machines where nobody set them.

Slurm hands the whole environment on. ssh and Kubernetes hand on nothing, and DeepSpeed's launcher only a few prefixes,
so what concerns the run is chosen here. A secret never goes on a command line, where every user of a machine can read
it: it belongs in a profile or role on the hosts, or in a Secret of the cluster.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping

from gfm_pipeline.errors import ConfigError

PREFIXES = ("NCCL_", "GLOO_", "UCX_", "FI_", "TORCH_", "TORCHINDUCTOR_", "OMP_", "MKL_", "CUDA_", "DS_", "GFM_")
NAMES = (
    "AWS_ENDPOINT_URL",
    "AWS_ENDPOINT_URL_S3",
    "AWS_REGION",
    "AWS_DEFAULT_REGION",
    "AWS_PROFILE",
    "AWS_ALLOW_HTTP",
    "AZURE_STORAGE_ACCOUNT_NAME",
    "SSL_CERT_FILE",
    "PYTHONPATH",
)
_SECRET = re.compile(r"SECRET|TOKEN|PASSWORD|PASSWD|CREDENTIAL|(^|_)KEY(_|$)|ACCESS_KEY|SAS_", re.IGNORECASE)


def chosen_exports(environment: Mapping[str, str], asked: Iterable[str]) -> dict[str, str]:
    """Return the variables to hand on: known ones that are set, and those `asked` for as NAME or NAME=VALUE.

    Raises ConfigError for a name that is not set, is no name, or looks like a secret.
    """
    chosen = {
        name: value
        for name, value in environment.items()
        if (name in NAMES or name.startswith(PREFIXES)) and not _SECRET.search(name)
    }
    for text in asked:
        name, equals, value = text.partition("=")
        if not re.fullmatch(r"[A-Za-z_]\w*", name):
            raise ConfigError(f"--env {name}: no name of an environment variable, expected NAME or NAME=VALUE.")
        if _SECRET.search(name):
            raise ConfigError(
                f"--env {name}: looks like a secret, which must not stand on a command line. Put it into a profile or "
                "role of the hosts, or into a Secret of the cluster."
            )
        if not equals and name not in environment:
            raise ConfigError(f"--env {name}: not set here. Set it, or give --env {name}=VALUE.")
        chosen[name] = value if equals else environment[name]
    return dict(sorted(chosen.items()))

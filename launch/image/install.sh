#!/usr/bin/env bash
# The steps of the Dockerfile beside this file, as a script that also runs on a machine without Docker:
#   GFM_VENV=/opt/gfm bash launch/image/install.sh
# Installs the project and compiles the operator that DeepSpeed needs at its first start, so that pods do not.
set -euo pipefail
PROJECT=$(cd "$(dirname "${BASH_SOURCE[0]}")/../.." && pwd)
source "$PROJECT/launch/environment.sh"
prepare_environment train
step python -c 'import torch, timm, deepspeed, gfm_pipeline, shard_builder, launch'
# The operator's cache lies in the home folder of whoever runs this: the same user has to start the run.
DS_ACCELERATOR=cpu step python -c 'from gfm_pipeline.train import comm; comm.start_world(); comm.stop_world()'
step gfm-launch --version

#!/usr/bin/env bash
# Run the whole test suite: environment, test dependencies, linters, types, tests.
#   bash launch/test.sh                  everything that fits in minutes
#   bash launch/test.sh -m slow          the slow ones by name; further arguments go to pytest
set -euo pipefail
PROJECT=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)
source "$PROJECT/launch/environment.sh"
source "$PROJECT/launch/servers.sh"
cd "$PROJECT"
prepare_servers
prepare_environment test
# DeepSpeed compiles an operator at its first start: it may as well do so while the linters run.
DS_ACCELERATOR=cpu python -c 'from gfm_pipeline.train import comm; comm.start_world(); comm.stop_world()' >/dev/null 2>&1 & FIRST_START=$!
step ruff check .
step ruff format --check .
step mypy
await_servers
wait "$FIRST_START" || true  # a test will say why
# Two at a time, a file on one of them: files share servers and collections. In this order the short ones are last.
step python -m pytest -n 2 --dist loadfile --no-loadscope-reorder "$@"

#!/usr/bin/env bash
# Install what tests need, then run them, two files at a time. Arguments go to pytest
# (-n 0 for one process).
set -euo pipefail
source "$(dirname "${BASH_SOURCE[0]}")/setup_venv.sh" requirements-dev.lock
exec .venv/bin/python -m pytest -n 2 --dist loadfile --no-loadscope-reorder "$@"

#!/usr/bin/env bash
# Install what running needs, then run everything. Arguments go to `kedro run`.
set -euo pipefail
source "$(dirname "${BASH_SOURCE[0]}")/setup_venv.sh" requirements.lock

if [[ " $* " != *" --env"* && " $* " != *" -e "* && "$*" != *raw_dir* && "$*" != *download* && -z "${KEDRO_ENV:-}" ]] &&
    [ -z "$(find -L data/01_raw -type f ! -path '*/.*' -print -quit)" ]; then
    echo "No clips in data/01_raw (./run_all.sh --pipelines download fetches FSDKaggle2018): running the built-in demo."
    set -- --env demo "$@"
fi
exec .venv/bin/kedro run "$@"

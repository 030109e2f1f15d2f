#!/usr/bin/env bash
# Installs what is needed and runs everything; what follows on the command line goes to `kedro run`.
set -euo pipefail
source "$(dirname "${BASH_SOURCE[0]}")/setup_venv.sh"

if [[ " $* " != *" --env"* && " $* " != *" -e "* && "$*" != *raw_dir* && -z "${KEDRO_ENV:-}" ]] &&
    [ -z "$(find -L data/01_raw -type f ! -name '.*' -print -quit)" ]; then
    echo "No clips in data/01_raw (FSDKaggle2018 is at https://zenodo.org/records/2552860): running the built-in demo."
    set -- --env demo "$@"
fi
exec .venv/bin/kedro run "$@"

# Sourced by every script here: the repository's root as working directory, and the programs of its environment.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."
[ -d .venv/bin ] && PATH="$PWD/.venv/bin:$PATH"

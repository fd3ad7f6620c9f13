#!/usr/bin/env bash
# Builds the Python wheel with maturin into target/package, installs it into a fresh virtual environment and tries it there.
#
#     scripts/package.sh
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."

folder=target/package
mkdir -p "$folder"
if [[ ! -x $folder/tools/bin/maturin ]]; then
    python3 -m venv "$folder/tools"
    "$folder/tools/bin/pip" install --quiet "maturin>=1.7,<2"
fi
rm -rf "$folder/wheels" "$folder/fresh"
(cd python && "../$folder/tools/bin/maturin" build --quiet --release --locked --out "../$folder/wheels")

python3 -m venv "$folder/fresh"
"$folder/fresh/bin/pip" install --quiet --no-index "$folder"/wheels/*.whl
"$folder/fresh/bin/alpha" --version
cd /
"$OLDPWD/$folder/fresh/bin/python" -c "from alpha_loop import Turns; print('alpha_loop:', Turns.__module__)"
ls "$OLDPWD/$folder"/wheels/*.whl

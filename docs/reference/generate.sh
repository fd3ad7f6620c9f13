#!/usr/bin/env bash
# Writes the help of every command to docs/reference/*.txt. scripts/build.sh first.
#
#   docs/reference/generate.sh            writes the files
#   docs/reference/generate.sh --check    changes nothing; exit code 1 where a file is stale, missing or left over
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/../.."

alpha=$PWD/.bun-out/alpha
reference=docs/reference
commands=('' train sample eval 'tokenizer build' 'datagen abc' check devices completions
  loop 'loop init' 'loop doctor' 'loop selftest' 'loop next' 'loop start' 'loop smoke' 'loop compare' 'loop commit' 'loop run'
  'loop status' 'loop drop' 'loop history' 'loop audit' 'loop verify' 'loop bisect' 'loop import' 'loop record-benchmark'
  'loop hook')

fresh=$(mktemp -d)
trap 'rm -rf "$fresh"' EXIT
for command in "${commands[@]}"; do
  name=alpha${command:+-${command// /-}}
  # Unquoted: a command of two words is two arguments.
  "$alpha" $command --help >"$fresh/$name.txt"
done

# A command that is new must not be forgotten here.
for command in $(sed -n '/^Commands:/,/^$/s/^  \([a-z]*\) .*/\1/p' "$fresh/alpha.txt"); do
  [[ $command == help ]] || compgen -G "$fresh/alpha-$command*.txt" >/dev/null || {
    printf 'error: `alpha %s` is not in the list of %s\n\nhint: add it there\n' "$command" "$0" >&2
    exit 1
  }
done

if [[ ${1:-} == --check ]]; then
  if ! diff -ru --exclude="$(basename "$0")" "$reference" "$fresh"; then
    printf 'error: %s is stale\n\nhint: run `%s`\n' "$reference" "$0" >&2
    exit 1
  fi
  exit 0
fi
rm -f "$reference"/*.txt
cp "$fresh"/*.txt "$reference"

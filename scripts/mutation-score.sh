#!/usr/bin/env bash
# How many of the bugs in tests/mutants.txt do the tests find? Puts each into a copy of the project, one at a time. About a
# minute a bug.
#   scripts/mutation-score.sh [WORD IN A BUG'S NAME...]
set -euo pipefail
cd "$(dirname "$0")/.."
command -v cargo >/dev/null || { echo "mutation-score.sh: cargo is missing; get Rust from https://rustup.rs" >&2; exit 1; }

cargo build --locked --package anyvip-tests --bin mutation-score
copy=$(mktemp -d "${TMPDIR:-/tmp}/anyvip-mutants.XXXXXX")
trap 'rm -rf "$copy"' EXIT
git ls-files -z | xargs -0 cp --parents --no-dereference -t "$copy"
"${CARGO_TARGET_DIR:-target}/debug/mutation-score" "$copy" "$@"

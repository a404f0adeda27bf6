#!/usr/bin/env bash
# Everything that must pass: formatting, clippy, all tests. On a fresh Debian or Ubuntu with Rust, as root, it installs what
# it needs; without root, tests that need namespaces are skipped with a line each. With CI=true a test that misses what is installed here is a failure.
#   scripts/test.sh [ARGUMENT OF cargo test...]
set -euo pipefail
cd "$(dirname "$0")/.."

fail() {
  echo "test.sh: $1" >&2
  exit 1
}
command -v cargo >/dev/null || fail "cargo is missing; get Rust from https://rustup.rs"

if [ "$(id -u)" -eq 0 ]; then
  ./scripts/install-test-peers.sh || [ "${CI:-}" != true ] || fail "the test peers could not be installed"
elif [ "${CI:-}" = true ]; then
  fail "CI=true, but not root: the tests of namespaces could not run"
fi

step() {
  printf '\n== %s\n' "$*"
  "$@"
}

step cargo fmt --all --check
step cargo clippy --workspace --all-targets --locked -- -D warnings
# Outside the workspace, so that nothing else would notice.
step cargo clippy --manifest-path protocols/fuzz/Cargo.toml --target-dir "${CARGO_TARGET_DIR:-target}/fuzz" --all-targets --locked -- -D warnings
if command -v shellcheck >/dev/null; then
  step shellcheck scripts/*.sh .ci/run
fi

log=$(mktemp)
trap 'rm -f "$log"' EXIT
status=0
step cargo test --workspace --locked --no-fail-fast "$@" 2>&1 | tee "$log" || status=$?

# What the runner said at the end of each target, and the sum.
printf '\n== results\n'
grep -E '^(test result:|skipped )' "$log" | sort | uniq -c | sort -rn | head -40 || true
awk '/^test result:/ { passed += $4; failed += $6 } /^skipped / { skipped++ }
     END { printf "%d passed, %d failed, %d skipped\n", passed, failed, skipped }' "$log"
if [ "$status" -ne 0 ]; then
  grep -E '^test .* FAILED$' "$log" || true
  exit "$status"
fi

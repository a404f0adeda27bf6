#!/usr/bin/env bash
# Four servers share one address behind a router; one dies, and comes back. Needs Rust and Linux; root or user namespaces.
#   scripts/demo.sh [ARGUMENT OF anyvip-sim run...]
set -euo pipefail
cd "$(dirname "$0")/.."

fail() {
  echo "demo.sh: $1" >&2
  exit 1
}
[ "$(uname -s)" = Linux ] || fail "needs Linux: the lab is made of network namespaces"
command -v cargo >/dev/null || fail "cargo is missing; get Rust from https://rustup.rs"

# Ask the kernel, not its settings: containers and hardened systems refuse in many ways.
if [ "$(id -u)" -eq 0 ]; then
  refused=$(unshare --net --mount true 2>&1) || fail "cannot make network namespaces as root ($refused).
In a container, start it with --privileged or --cap-add=SYS_ADMIN --cap-add=NET_ADMIN."
else
  refused=$(unshare --user --map-root-user --net --mount true 2>&1) || fail "cannot make namespaces as $(id -un) ($refused).
Run it as root, or allow user namespaces: sysctl kernel.unprivileged_userns_clone=1, and on Ubuntu
sysctl kernel.apparmor_restrict_unprivileged_userns=0."
fi

cargo build --release --locked --bin anyvip --bin anyvip-sim
target=${CARGO_TARGET_DIR:-target}/release
exec "$target/anyvip-sim" run --agent "$target/anyvip" topology/quickstart.clab.yml "$@"

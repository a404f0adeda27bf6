#!/usr/bin/env bash
# Installs what the tests run against (BIRD 2, FRR, GoBGP, OpenBGPD, ExaBGP, a browser for reports, a systemd for the unit) and the tools they use (g++ builds libFuzzer), on Debian or Ubuntu, as root.
# Nothing is started: packages that would start a daemon (on port 179!) are told not to. Runs again in no time.
set -euo pipefail

packages=(bird2 frr gobgpd openbgpd exabgp iproute2 nftables tcpdump socat procps util-linux chromium fonts-dejavu-core g++ systemd)

missing=()
for package in "${packages[@]}"; do
  state=$(dpkg-query -W -f '${db:Status-Status}' "$package" 2>/dev/null || true)
  [ "$state" = installed ] || missing+=("$package")
done
if [ ${#missing[@]} -eq 0 ]; then
  echo "test peers: all there"
  exit 0
fi

if ! command -v apt-get >/dev/null; then
  echo "test peers: this is not Debian or Ubuntu; install by hand: ${missing[*]}" >&2
  exit 1
fi
if [ "$(id -u)" -ne 0 ]; then
  echo "test peers: must be root to install ${missing[*]}" >&2
  exit 1
fi

# invoke-rc.d asks this file before it starts anything; 101 means no. A file that is there already is put back.
guard=/usr/sbin/policy-rc.d
saved=
if [ -e "$guard" ]; then
  saved=$(mktemp)
  cp -p "$guard" "$saved"
fi
restore() {
  if [ -n "$saved" ]; then
    cp -p "$saved" "$guard"
    rm -f "$saved"
  else
    rm -f "$guard"
  fi
}
trap restore EXIT
printf '#!/bin/sh\nexit 101\n' >"$guard"
chmod 755 "$guard"

echo "test peers: installing ${missing[*]}"
export DEBIAN_FRONTEND=noninteractive
install_missing() {
  apt-get install -y -q --no-install-recommends "${missing[@]}" >/dev/null
}
# The package lists of a fresh machine are empty or old.
install_missing 2>/dev/null || { apt-get update -q >/dev/null && install_missing; }
echo "test peers: done"

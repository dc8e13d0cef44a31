# shellcheck shell=bash
# The Debian packages that the test bed and the build need; installs those that are missing.

PACKAGES=(
  # the cluster
  containerd runc containernetworking-plugins nftables iproute2 util-linux openssl ca-certificates curl procps
  # its images
  gcc libc6-dev binutils
  # llama.cpp, which the engine compiles and generates bindings for
  g++ make cmake ninja-build libclang-dev
)

missing_packages() {
  local package
  # One dpkg-query for all of them: a second run must cost nothing.
  comm -23 <(printf '%s\n' "${PACKAGES[@]}" | sort) \
    <(dpkg-query -W -f '${db:Status-Status} ${Package}\n' "${PACKAGES[@]}" 2>/dev/null \
      | while read -r status package; do [ "$status" = installed ] && echo "$package"; done | sort)
}

install_packages() {
  command -v dpkg-query >/dev/null \
    || fail "no dpkg here: install ${PACKAGES[*]} by hand, or set INFERNO_TEST_KUBECONFIG to use a cluster of yours"
  local missing
  mapfile -t missing < <(missing_packages)
  [ ${#missing[@]} -gt 0 ] || return 0
  require_root
  say "installing Debian packages (about 30 s): ${missing[*]}"
  apt_quietly update
  # `RUNLEVEL=1` together with the policy below: a package must not start its service on the machine.
  local policy
  policy=$(mktemp -d)
  printf '#!/bin/sh\nexit 101\n' >"$policy/policy-rc.d"
  chmod +x "$policy/policy-rc.d"
  RUNLEVEL=1 POLICYRCD="$policy/policy-rc.d" apt_quietly install --yes --no-install-recommends "${missing[@]}"
  rm -rf "$policy"
}

apt_quietly() {
  local output
  output=$(DEBIAN_FRONTEND=noninteractive apt-get -qq "$@" 2>&1) || {
    printf '%s\n' "$output" >&2
    fail "apt-get $* failed"
  }
}

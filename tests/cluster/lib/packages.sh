# shellcheck shell=bash
# The Debian packages that the test bed and the build need; installs those that are missing.

# Package, and a file or command that proves that it (or another maker's package of it) is there.
PACKAGES=(
  # the cluster
  containerd:containerd runc:runc containernetworking-plugins:/usr/lib/cni/ptp nftables:nft iproute2:ip
  util-linux:nsenter openssl:openssl ca-certificates:/etc/ssl/certs/ca-certificates.crt curl:curl procps:ps
  # its images
  gcc:gcc libc6-dev:/usr/include/stdlib.h binutils:strip
  # llama.cpp, which the engine compiles and generates bindings for
  g++:g++ make:make cmake:cmake ninja-build:ninja libclang-dev:
)

missing_packages() {
  local entry
  for entry in "${PACKAGES[@]}"; do
    is_there "${entry%%:*}" "${entry#*:}" || echo "${entry%%:*}"
  done
}

is_there() {
  case $2 in
    '') dpkg-query -W -f '${db:Status-Status}' "$1" 2>/dev/null | grep -qx installed ;;
    /*) [ -e "$2" ] ;;
    *) command -v "$2" >/dev/null ;;
  esac
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
  # No package may push out what is there, as Debian's containerd would Docker's.
  apt_quietly install --yes --no-install-recommends --no-remove "${missing[@]}"
}

# A package starts its services where it sees that systemd runs; in here it sees none.
apt_quietly() {
  local output
  # shellcheck disable=SC2016 # expanded by the inner shell
  output=$(DEBIAN_FRONTEND=noninteractive unshare --mount sh -c \
    '[ ! -d /run/systemd ] || mount -t tmpfs tmpfs /run/systemd; exec apt-get -qq "$@"' sh "$@" 2>&1) || {
    printf '%s\n' "$output" >&2
    fail "apt-get $* failed"
  }
}

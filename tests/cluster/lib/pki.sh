# shellcheck shell=bash
# The cluster's certificates and kubeconfigs, made anew for each run: they take less than a second.

PKI=$INSIDE/pki

make_pki() {
  mkdir -p "$PKI"
  # Our own configuration: the machine's would add extensions of its own.
  printf '[req]\ndistinguished_name = name\n[name]\n' >"$PKI/openssl.cnf"
  certificate ca /CN=inferno-testbed "basicConstraints = critical, CA:TRUE" "keyUsage = critical, keyCertSign, cRLSign"
  certificate apiserver /CN=kube-apiserver "extendedKeyUsage = serverAuth" \
    "subjectAltName = DNS:localhost, DNS:kubernetes, DNS:kubernetes.default, DNS:kubernetes.default.svc, DNS:kubernetes.default.svc.cluster.local, IP:127.0.0.1, IP:$API_SERVICE_ADDRESS, IP:$NODE_ADDRESS" &
  client kubelet-client /O=system:masters/CN=apiserver-kubelet-client &
  client front-proxy /CN=front-proxy &
  client admin /O=system:masters/CN=admin &
  client controller-manager /CN=system:kube-controller-manager &
  client scheduler /CN=system:kube-scheduler &
  client "$NODE" "/O=system:nodes/CN=system:node:$NODE" &
  # Service account tokens are signed with a key of their own.
  openssl genpkey -algorithm EC -pkeyopt ec_paramgen_curve:P-256 -out "$PKI/accounts.key" 2>/dev/null
  openssl pkey -in "$PKI/accounts.key" -pubout -out "$PKI/accounts.pub"
  local job
  for job in $(jobs -p); do
    [ -n "${DAEMONS[$job]:-}" ] || wait "$job"
  done
}

# certificate NAME SUBJECT EXTENSION…: signed by the authority, which signs itself.
certificate() {
  local name=$1 subject=$2 signer=() extensions=() extension
  shift 2
  [ "$name" = ca ] || signer=(-CA "$PKI/ca.crt" -CAkey "$PKI/ca.key")
  for extension in "$@"; do extensions+=(-addext "$extension"); done
  # A kept cluster may live for a while; a forgotten one should not be trusted for ever.
  openssl req -x509 -config "$PKI/openssl.cnf" -newkey ec -pkeyopt ec_paramgen_curve:P-256 -noenc -days 30 \
    -subj "$subject" "${signer[@]}" "${extensions[@]}" -keyout "$PKI/$name.key" -out "$PKI/$name.crt" 2>/dev/null
}

# client NAME SUBJECT: a client certificate and the kubeconfig that uses it.
client() {
  certificate "$1" "$2" "extendedKeyUsage = clientAuth"
  cat >"$PKI/$1.kubeconfig" <<YAML
apiVersion: v1
kind: Config
clusters: [{name: testbed, cluster: {server: "https://$NODE_ADDRESS:6443", certificate-authority: $PKI/ca.crt}}]
users: [{name: $1, user: {client-certificate: $PKI/$1.crt, client-key: $PKI/$1.key}}]
contexts: [{name: testbed, context: {cluster: testbed, user: $1}}]
current-context: testbed
YAML
}

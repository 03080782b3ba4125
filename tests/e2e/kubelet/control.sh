# shellcheck shell=bash
# Sourced by node.sh on node1: certificates, etcd, API server, controllers, scheduler.
P=$RUN/pki
mkdir -p "$P"

# Make a certificate in $P.
cert() { # name subject [alternative names]
    openssl req -newkey rsa:2048 -nodes -subj "$2" -keyout "$P/$1.key" -out "$P/$1.csr" 2>/dev/null
    printf 'extendedKeyUsage=serverAuth,clientAuth\n%s\n' "${3:+subjectAltName=$3}" > "$P/$1.ext"
    openssl x509 -req -in "$P/$1.csr" -CA "$P/ca.crt" -CAkey "$P/ca.key" -CAcreateserial -days 365 -extfile "$P/$1.ext" \
        -out "$P/$1.crt" 2>/dev/null
}

# Make a kubeconfig in $RUN of the certificate of that name.
kubeconfig() { # name
    cat > "$RUN/$1.kubeconfig" <<Y
apiVersion: v1
kind: Config
clusters: [{name: c, cluster: {server: "https://$API:6443", certificate-authority-data: $(base64 -w0 "$P/ca.crt")}}]
users: [{name: u, user: {client-certificate-data: $(base64 -w0 "$P/$1.crt"), client-key-data: $(base64 -w0 "$P/$1.key")}}]
contexts: [{name: c, context: {cluster: c, user: u}}]
current-context: c
Y
}

start_control_plane() {
    if [ ! -f "$P/made" ]; then
        openssl req -x509 -newkey rsa:2048 -nodes -days 365 -subj /CN=cluster-ca -keyout "$P/ca.key" -out "$P/ca.crt" \
            -addext keyUsage=critical,keyCertSign,cRLSign 2>/dev/null
        openssl genrsa -out "$P/sa.key" 2048 2>/dev/null
        openssl rsa -in "$P/sa.key" -pubout -out "$P/sa.pub" 2>/dev/null
        cert apiserver /CN=kube-apiserver \
            "IP:127.0.0.1,IP:$API,IP:10.96.0.1,DNS:localhost,DNS:kubernetes,DNS:kubernetes.default,DNS:kubernetes.default.svc"
        cert apiclient /O=system:masters/CN=kube-apiserver-kubelet-client
        cert admin /O=system:masters/CN=admin
        cert kcm /CN=system:kube-controller-manager
        cert sched /CN=system:kube-scheduler
        cert proxy /CN=system:kube-proxy
        for name in admin kcm sched proxy; do kubeconfig $name; done
        touch "$P/made"
    fi
    start etcd etcd --data-dir "$RUN/etcd" --listen-client-urls http://127.0.0.1:2379 \
        --advertise-client-urls http://127.0.0.1:2379 --listen-peer-urls http://127.0.0.1:2380 --unsafe-no-fsync --log-level warn
    start apiserver kube-apiserver --etcd-servers http://127.0.0.1:2379 --advertise-address "$API" --allow-privileged \
        --client-ca-file "$P/ca.crt" --tls-cert-file "$P/apiserver.crt" --tls-private-key-file "$P/apiserver.key" \
        --service-cluster-ip-range "$SERVICES" --service-account-key-file "$P/sa.pub" \
        --service-account-signing-key-file "$P/sa.key" --service-account-issuer https://kubernetes.default.svc \
        --authorization-mode Node,RBAC --enable-admission-plugins NodeRestriction --kubelet-certificate-authority "$P/ca.crt" \
        --kubelet-client-certificate "$P/apiclient.crt" --kubelet-client-key "$P/apiclient.key"
    for _ in $(seq 240); do kubectl get --raw /readyz >/dev/null 2>&1 && break; sleep 0.5; done
    kubectl get --raw /readyz >/dev/null
    echo "$(date +%T) API ready"
    start kcm kube-controller-manager --kubeconfig "$RUN/kcm.kubeconfig" --authentication-kubeconfig "$RUN/kcm.kubeconfig" \
        --authorization-kubeconfig "$RUN/kcm.kubeconfig" --service-account-private-key-file "$P/sa.key" \
        --root-ca-file "$P/ca.crt" --use-service-account-credentials --leader-elect=false --bind-address 127.0.0.1 \
        --cert-dir "$RUN/kcm"
    start scheduler kube-scheduler --kubeconfig "$RUN/sched.kubeconfig" --authentication-kubeconfig "$RUN/sched.kubeconfig" \
        --authorization-kubeconfig "$RUN/sched.kubeconfig" --leader-elect=false --bind-address 127.0.0.1 --cert-dir "$RUN/sched"
}

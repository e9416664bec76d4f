# What etcd 3.4 and 3.5 need so that Lifeboat can keep a cluster. Run this with the rights of an administrator.

# Without authentication (as kubeadm and Talos set it up) a client certificate is enough, and it may do everything: etcd
# knows no smaller right for it. Make one for Lifeboat alone, so that it can be told apart and be left to run out:
#   kubeadm:  openssl req -new -newkey rsa:2048 -nodes -keyout lifeboat.key -subj /CN=lifeboat -out lifeboat.csr
#             openssl x509 -req -in lifeboat.csr -CA /etc/kubernetes/pki/etcd/ca.crt -CAkey /etc/kubernetes/pki/etcd/ca.key \
#                 -CAcreateserial -days 365 -out lifeboat.crt
#   Talos:    nothing to make; use the command below.

# With authentication a user is needed too. A snapshot holds every key, so the server gives it to the role `root` alone:
# a role with read rights on all keys is refused. There is no smaller role to ask for. Choose a password; it belongs into
# the place that the policy's `password = "env:NAME"` refers to, never into the policy.
etcdctl user add lifeboat
etcdctl user grant-role lifeboat root

# In the policy:
#   [store.control-plane]
#   kind = "etcd"
#   url = "https://10.0.0.1:2379,https://10.0.0.2:2379,https://10.0.0.3:2379"
#   ca = "file:/etc/kubernetes/pki/etcd/ca.crt"
#   cert = "file:/etc/lifeboat/lifeboat.crt"
#   key = "file:/etc/lifeboat/lifeboat.key"
#   user = "lifeboat"                       # with authentication
#   password = "env:ETCD_PASSWORD"
#   schedule = "every 1h"
#   retention = "24h 7d"
#
# Where members cannot be reached, a command may take the snapshot; it is checked the same:
#   command = ["talosctl", "--nodes", "10.0.0.1", "etcd", "snapshot", "{file}"]
#   environment = ["TALOSCONFIG"]

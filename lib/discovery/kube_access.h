/*
 * How to reach the API server of Kubernetes: its URL, what it must prove, and who we are. In a pod
 * that is the service account's; outside a kubeconfig file (the current context of a v1 Config) or
 * files that flags name. A token's file is read again for each request, because tokens expire and
 * the kubelet writes new ones.
 */
#ifndef PD_DISCOVERY_KUBE_ACCESS_H
#define PD_DISCOVERY_KUBE_ACCESS_H

#include <stdbool.h>

#include "lib/base/buf.h"
#include "lib/base/err.h"
#include "lib/net/tls.h"

#define KUBE_ACCOUNT   "/var/run/secrets/kubernetes.io/serviceaccount" /* in a pod */
#define KUBE_TOKEN_MAX 16384					       /* bytes */

struct kube_access {
	char *server;	       /* "https://host:port[/base]" */
	char *token;	       /* NULL: of token_file, or none */
	char *token_file;      /* NULL: none */
	char *ca, *cert, *key; /* PEM files; NULL: the system's CAs, no certificate */
	char *tls_name;	       /* expected of the server's certificate; NULL: its host */
	int fd[3];	       /* of ca, cert and key that a kubeconfig holds itself */
	bool insecure;
};

/* In a pod: KUBERNETES_SERVICE_HOST and KUBERNETES_SERVICE_PORT as given, and the account's files.
 * PD_EINVAL, PD_ENOMEM with a sentence. */
int kube_access_in_cluster(struct kube_access *a, const char *host, const char *port,
			   struct pd_msg *msg) PD_MUST;
/* By flags; token_file and ca_file may be NULL. */
int kube_access_direct(struct kube_access *a, const char *server, const char *token_file,
		       const char *ca_file, struct pd_msg *msg) PD_MUST;
/* The file is read now; `path` begins the message, with line and column where something is wrong.
 * Plugins for credentials (exec, auth-provider), passwords and impersonation are refused by name.
 */
int kube_access_kubeconfig(struct kube_access *a, const char *path, struct pd_msg *msg) PD_MUST;
void kube_access_release(struct kube_access *a);

/* The token for the next request, empty when there is none. PD_EINVAL, PD_EIO: the file cannot be
 * used. */
int kube_access_token(const struct kube_access *a, struct buf *out, struct pd_msg *msg) PD_MUST;

#endif

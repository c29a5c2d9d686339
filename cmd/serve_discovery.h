/* The options of `pdctl serve` about workers that are discovered: registrations, a registry, pods
 * of Kubernetes, DNS. */
#ifndef PD_CMD_SERVE_DISCOVERY_H
#define PD_CMD_SERVE_DISCOVERY_H

#include "lib/base/opt.h"
#include "lib/router/config/config.h"

struct serve_discovery {
	const char *register_address, *registry_url, *space, *kubeconfig, *server, *token_file,
		*ca_file, *dns_server;
	double registry_interval, dns_interval;
	bool kubernetes;
	struct opt_list selector, prefill_selector, decode_selector, dns, dns_prefill, dns_decode;
	int64_t port, prefill_port, decode_port;
};

extern struct serve_discovery serve_discovery;

/* clang-format off */
#define SERVE_DISCOVERY_OPTIONS \
	{.type = OPT_HEADING, .help = "workers that are discovered (docs/discovery.md)"}, \
	{OPT_FLAG, "service-discovery", &serve_discovery.kubernetes, NULL, \
	 "take workers from Kubernetes: pods that match the selectors, are ready and are not being " \
	 "deleted; needs get, list and watch on pods", NULL, 0, 0, NULL}, \
	{OPT_LIST, "selector", &serve_discovery.selector, "NAME=VALUE...", \
	 "labels that each worker's pod has; with prefill/decode beside those of its role", NULL, 0, 0, \
	 NULL}, \
	{OPT_LIST, "prefill-selector", &serve_discovery.prefill_selector, "NAME=VALUE...", \
	 "labels of prefill pods (llm-d.ai/role=prefill)", NULL, 0, 0, NULL}, \
	{OPT_LIST, "decode-selector", &serve_discovery.decode_selector, "NAME=VALUE...", \
	 "labels of decode pods (llm-d.ai/role=decode)", NULL, 0, 0, NULL}, \
	{OPT_INT, "service-discovery-port", &serve_discovery.port, "N", \
	 "port of the pods' servers (80)", NULL, 1, 65535, NULL}, \
	{OPT_INT, "prefill-discovery-port", &serve_discovery.prefill_port, "N", \
	 "that of prefill pods; 0: --service-discovery-port (0)", NULL, 0, 65535, NULL}, \
	{OPT_INT, "decode-discovery-port", &serve_discovery.decode_port, "N", \
	 "that of decode pods; 0: --service-discovery-port (0)", NULL, 0, 65535, NULL}, \
	{OPT_TEXT, "service-discovery-namespace", &serve_discovery.space, "NAME", \
	 "pods of this namespace only (all namespaces)", NULL, 0, 0, NULL}, \
	{OPT_TEXT, "kubeconfig", &serve_discovery.kubeconfig, "FILE", \
	 "how to reach the API server: the current context of this file (in a pod its service account, " \
	 "else the file of $KUBECONFIG)", NULL, 0, 0, NULL}, \
	{OPT_TEXT, "kube-api-server", &serve_discovery.server, "URL", \
	 "the API server, instead of --kubeconfig (none)", NULL, 0, 0, NULL}, \
	{OPT_TEXT, "kube-token-file", &serve_discovery.token_file, "FILE", \
	 "with --kube-api-server: bearer token, read again for each request (none)", NULL, 0, 0, NULL}, \
	{OPT_TEXT, "kube-ca-file", &serve_discovery.ca_file, "FILE", \
	 "with --kube-api-server: PEM with its authorities (the system's)", NULL, 0, 0, NULL}, \
	{OPT_LIST, "dns-workers", &serve_discovery.dns, "NAME...", \
	 "take workers of a plain pool from DNS: NAME:PORT, each address is one; or " \
	 "_PORT._PROTO.NAME, each SRV record is one", NULL, 0, 0, NULL}, \
	{OPT_LIST, "dns-prefill", &serve_discovery.dns_prefill, "NAME...", \
	 "likewise prefill workers", NULL, 0, 0, NULL}, \
	{OPT_LIST, "dns-decode", &serve_discovery.dns_decode, "NAME...", \
	 "likewise decode workers", NULL, 0, 0, NULL}, \
	{OPT_REAL, "dns-interval", &serve_discovery.dns_interval, "S", \
	 "ask again when the shortest TTL has run out, and at least so often (30)", NULL, 0.1, 3600, \
	 NULL}, \
	{OPT_TEXT, "dns-server", &serve_discovery.dns_server, "ADDRESS[:PORT]", \
	 "ask this name server, by IPv4 address (those of /etc/resolv.conf)", NULL, 0, 0, NULL}, \
	{OPT_TEXT, "registry-url", &serve_discovery.registry_url, "URL", \
	 "take workers from this service registry (`pdctl registry`, InfiniLM-SVC's): its healthy " \
	 "services of type openai-api; with prefill/decode their metadata.role counts", NULL, 0, 0, NULL}, \
	{OPT_REAL, "registry-sync-interval", &serve_discovery.registry_interval, "S", \
	 "ask the registry so often (2)", NULL, 0.05, 3600, NULL}, \
	{OPT_TEXT, "vllm-discovery-address", &serve_discovery.register_address, "HOST:PORT", \
	 "prefill and decode workers register here by ZeroMQ, every 3 s as vLLM's P2P-NCCL and " \
	 "MoRI-IO engines do; one that is silent for 5 s is drained", NULL, 0, 0, NULL}
/* clang-format on */

void serve_discovery_defaults(void);
/* Do the options ask for prefill/decode mode? */
bool serve_discovery_is_pd(void);
/* After c->pd is known: c->sources. PD_EINVAL names the flag. */
int serve_discovery_read(struct router_config *c, struct pd_msg *msg) PD_MUST;
/* Options that have no effect. */
void serve_discovery_announce(const struct router_config *c);
void serve_discovery_release(struct router_config *c);

#endif

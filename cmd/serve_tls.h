/* The TLS options of `pdctl serve`: their part of the table, and the contexts they describe. */
#ifndef PD_CMD_SERVE_TLS_H
#define PD_CMD_SERVE_TLS_H

#include "lib/base/opt.h"
#include "lib/router/config/config.h"

struct serve_tls {
	struct opt_list cert, key;
	const char *client_ca, *client_verify, *min_version, *worker_ca, *worker_cert, *worker_key;
	bool worker_insecure;
};
extern struct serve_tls serve_tls;

/* clang-format off */
#define SERVE_TLS_OPTIONS                                                                          \
	{.type = OPT_HEADING, .help = "TLS (files are PEM; read again on SIGHUP or POST /reload)"},\
	{OPT_LIST, "tls-cert", &serve_tls.cert, "FILE",                                            \
	 "serve HTTPS with this certificate chain; repeat for more names (SNI), the first is the " \
	 "default", NULL, 1, 1, "ssl-certfile"},                                                   \
	{OPT_LIST, "tls-key", &serve_tls.key, "FILE",                                              \
	 "its private key, one per --tls-cert; none: in the same files", NULL, 1, 1,               \
	 "ssl-keyfile"},                                                                           \
	{OPT_TEXT, "tls-client-ca", &serve_tls.client_ca, "FILE",                                  \
	 "CAs of client certificates", NULL, 0, 0, "ssl-ca-certs"},                                \
	{OPT_CHOICE, "tls-client-verify", &serve_tls.client_verify, NULL,                          \
	 "whether clients must present a certificate of these CAs (required with --tls-client-ca, " \
	 "else none)",                                                                             \
	 "none|optional|required", 0, 0, NULL},                                                    \
	{OPT_CHOICE, "tls-min-version", &serve_tls.min_version, NULL,                              \
	 "oldest TLS version accepted from clients (1.2)", "1.2|1.3", 0, 0, NULL},                 \
	{OPT_TEXT, "worker-ca", &serve_tls.worker_ca, "FILE",                                      \
	 "CAs of https:// workers (the system's)", NULL, 0, 0, "ca-cert-path"},                    \
	{OPT_TEXT, "worker-cert", &serve_tls.worker_cert, "FILE",                                  \
	 "client certificate for workers that ask for one", NULL, 0, 0, "client-cert-path"},       \
	{OPT_TEXT, "worker-key", &serve_tls.worker_key, "FILE",                                    \
	 "its private key (in the same file)", NULL, 0, 0, "client-key-path"},                     \
	{OPT_FLAG, "worker-tls-insecure", &serve_tls.worker_insecure, NULL,                        \
	 "do not verify workers' certificates: for experiments", NULL, 0, 0, NULL}
/* clang-format on */

void serve_tls_defaults(void);
/* Reads the files and sets c->tls, c->worker_tls. PD_EINVAL names flag, file and reason. */
int serve_tls_open(struct router_config *c, struct pd_msg *msg) PD_MUST;
/* After the router has gone. */
void serve_tls_close(struct router_config *c);

#endif

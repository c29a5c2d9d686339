/* The options of pdctl serve about keys: who may ask, and what workers are shown. */
#ifndef PD_CMD_SERVE_KEYS_H
#define PD_CMD_SERVE_KEYS_H

#include "lib/base/opt.h"
#include "lib/router/config/config.h"

struct serve_keys {
	const char *api_key, *api_key_file, *client_keys;
	struct opt_list urls;
	int64_t cache;
	double timeout, valid_ttl, invalid_ttl;
	bool forward;
};

extern struct serve_keys serve_keys;

/* Rows of the option table. */
#define SERVE_KEY_OPTIONS                                                                          \
	{.type = OPT_HEADING,                                                                      \
	 .help = "keys (clients: Authorization: Bearer KEY, or X-Api-Key; without one 401, but "   \
		 "for "                                                                            \
		 "/health /liveness /readiness)"},                                                 \
		{OPT_TEXT,                                                                         \
		 "client-api-keys",                                                                \
		 &serve_keys.client_keys,                                                          \
		 "FILE",                                                                           \
		 "keys of clients, one per line, with name=NAME behind it if metrics and access "  \
		 "log should name it; # begins a comment; read again on SIGHUP or POST /reload",   \
                                                                                                   \
		 NULL,                                                                             \
		 0,                                                                                \
		 0,                                                                                \
		 NULL},                                                                            \
		{OPT_LIST,                                                                         \
		 "api-key-validation-urls",                                                        \
		 &serve_keys.urls,                                                                 \
		 "URL...",                                                                         \
		 "services that validate other keys: GET with the key, 200 means valid; the "      \
		 "first 200 decides",                                                              \
		 NULL,                                                                             \
		 0,                                                                                \
		 0,                                                                                \
		 NULL},                                                                            \
		{OPT_REAL,                                                                         \
		 "api-key-validation-timeout-secs",                                                \
		 &serve_keys.timeout,                                                              \
		 "S",                                                                              \
		 "time limit of a validation; then 503 (5)",                                       \
		 NULL,                                                                             \
		 0.001,                                                                            \
		 600,                                                                              \
		 NULL},                                                                            \
		{OPT_REAL,                                                                         \
		 "api-key-valid-ttl-secs",                                                         \
		 &serve_keys.valid_ttl,                                                            \
		 "S",                                                                              \
		 "how long a valid key is cached (300)",                                           \
		 NULL,                                                                             \
		 0,                                                                                \
		 1e6,                                                                              \
		 NULL},                                                                            \
		{OPT_REAL,                                                                         \
		 "api-key-invalid-ttl-secs",                                                       \
		 &serve_keys.invalid_ttl,                                                          \
		 "S",                                                                              \
		 "how long an invalid key is cached (60)",                                         \
		 NULL,                                                                             \
		 0,                                                                                \
		 1e6,                                                                              \
		 NULL},                                                                            \
		{OPT_INT,                                                                          \
		 "api-key-cache-size",                                                             \
		 &serve_keys.cache,                                                                \
		 "N",                                                                              \
		 "valid keys cached, and as many invalid ones (65536)",                            \
		 NULL,                                                                             \
		 1,                                                                                \
		 1e7,                                                                              \
		 NULL},                                                                            \
		{OPT_TEXT,                                                                         \
		 "api-key",                                                                        \
		 &serve_keys.api_key,                                                              \
		 "KEY",                                                                            \
		 "sent to workers as Authorization: Bearer KEY in place of the client's",          \
		 NULL,                                                                             \
		 0,                                                                                \
		 0,                                                                                \
		 NULL},                                                                            \
		{OPT_TEXT,                                                                         \
		 "api-key-file",                                                                   \
		 &serve_keys.api_key_file,                                                         \
		 "FILE",                                                                           \
		 "the same from the first line of a file, which ps does not show",                 \
		 NULL,                                                                             \
		 0,                                                                                \
		 0,                                                                                \
		 NULL},                                                                            \
	{                                                                                          \
		OPT_FLAG, "forward-authorization", &serve_keys.forward, NULL,                      \
			"forward the key of an authorised client to the worker; without it the "   \
			"key is removed",                                                          \
			NULL, 0, 0, NULL                                                           \
	}

void serve_keys_defaults(const struct router_config *c);
/* After parsing. Takes the key out of the words that ps shows. */
int serve_keys_read(struct router_config *c, struct pd_msg *msg) PD_MUST;
void serve_keys_release(void);

#endif

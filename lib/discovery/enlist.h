/*
 * A worker's entries in a service registry, as InfiniLM-SVC's babysitter makes them: NAME, whose
 * port is that of the health pages, and NAME-server, the OpenAI API. Both are registered, told that
 * they are alive every `heartbeat_s`, registered again when the registry has forgotten them, and
 * taken out at the end. A registry that does not answer is asked again soon.
 */
#ifndef PD_DISCOVERY_ENLIST_H
#define PD_DISCOVERY_ENLIST_H

#include <stddef.h>
#include <stdint.h>

#include "lib/base/err.h"
#include "lib/base/log.h"

#define ENLIST_HEARTBEAT_S 30.0
#define ENLIST_RETRY_S	   1
#define ENLIST_END_S	   2 /* for taking one entry out */

/* Texts are borrowed for the call. */
struct enlist_config {
	const char *registry; /* its URL */
	const char *name;
	const char *host; /* as others reach the worker */
	uint16_t port, health_port;
	bool tls;
	const char *role; /* metadata "role"; NULL: none */
	const char *type; /* metadata "type" of NAME: what runs there */
	const char *const *models;
	size_t nmodels;
	const char *models_list;     /* JSON array: the "data" of /v1/models */
	const char *const *metadata; /* "KEY=VALUE", for both entries */
	size_t nmetadata;
	double heartbeat_s;
	struct log *log;
};

/* Can an entry have this name, this metadata? PD_EINVAL with a sentence. */
int enlist_check_name(const char *name, struct pd_msg *msg) PD_MUST;
int enlist_check_metadata(const char *text, struct pd_msg *msg) PD_MUST;

struct enlist;

/* PD_EINVAL as above; PD_ENOMEM; with a sentence. The registry itself is asked on a thread. */
int enlist_start(struct enlist **out, const struct enlist_config *cfg, struct pd_msg *msg) PD_MUST;
/* Takes the entries out, within 2 * ENLIST_END_S, and ends the thread. Accepts NULL. */
void enlist_stop(struct enlist *e);

#endif

/* What kinds of cases share: private to lib/epp. */
#ifndef PD_EPP_CASE_KIT_H
#define PD_EPP_CASE_KIT_H

#include "lib/epp/epp_config.h"

struct cJSON;

#define CASE_HEADERS 32

struct epp_case {
	struct pd_msg *why;
	struct cJSON *json, *output;
	const char *plugin;
	/* of case_config and case_begin */
	struct epp_config *config;
	struct route_state *state;
	struct route_pool *pool;
	struct route_slot *slot;
	struct score_given *given;
	uint32_t *load;
	struct score_run run;
	struct route_request rq;
	struct route_key key;
	struct field header[CASE_HEADERS];
	int64_t tokens; /* of the prompt, as the case says */
	/* A list under way, and what was made of it. */
	uint16_t *list;
	size_t n;
	double *sum, *raw;
};

/* The configuration of the case's plugins. PD_EINVAL and why: it is refused. */
int case_config(struct epp_case *k, const struct cJSON *json, struct pd_msg *why) PD_MUST;
/* The same, and a pool of `endpoints` (or of `scores`), the request, and the run. */
int case_begin(struct epp_case *k, const struct cJSON *json) PD_MUST;
/* A pool of these endpoints (an array), with what is known of them. */
int case_pool(struct epp_case *k, const struct cJSON *endpoints) PD_MUST;
/* What endpoint i is said to have. */
void case_endpoint(struct epp_case *k, uint32_t i, const struct cJSON *e);
void case_request(struct epp_case *k, const struct cJSON *request);
void case_release(struct epp_case *k);

/* The text of a value, and its name in its object; "" when it has none. */
const char *case_text(const struct cJSON *v);
const char *case_name(const struct cJSON *v);

/* The list is all workers. */
void case_all(struct epp_case *k);
/* The place of a worker by name; ROUTE_NO_WORKER. */
uint32_t case_find(const struct epp_case *k, const char *name);
/* got[i] of list[i] against {"name": score}. */
int case_compare(struct epp_case *k, const struct cJSON *want, const double *got,
		 const char *what) PD_MUST;
/* Names in order; the same in any order. */
int case_compare_names(struct epp_case *k, const struct cJSON *want, const uint16_t *got, size_t n,
		       const char *what) PD_MUST;
int case_compare_set(struct epp_case *k, const struct cJSON *want, const uint16_t *got, size_t n,
		     const char *what) PD_MUST;
int case_saturation(struct epp_case *k, const struct cJSON *want) PD_MUST;

#endif

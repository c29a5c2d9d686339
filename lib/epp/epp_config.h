/*
 * An EndpointPickerConfig file: which plugins there are, with their parameters, and how they make
 * profiles. Of both forms: inference.networking.x-k8s.io/v1alpha1 (Gateway API Inference Extension,
 * llm-d-inference-scheduler) and llm-d.ai/v1alpha1 (llm-d-router). Unknown keys, plugins and
 * parameters are errors with their place.
 *
 * Immutable once read; profiles, stages and texts live as long as the configuration.
 */
#ifndef PD_EPP_CONFIG_H
#define PD_EPP_CONFIG_H

#include "lib/route/policy/decider.h"
#include "lib/route/score/score_arena.h"
#include "lib/route/score/pipeline.h"

#define EPP_PLUGINS_MAX	 64
#define EPP_PROFILES_MAX 8
#define EPP_BANDS_MAX	 32
#define EPP_NOTES_MAX	 16

/* Requests of one priority that wait. */
struct epp_band {
	int64_t priority;
	int64_t max_bytes, max_requests;
	const struct score_type *fairness, *ordering;
};

struct epp_flow {
	bool on;			 /* the gate flowControl */
	int64_t max_bytes, max_requests; /* of all bands; 0: no limit */
	int64_t ttl_ns, empty_ttl_ns;	 /* waits while there are workers, and while there are none;
					    0: for ever */
	struct epp_band band[EPP_BANDS_MAX]; /* the highest first; 0 is always there */
	size_t nbands;
	struct epp_band other, negative; /* for priorities that the file does not name */
	double ceiling;			 /* of saturation */
};

struct epp_config {
	struct yamlpos pos;
	struct score_arena arena;
	bool old;
	struct score_stage plugin[EPP_PLUGINS_MAX];
	size_t nplugins;
	struct score_profile profile[EPP_PROFILES_MAX];
	size_t nprofiles;
	const struct score_handler *handler; /* NULL: one profile */
	const struct score_stage *decider;   /* NULL: none */
	struct score_stage detector;	     /* of saturation; the default has type set too */
	bool detector_named;		     /* the file says which */
	struct epp_flow flow;
	const char *note[EPP_NOTES_MAX]; /* what the file says and has no effect here */
	size_t nnotes;
};

/* `name` is the file's name for messages. PD_EINVAL: msg begins with "NAME:LINE:COLUMN: ". */
int epp_config_parse(struct epp_config **out, const char *text, size_t n, const char *name,
		     struct pd_msg *msg) PD_MUST;
int epp_config_read(struct epp_config **out, const char *path, struct pd_msg *msg) PD_MUST;
void epp_config_free(struct epp_config *c);

/* NULL: there is none of this name. */
const struct score_profile *epp_profile(const struct epp_config *c, const char *name);
/* Which profile decides in a pool: a plain one, prefill (NULL: the configuration never sends a
 * request there), decode. */
const struct score_profile *epp_profile_plain(const struct epp_config *c);
const struct score_profile *epp_profile_prefill(const struct epp_config *c);
const struct score_profile *epp_profile_decode(const struct epp_config *c);

enum epp_pool { EPP_PLAIN, EPP_PREFILL, EPP_DECODE };

/*
 * What the profile handler says of prefilling remotely, as a decider of pairs. False: nothing, it
 * has none. Token counts are estimates by length, four bytes each; of a threshold in bytes up to
 * three are lost to rounding.
 */
bool epp_decider(const struct epp_config *c, struct route_decider_spec *out);
/* Prefill is picked first (stageOrder). */
bool epp_prefill_first(const struct epp_config *c);

/* Gives the policy `scores` its profile of this configuration (NULL: none); other policies stay. */
void epp_apply(const struct epp_config *c, enum epp_pool pool, struct route_spec *spec);

#endif

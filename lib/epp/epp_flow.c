#include "lib/epp/epp_flow.h"

#include <stdlib.h>

#define DEFAULT_TTL	 60000000000
#define DEFAULT_BYTES	 1000000000
#define DEFAULT_REQUESTS 5000

/* A Kubernetes quantity: a number with k, M, G, T (powers of 1000) or Ki, Mi, Gi, Ti (of 1024). */
static int quantity(struct epp_reading *r, struct yamlnode map, const char *key, int64_t *out)
{
	static const struct {
		const char *unit;
		double factor;
	} units[] = {{"", 1},	     {"k", 1e3},     {"M", 1e6},     {"G", 1e9},    {"T", 1e12},
		     {"Ki", 0x1p10}, {"Mi", 0x1p20}, {"Gi", 0x1p30}, {"Ti", 0x1p40}};
	struct yamlnode n = yamlnode_get(map, key);
	const char *text = n.pos ? yamlnode_text(n) : NULL;
	char *end = NULL;
	double v = text && text[0] && !text[strspn(text, "0123456789.kMGTi")] ? strtod(text, &end)
									      : -1;
	size_t i = 0;

	if (!n.pos)
		return PD_OK;
	while (end && i < sizeof(units) / sizeof(units[0]) && strcmp(units[i].unit, end) != 0)
		i++;
	if (v < 0 || !end || end == text || i == sizeof(units) / sizeof(units[0]) ||
	    v * units[i].factor > 9e18)
		return yamlnode_fail(n, r->file, r->msg,
				     "'%s': found '%.40s', expected a quantity such as 500, 1k or "
				     "2Gi",
				     key, text ? text : "a list or mapping");
	*out = (int64_t)(v * units[i].factor);
	return PD_OK;
}

static int duration(struct epp_reading *r, const char *key, struct yamlnode map, int64_t *out)
{
	struct yamlnode n = yamlnode_get(map, key);

	if (n.pos && (yamlnode_duration(n, out) || *out < 0))
		return yamlnode_fail(n, r->file, r->msg,
				     "'%s': expected a duration such as 60s, at least 0s", key);
	return PD_OK;
}

static int read_band(struct epp_reading *r, struct yamlnode n, struct epp_band *out)
{
	static const char *const keys[] = {"priority",		"maxBytes",	     "maxRequests",
					   "fairnessPolicyRef", "orderingPolicyRef", NULL};
	struct yamlnode priority = yamlnode_get(n, "priority");
	const struct score_stage *fairness, *ordering;
	int64_t bytes = 0, requests = 0;
	int err = epp_keys(r, n, keys);

	if (!err && priority.pos && yamlnode_int(priority, &out->priority))
		return yamlnode_fail(priority, r->file, r->msg,
				     "'priority': expected a whole number");
	err = err ? err : quantity(r, n, "maxBytes", &bytes);
	err = err ? err : quantity(r, n, "maxRequests", &requests);
	err = err ? err
		  : epp_ref(r, n, "fairnessPolicyRef", SCORE_FAIRNESS, "a fairness policy",
			    &fairness);
	err = err ? err
		  : epp_ref(r, n, "orderingPolicyRef", SCORE_ORDERING, "an ordering policy",
			    &ordering);
	if (err)
		return err;
	out->max_bytes = bytes ? bytes : DEFAULT_BYTES;
	out->max_requests = requests ? requests : DEFAULT_REQUESTS;
	if (fairness)
		out->fairness = fairness->type;
	if (ordering)
		out->ordering = ordering->type;
	return PD_OK;
}

static int by_priority(const void *a, const void *b)
{
	const struct epp_band *x = a, *y = b;

	return x->priority == y->priority ? 0 : x->priority > y->priority ? -1 : 1;
}

static int read_bands(struct epp_reading *r, struct yamlnode flow)
{
	struct epp_flow *f = &r->config->flow;
	struct yamlnode list, one = yamlnode_get(flow, "defaultPriorityBand");
	bool zero = false;
	int err = one.pos ? read_band(r, one, &f->other) : PD_OK;

	f->negative = f->other;
	one = yamlnode_get(flow, "defaultNegativePriorityBand");
	if (!err && one.pos)
		err = read_band(r, one, &f->negative);
	err = err ? err : epp_list(r, flow, "priorityBands", &list);
	for (struct yamlnode n = err ? (struct yamlnode){0} : yamlnode_first(list); !err && n.pos;
	     n = yamlnode_next(n)) {
		struct epp_band *b = &f->band[f->nbands];

		if (f->nbands == EPP_BANDS_MAX - 1)
			return yamlnode_fail(n, r->file, r->msg, "expected at most %d bands",
					     EPP_BANDS_MAX - 1);
		*b = (struct epp_band){.fairness = f->other.fairness,
				       .ordering = f->other.ordering};
		err = read_band(r, n, b);
		for (size_t i = 0; !err && i < f->nbands; i++)
			if (f->band[i].priority == b->priority)
				return yamlnode_fail(n, r->file, r->msg,
						     "duplicate band of priority %lld",
						     (long long)b->priority);
		zero |= b->priority == 0;
		f->nbands++;
	}
	if (!err && !zero) {
		f->band[f->nbands] = f->other;
		f->band[f->nbands++].priority = 0;
	}
	qsort(f->band, f->nbands, sizeof(f->band[0]), by_priority);
	return err;
}

/* saturationDetector: thresholds of its own in the older form, else the name of a plugin. */
static int read_detector(struct epp_reading *r, struct yamlnode n)
{
	static const char *const keys[] = {"pluginRef", NULL};
	struct epp_config *c = r->config;
	const struct score_stage *s;
	int err;

	if (!n.pos)
		return PD_OK;
	c->detector_named = true;
	if (c->old && !yamlnode_get(n, "pluginRef").pos)
		return epp_params(r, &c->detector, n);
	err = epp_keys(r, n, keys);
	err = err ? err : epp_ref(r, n, "pluginRef", SCORE_DETECTOR, "a saturation detector", &s);
	if (!err && s)
		c->detector = *s;
	return err;
}

int epp_flow_read(struct epp_reading *r)
{
	static const char *const keys[] = {"maxBytes",
					   "maxRequests",
					   "defaultRequestTTL",
					   "noEndpointRequestTTL",
					   "priorityBands",
					   "defaultPriorityBand",
					   "defaultNegativePriorityBand",
					   "usageLimitPolicyPluginRef",
					   "saturationDetector",
					   "enableEviction",
					   NULL};
	struct epp_config *c = r->config;
	struct yamlnode flow = yamlnode_get(r->root, "flowControl"), eviction;
	const struct score_stage *ceiling = NULL;
	struct epp_flow *f = &c->flow;
	bool evict = false;
	int err;

	c->detector = (struct score_stage){.type = score_type_find("utilization-detector")};
	f->other = (struct epp_band){.max_bytes = DEFAULT_BYTES,
				     .max_requests = DEFAULT_REQUESTS,
				     .fairness = score_type_find("global-strict-fairness-policy"),
				     .ordering = score_type_find("fcfs-ordering-policy")};
	f->ttl_ns = DEFAULT_TTL;
	f->ceiling = 1;
	err = epp_default_params(r, &c->detector);
	err = err ? err : read_detector(r, yamlnode_get(r->root, "saturationDetector"));
	if (!err && flow.pos)
		err = epp_keys(r, flow, keys);
	err = err ? err : read_detector(r, yamlnode_get(flow, "saturationDetector"));
	err = err ? err : quantity(r, flow, "maxBytes", &f->max_bytes);
	err = err ? err : quantity(r, flow, "maxRequests", &f->max_requests);
	err = err ? err : duration(r, "defaultRequestTTL", flow, &f->ttl_ns);
	f->empty_ttl_ns = f->ttl_ns;
	err = err ? err : duration(r, "noEndpointRequestTTL", flow, &f->empty_ttl_ns);
	err = err ? err : read_bands(r, flow);
	err = err ? err
		  : epp_ref(r, flow, "usageLimitPolicyPluginRef", SCORE_CEILING,
			    "a usage limit policy", &ceiling);
	if (!err && ceiling)
		f->ceiling = *(const double *)ceiling->params;
	if (!err && flow.pos && !c->flow.on)
		err = epp_note(r, flow, "flowControl without featureGates: [flowControl]");
	eviction = yamlnode_get(flow, "enableEviction");
	if (!err && eviction.pos && yamlnode_bool(eviction, &evict))
		return yamlnode_fail(eviction, r->file, r->msg,
				     "'enableEviction': expected true or false");
	return !err && evict ? yamlnode_fail(eviction, r->file, r->msg,
					     "'enableEviction': found true, expected false: the "
					     "router does not take back what it began")
			     : err;
}

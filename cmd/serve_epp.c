#include "cmd/serve_epp.h"

#include "lib/base/clock.h"
#include "lib/epp/epp_config.h"

struct serve_epp serve_epp = {.interval = 0.1, .stale = 2};

int serve_epp_read(struct router_config *c, const char **policy, bool given, struct pd_msg *msg)
{
	struct pd_msg inner = {0};
	struct epp_config *epp;

	c->rate = serve_epp.rate;
	c->priority_header = serve_epp.priority_header;
	c->fairness_header = serve_epp.fairness_header;
	c->scrape_interval = (int64_t)(serve_epp.interval * (double)NS_PER_S);
	c->scrape_stale = (int64_t)(serve_epp.stale * (double)NS_PER_S);
	if (!serve_epp.file)
		return PD_OK;
	if (epp_config_read(&epp, serve_epp.file, &inner))
		return pd_fail(msg, PD_EINVAL, "--epp-config: %.480s", inner.text);
	c->epp = epp;
	c->scrape_always = (epp->detector.type->wants & SCORE_WANTS_SIGNALS) &&
			   (epp->flow.on || c->priority_header);
	if (!given)
		*policy = "scores";
	if (c->pd && !epp_profile_prefill(epp))
		return pd_fail(
			msg, PD_EINVAL,
			"--epp-config: %.200s: found no profile for prefill with a decider or "
			"a threshold, expected one: the router has prefill workers",
			serve_epp.file);
	return PD_OK;
}

int serve_epp_apply(struct router_config *c, struct pd_msg *msg)
{
	static const enum epp_pool pools[ROLES] = {EPP_PLAIN, EPP_PREFILL, EPP_DECODE};
	bool scored = !c->epp;

	for (int r = 0; r < ROLES; r++) {
		epp_apply(c->epp, pools[r], &c->fleet.policy[r]);
		if (c->has_shadow)
			epp_apply(c->epp, pools[r], &c->shadow[r]);
		if ((r == ROLE_REGULAR) != c->pd)
			scored |= score_spec_profile(&c->fleet.policy[r]) ||
				  (c->has_shadow && score_spec_profile(&c->shadow[r]));
	}
	return scored ? PD_OK
		      : pd_fail(msg, PD_EINVAL,
				"--epp-config has no effect with --policy %.60s, expected scores",
				c->fleet.policy[c->pd ? ROLE_DECODE : ROLE_REGULAR].type->name);
}

/* "[a, b: 2]": the names of stages from..to-1, and the weight of each whose weight is not 1. */
static int put_stages(const struct score_profile *p, size_t from, size_t to, struct buf *out)
{
	int err = buf_putc(out, '[');

	for (size_t i = from; !err && i < to; i++) {
		const struct score_stage *s = &p->stage[i];
		bool weighed = from >= p->nfilters && s->weight != 1;

		err = buf_printf(out, "%s%s", i > from ? ", " : "",
				 s->name ? s->name : s->type->name);
		if (!err && weighed)
			err = buf_printf(out, ": %g", s->weight);
	}
	return err ? err : buf_putc(out, ']');
}

/* What decides in a pool, in the words of the endpoint picker. */
static void tell_profile(const struct router_config *c, enum worker_role r)
{
	const struct score_profile *p = score_spec_profile(&c->fleet.policy[r]);
	size_t picker = p ? p->nfilters + p->nscorers : 0;
	struct buf b;
	int err;

	if (!p)
		return;
	buf_init(&b, 1u << 16);
	err = buf_printf(&b, "profile %s of %s: Filters: ", p->name, worker_role_name(r));
	err = err ? err : put_stages(p, 0, p->nfilters, &b);
	err = err ? err : buf_puts(&b, ", Scorers: ");
	err = err ? err : put_stages(p, p->nfilters, picker, &b);
	if (!err)
		log_event(c->log, LOG_INFO, "epp_profile",
			  LOG_FIELDS(LOG_TEXT("pool", worker_role_name(r)),
				     LOG_TEXT("profile", p->name),
				     LOG_TEXT("picker", p->stage[picker].name)),
			  "%.*s, Picker: %s", (int)b.len, b.data, p->stage[picker].name);
	buf_release(&b);
}

static bool overruled; /* the file has a decider, and --pd-decider was given */

void serve_epp_decider(struct router_config *c, bool given)
{
	struct route_decider_spec spec;

	if (!c->epp || !c->pd)
		return;
	c->prefill_first = epp_prefill_first(c->epp);
	if (!epp_decider(c->epp, &spec))
		return;
	if (given)
		overruled = true;
	else
		c->decider = spec;
}

void serve_epp_announce(const struct router_config *c)
{
	static const char note[] = "the decider of the profile handler has no effect: --pd-decider "
				   "is given";
	static const char idle[] = "saturationDetector has no effect: found neither featureGates: "
				   "[flowControl] nor --priority-header";

	for (int r = 0; c->epp && r < ROLES; r++)
		if ((r == ROLE_REGULAR) != c->pd)
			tell_profile(c, (enum worker_role)r);
	if (c->epp && c->epp->detector_named && !c->epp->flow.on && !c->priority_header)
		log_event(c->log, LOG_WARN, "epp_config", LOG_FIELDS(LOG_TEXT("note", idle)), "%s",
			  idle);
	if (overruled)
		log_event(c->log, LOG_WARN, "epp_config", LOG_FIELDS(LOG_TEXT("note", note)), "%s",
			  note);
	for (size_t i = 0; c->epp && i < c->epp->nnotes; i++)
		log_event(c->log, LOG_WARN, "epp_config",
			  LOG_FIELDS(LOG_TEXT("note", c->epp->note[i])), "%s", c->epp->note[i]);
}

void serve_epp_release(struct router_config *c)
{
	epp_config_free((struct epp_config *)(uintptr_t)c->epp);
	c->epp = NULL;
}

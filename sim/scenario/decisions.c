#include "sim/scenario/decisions.h"

#include <inttypes.h>
#include <stdlib.h>
#include <string.h>

#include "lib/json/scan.h"

static int begin_line(const struct experiment *e, const struct arm *a, struct buf *out)
{
	int err = buf_putc(out, '{');

	if (!err && e->name) {
		err = buf_puts(out, "\"scenario\":");
		if (!err)
			err = json_quote(out, e->name, strlen(e->name));
		if (!err)
			err = buf_putc(out, ',');
	}
	return err ? err
		   : buf_printf(out, "\"policy\":\"%s\",\"workers\":%u,", a->policy, a->workers);
}

static int decision_line(const struct experiment *e, const struct arm *a, size_t req,
			 const struct replay_choice *pick, struct buf *out)
{
	const struct simtrace *t = &e->load[a->load].trace;
	const struct sim_request got = simtrace_request(t, (size_t)req), *q = &got;
	struct span key = q->key == SIM_NO_KEY ? SPAN("") : simtrace_key(t, q->key);
	int err = begin_line(e, a, out);

	if (!err)
		err = buf_printf(out, "\"request\":%zu,\"key\":", req);
	if (!err)
		err = json_quote(out, key.p, key.n);
	if (!err)
		err = buf_puts(out, ",\"pick\":[");
	for (size_t p = 0; !err && p < a->cfg.npools; p++) {
		bool local = pick[p].worker == VROUTER_LOCAL;
		const char *name = pick[p].worker == VROUTER_REFUSED || local
					   ? NULL
					   : a->names[p][pick[p].worker];

		err = buf_printf(out, "%s{\"worker\":", p ? "," : "");
		if (!err)
			err = name ? json_quote(out, name, strlen(name)) : buf_puts(out, "null");
		if (!err)
			err = buf_printf(out, ",\"reason\":\"%s\"}",
					 name	 ? route_reason_name(pick[p].reason)
					 : local ? "local"
						 : "refused");
	}
	return err ? err : buf_puts(out, "]}\n");
}

static int event_line(const struct experiment *e, const struct arm *a, size_t event,
		      uint64_t before, struct buf *out)
{
	const struct replay_event *v = &a->events[event];
	const char *name = a->names[v->pool][v->worker];
	int err = begin_line(e, a, out);

	if (!err)
		err = buf_printf(out,
				 "\"event\":\"%s\",\"worker\":", replay_action_name(v->action));
	if (!err)
		err = json_quote(out, name, strlen(name));
	if (!err)
		err = before == UINT64_MAX
			      ? buf_puts(out, ",\"before_request\":null}\n")
			      : buf_printf(out, ",\"before_request\":%" PRIu64 "}\n", before);
	return err;
}

/* The events that happened when `routed` requests had been routed. */
static int events_at(const struct experiment *e, const struct arm *a, const uint64_t *happened,
		     uint64_t routed, struct buf *out)
{
	int err = PD_OK;

	for (size_t i = 0; !err && i < a->cfg.nevents; i++)
		if (happened[i] == routed)
			err = event_line(e, a, i, routed, out);
	return err;
}

static int append_arm(const struct experiment *e, const struct arm *a, struct buf *out,
		      struct pd_msg *msg)
{
	struct replay_config cfg = a->cfg;
	struct replay_result result;
	const struct simtrace *t = &e->load[a->load].trace;
	size_t n = t->n;
	int err;

	memset(&result, 0, sizeof(result));
	cfg.choices = calloc(n * cfg.npools + 1, sizeof(*cfg.choices));
	cfg.sequence = calloc(n + 1, sizeof(*cfg.sequence));
	cfg.happened = calloc(cfg.nevents + 1, sizeof(*cfg.happened));
	err = cfg.choices && cfg.sequence && cfg.happened ? PD_OK : PD_ENOMEM;
	if (!err)
		err = replay_run(t, &cfg, &result, msg);
	for (size_t i = 0; !err && i < n; i++) {
		err = events_at(e, a, cfg.happened, i, out);
		if (!err)
			err = decision_line(e, a, cfg.sequence[i],
					    cfg.choices + cfg.sequence[i] * cfg.npools, out);
	}
	if (!err)
		err = events_at(e, a, cfg.happened, n, out);
	for (size_t i = 0; !err && i < cfg.nevents; i++)
		if (cfg.happened[i] == UINT64_MAX)
			err = event_line(e, a, i, UINT64_MAX, out);
	replay_result_release(&result);
	free(cfg.choices);
	free(cfg.sequence);
	free(cfg.happened);
	return err;
}

int decisions_append(const struct experiment *e, struct buf *out, struct pd_msg *msg)
{
	int err = PD_OK;

	for (size_t i = 0; !err && i < e->arms.n; i++)
		if (e->arms.arm[i].done)
			err = append_arm(e, &e->arms.arm[i], out, msg);
	return err ? pd_fail(msg, err, "cannot list the decisions: %s", pd_err_text(err)) : PD_OK;
}

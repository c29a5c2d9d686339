#include "cmd/simulate_exact.h"

#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "cmd/json_out.h"
#include "lib/base/cli.h"
#include "lib/base/file.h"
#include "lib/epp/epp_config.h"
#include "lib/json/scan.h"
#include "sim/replay/exact.h"
#include "sim/scenario/plan.h"

#define LINES_MAX ((size_t)4 << 30)
#define SHOWN_MAX 5 /* decisions that differ, in the text */

static const char *const pools[CAPTURE_ROLES] = {"workers", "prefill", "decode"};

struct exact_lines {
	const struct capture_log *log;
	struct buf all;	  /* --decisions */
	struct buf shown; /* those that differ */
	unsigned differ;
	bool wanted;
};

static int put_text(struct buf *b, const char *name, const char *text)
{
	int err = buf_printf(b, ",\"%s\":", name);

	if (err)
		return err;
	return text ? json_quote(b, text, strlen(text)) : buf_puts(b, "null");
}

static int event_line(struct exact_lines *l, const struct exact_event *v)
{
	static const char *const what[] = {[CAPTURE_PICKED] = "picked",
					   [CAPTURE_COMPUTED] = "computed",
					   [CAPTURE_ENDED] = "ended"};
	const struct capture_event *e = v->e;
	struct buf *b = &l->all;
	int err = buf_printf(b,
			     "{\"seq\":%" PRIu64 ",\"at_ms\":%" PRId64 ".%06" PRId64
			     ",\"event\":\"%s\",\"request\":%" PRId64 ",\"pool\":\"%s\"",
			     e->seq, e->at_ns / 1000000, e->at_ns % 1000000, what[e->what],
			     v->call->id, pools[e->role]);

	err = err ? err : put_text(b, "worker", v->worker);
	if (!err && e->what == CAPTURE_PICKED) {
		err = buf_printf(b, ",\"attempt\":%u", e->attempt);
		err = err ? err : put_text(b, "key", l->log->text.data + v->call->key);
		err = err ? err : put_text(b, "decided", v->decided);
		err = err ? err
			  : put_text(b, "reason", v->decided ? route_reason_name(v->reason) : NULL);
		err = err ? err
			  : buf_printf(b, ",\"agrees\":%s",
				       !v->compared ? "null"
				       : v->agreed  ? "true"
						    : "false");
	}
	return err ? err : buf_puts(b, "}\n");
}

static int on_event(void *ctx, const struct exact_event *v)
{
	struct exact_lines *l = ctx;
	int err = l->wanted ? event_line(l, v) : PD_OK;

	if (err || !v->compared || v->agreed || l->differ++ >= SHOWN_MAX)
		return err;
	return buf_printf(&l->shown,
			  "  event %" PRIu64 ", request %" PRId64 ", attempt %u, %s: captured %s, "
			  "decided %s\n",
			  v->e->seq, v->call->id, v->e->attempt, pools[v->e->role], v->worker,
			  v->decided ? v->decided : "nobody");
}

static int write_json(const struct simulate_exact *o, const struct exact_result *r,
		      struct pd_msg *msg)
{
	cJSON *doc = cJSON_CreateObject(), *pdctl = cJSON_AddObjectToObject(doc, "pdctl"), *all;
	int err;

	(void)cJSON_AddNumberToObject(pdctl, "version", 1);
	(void)cJSON_AddStringToObject(pdctl, "kind", "simulate");
	(void)cJSON_AddTrueToObject(pdctl, "simulated");
	(void)cJSON_AddStringToObject(pdctl, "replay", "exact");
	(void)cJSON_AddNumberToObject(pdctl, "events", (double)r->events);
	(void)cJSON_AddNumberToObject(pdctl, "requests", (double)r->requests);
	(void)cJSON_AddNumberToObject(pdctl, "retries", (double)r->retries);
	(void)cJSON_AddNumberToObject(pdctl, "dropped_records", (double)r->dropped);
	all = cJSON_AddObjectToObject(pdctl, "pools");
	for (int k = 0; all && k < CAPTURE_ROLES; k++) {
		const struct exact_pool *p = &r->pool[k];
		cJSON *one = p->used ? cJSON_AddObjectToObject(all, pools[k]) : NULL;

		if (!one)
			continue;
		(void)cJSON_AddStringToObject(one, "policy", p->policy);
		(void)cJSON_AddNumberToObject(one, "workers", (double)p->workers);
		(void)cJSON_AddNumberToObject(one, "decisions", (double)p->decisions);
		(void)cJSON_AddNumberToObject(one, "agreed", (double)p->agreed);
		if (p->decisions > 0)
			(void)cJSON_AddNumberToObject(one, "agreement",
						      (double)p->agreed / (double)p->decisions);
		else
			(void)cJSON_AddNullToObject(one, "agreement");
		(void)cJSON_AddNumberToObject(one, "overlapped", (double)p->overlapped);
		(void)cJSON_AddNumberToObject(one, "not_compared", (double)p->hashed);
	}
	err = all ? json_out(o->json, doc, msg) : pd_fail(msg, PD_ENOMEM, "out of memory");
	cJSON_Delete(doc);
	return err;
}

static int print(const struct exact_lines *l, const struct exact_result *r)
{
	struct buf b;
	int err = PD_OK;

	buf_init(&b, 1 << 20);
	for (int k = 0; !err && k < CAPTURE_ROLES; k++) {
		const struct exact_pool *p = &r->pool[k];

		if (!p->used)
			continue;
		err = buf_printf(&b, "agreement with the capture: %s, %s %zu: ", p->policy,
				 pools[k], p->workers);
		if (err || p->decisions == 0)
			err = err ? err : buf_puts(&b, "nothing to compare\n");
		else
			err = buf_printf(&b, "%.2f %% (%" PRIu64 " of %" PRIu64 " decisions)\n",
					 100.0 * (double)p->agreed / (double)p->decisions,
					 p->agreed, p->decisions);
		if (!err && p->overlapped > 0)
			err = buf_printf(&b, "  %" PRIu64 " of them while other events happened\n",
					 p->overlapped);
		if (!err && p->hashed > 0)
			err = buf_printf(&b,
					 "  %" PRIu64 " decisions are not compared: their keys are "
					 "hashed\n",
					 p->hashed);
	}
	err = err ? err
		  : buf_printf(&b,
			       "%" PRIu64 " events of %" PRIu64 " requests, %" PRIu64 " retries\n",
			       r->events, r->requests, r->retries);
	if (!err && r->dropped > 0)
		err = buf_printf(
			&b, "the capture lacks %" PRIu64 " records: later decisions may differ\n",
			r->dropped);
	if (!err && l->differ > 0)
		err = buf_printf(&b, "%u decisions differ:\n%s%s", l->differ,
				 l->shown.data ? l->shown.data : "",
				 l->differ > SHOWN_MAX ? "  ...\n" : "");
	if (!err)
		cli_print(b.data, b.len);
	buf_release(&b);
	return err;
}

/* --policy and --epp-config instead of what was captured. */
static int read_policy(const struct simulate_exact *o, const struct capture_info *info,
		       const struct route_settings *s, struct epp_config **epp,
		       struct route_spec spec[REPLAY_POOLS], struct exact_options *opt,
		       struct pd_msg *msg)
{
	const char *text = o->policies->n ? o->policies->items[0] : o->epp_config ? "scores" : NULL;
	struct pd_msg inner = {""};

	if (o->epp_config && epp_config_read(epp, o->epp_config, &inner))
		return pd_fail(msg, PD_EINVAL, "--epp-config: %.480s", inner.text);
	if (!text)
		return PD_OK;
	if (o->policies->n > 1 || strchr(text, ','))
		return pd_fail(msg, PD_EINVAL, "--policy: expected one policy with --replay exact");
	if (plan_policy_parse(text, s, spec, &inner))
		return pd_fail(msg, PD_EINVAL, "--policy: %.480s", inner.text);
	for (int p = 0; p < REPLAY_POOLS; p++)
		epp_apply(*epp,
			  !info->pd ? EPP_PLAIN
			  : p == 0  ? EPP_PREFILL
				    : EPP_DECODE,
			  &spec[p]);
	opt->policy[CAPTURE_ROLE_REGULAR] = opt->policy[CAPTURE_ROLE_PREFILL] = &spec[0];
	opt->policy[CAPTURE_ROLE_DECODE] = &spec[1];
	return PD_OK;
}

int simulate_exact_run(const struct simulate_exact *o, bool *agreed, struct pd_msg *msg)
{
	struct capture_info info = {0};
	struct capture_log log = {0};
	struct exact_lines lines = {.log = &log, .wanted = o->decisions != NULL};
	struct route_settings settings = {{NULL}};
	struct route_spec spec[REPLAY_POOLS];
	struct exact_options opt = {.settings = &settings, .event = on_event, .ctx = &lines};
	struct epp_config *epp = NULL;
	struct exact_result r = {0};
	char vnodes[16];
	int err;

	if (!capture_file_is(o->workload))
		return pd_fail(msg, PD_EINVAL,
			       "--replay exact: '%.300s' is not a capture of pdctl serve",
			       o->workload);
	buf_init(&lines.all, LINES_MAX);
	buf_init(&lines.shown, 1 << 20);
	err = capture_info_read(&info, o->workload, o->run, msg);
	err = err ? err : capture_log_read(&log, o->workload, info.run, msg);
	(void)snprintf(vnodes, sizeof(vnodes), "%u", info.vnodes);
	err = err ? err : route_settings_put(&settings, "ring-hash", info.fbi ? "fbi" : "xxh3");
	err = err ? err : route_settings_put(&settings, "virtual-nodes", vnodes);
	err = err ? err : read_policy(o, &info, &settings, &epp, spec, &opt, msg);
	err = err ? err : exact_run(&log, &opt, &r, msg);
	if (!err && o->decisions)
		err = file_write(o->decisions, lines.all.data ? lines.all.data : "", lines.all.len,
				 msg);
	if (!err && o->json)
		err = write_json(o, &r, msg);
	if (!err && !(o->json && strcmp(o->json, "-") == 0))
		err = print(&lines, &r);
	*agreed = lines.differ == 0;
	buf_release(&lines.all);
	buf_release(&lines.shown);
	capture_log_release(&log);
	capture_info_release(&info);
	epp_config_free(epp);
	return err;
}

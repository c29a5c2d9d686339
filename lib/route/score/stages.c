/*
 * Every plugin, one line each. The reader of configurations, `pdctl explain --list-plugins` and the
 * table in docs/epp.md walk this table.
 */
#define STAGES                                                                                     \
	STAGE(active)                                                                              \
	STAGE(queue)                                                                               \
	STAGE(running)                                                                             \
	STAGE(kv)                                                                                  \
	STAGE(load)                                                                                \
	STAGE(tokens)                                                                              \
	STAGE(prefix)                                                                              \
	STAGE(no_hit_lru)                                                                          \
	STAGE(session)                                                                             \
	STAGE(lora)                                                                                \
	STAGE(header_label)                                                                        \
	STAGE(context_length)                                                                      \
	STAGE(label_selector)                                                                      \
	STAGE(by_label_selector)                                                                   \
	STAGE(by_label)                                                                            \
	STAGE(decode_filter)                                                                       \
	STAGE(prefill_filter)                                                                      \
	STAGE(encode_filter)                                                                       \
	STAGE(session_filter)                                                                      \
	STAGE(sticky)                                                                              \
	STAGE(header_testing)                                                                      \
	STAGE(utilization)                                                                         \
	STAGE(concurrency)                                                                         \
	STAGE(limits)                                                                              \
	STAGE(max_picker)                                                                          \
	STAGE(random_picker)                                                                       \
	STAGE(weighted_picker)                                                                     \
	STAGE(single_handler)                                                                      \
	STAGE(disagg_handler)                                                                      \
	STAGE(pd_handler)                                                                          \
	STAGE(prefix_decider)                                                                      \
	STAGE(always_decider)                                                                      \
	STAGE(prefix_producer)                                                                     \
	STAGE(flight_producer)                                                                     \
	STAGE(token_producer)                                                                      \
	STAGE(metrics_source)                                                                      \
	STAGE(core_metrics)                                                                        \
	STAGE(disagg_headers)                                                                      \
	STAGE(prefill_header)                                                                      \
	STAGE(strict_fairness)                                                                     \
	STAGE(turns_fairness)                                                                      \
	STAGE(fcfs_ordering)                                                                       \
	STAGE(edf_ordering)                                                                        \
	STAGE(slo_ordering)                                                                        \
	STAGE(static_limit)

#include "lib/route/score/stage.h"

#include <math.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>

#include "lib/route/hash.h"
#include "lib/route/score/score_arena.h"

#define STAGE(name) extern const struct score_type score_##name;
STAGES
#undef STAGE
#define STAGE(name) &score_##name,
const struct score_type *const score_types[] = {STAGES NULL};

const struct score_type *score_type_find(const char *name)
{
	for (size_t i = 0; score_types[i]; i++)
		if (strcmp(score_types[i]->name, name) == 0)
			return score_types[i];
	return NULL;
}

static int put_kinds(const struct score_type *t, struct buf *out)
{
	static const char *const names[] = {"filter",	"scorer",   "picker",	"profile handler",
					    "decider",	"producer", "detector", "fairness",
					    "ordering", "ceiling",  "other"};
	bool first = true;
	int err = PD_OK;

	for (size_t i = 0; !err && i < sizeof(names) / sizeof(names[0]); i++)
		if (t->kinds & 1u << i) {
			err = buf_printf(out, "%s%s", first ? "" : ", ", names[i]);
			first = false;
		}
	return err;
}

static int put_default(const struct score_param *p, struct buf *out)
{
	switch (p->type) {
	case SCORE_PARAM_INT:
	case SCORE_PARAM_REAL:
		return buf_printf(out, " (%.10g)", p->fallback);
	case SCORE_PARAM_BOOL:
		return buf_printf(out, " (%s)", p->fallback != 0 ? "true" : "false");
	case SCORE_PARAM_DURATION:
		return buf_printf(out, " (%gms)", p->fallback / 1e6);
	case SCORE_PARAM_TEXT:
		return p->text ? buf_printf(out, " (%s)", p->text) : PD_OK;
	default:
		return PD_OK;
	}
}

int score_types_markdown(struct buf *out)
{
	int err = buf_puts(out, "| type | kind | what it does | parameters |\n|---|---|---|---|\n");

	for (size_t i = 0; !err && score_types[i]; i++) {
		const struct score_type *t = score_types[i];

		err = buf_printf(out, "| `%s` | ", t->name);
		err = err ? err : put_kinds(t, out);
		err = err ? err : buf_printf(out, " | %s | ", t->help);
		if (!err && t->unread)
			err = buf_puts(out, "any, none has an effect");
		for (const struct score_param *p = t->params; !err && p && p->type; p++) {
			err = buf_printf(out, "%s`%s`", p == t->params ? "" : ", ", p->name);
			err = err ? err : put_default(p, out);
			if (!err && p->without)
				err = buf_puts(out, " (no effect)");
		}
		err = err ? err : buf_puts(out, " |\n");
	}
	return err;
}

/* -- for stages -- */

struct span score_header(const struct route_request *rq, const char *name)
{
	struct span want = span_of(name);

	for (size_t i = 0; i < rq->nheaders; i++)
		if (span_eq_case(rq->header[i].name, want))
			return rq->header[i].value;
	return (struct span){NULL, 0};
}

int64_t score_output(const struct score_flight *f, const struct route_request *rq)
{
	int64_t n = f->output ? (int64_t)round((double)rq->tokens * f->ratio) : 0;

	if (rq->output_tokens > 0 && n > rq->output_tokens)
		n = rq->output_tokens;
	return f->max > 0 && n > f->max ? f->max : n;
}

int score_wrong(const struct score_reader *r, const char *param, const char *fmt, ...)
{
	struct yamlnode at = param ? yamlnode_get(r->node, param) : r->node;
	char text[PD_MSG_MAX];
	va_list args;

	va_start(args, fmt);
#pragma GCC diagnostic push
#pragma GCC diagnostic ignored "-Wformat-nonliteral" /* the callers' formats are checked */
	(void)vsnprintf(text, sizeof(text), fmt, args);
#pragma GCC diagnostic pop
	va_end(args);
	return yamlnode_fail(at.pos ? at : r->node, r->file, r->msg, "%s%s%s%.380s",
			     param ? "'" : "", param ? param : "", param ? "': " : "", text);
}

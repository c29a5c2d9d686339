/*
 * The records are filled here and nowhere else, from the stamps of a flight, so that two transports
 * cannot mean two things by "first byte".
 */
#include "lib/load/load_core.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>

#include "lib/base/check.h"
#include "lib/base/clock.h"

/* Time 0 lies so far ahead that the schedule is made and the loop runs by then. */
#define LEAD_NS	     (2 * NS_PER_MS)
#define LEAD_EACH_NS 20

/* ---- set-up ---- */

static int prepare_records(struct load_core *c)
{
	struct load_outcome *out = c->out;
	size_t n = c->order->n;

	out->record = calloc(n + 1, sizeof(*out->record));
	if (!out->record)
		return PD_ENOMEM;
	out->n = n;
	for (size_t i = 0; i < n; i++) {
		int64_t at = c->order->at_ns ? c->order->at_ns[i] : 0;

		out->record[i] = (struct result_request){.intended_ns = at,
							 .eligible_ns = at,
							 .sent_ns = -1,
							 .first_byte_ns = -1,
							 .first_token_ns = -1,
							 .last_token_ns = -1,
							 .end_ns = -1,
							 .cached_tokens = -1,
							 .first_tokens = -1,
							 .session = c->items[i].session,
							 .failure = "not_sent"};
	}
	return PD_OK;
}

int load_core_init(struct load_core *c, const struct load_options *o, const struct load_item *items,
		   const struct schedule_input *order, size_t in_flight_max,
		   struct load_outcome *out)
{
	*c = (struct load_core){.o = o,
				.items = items,
				.order = order,
				.out = out,
				.stop_at = CLOCK_NEVER,
				.in_flight_max = in_flight_max,
				.p.total = order->n};
	texts_init(&c->texts, out);
	return prepare_records(c);
}

int load_core_begin(struct load_core *c, struct pd_msg *msg)
{
	struct schedule_limits limits = {.in_flight_max = c->in_flight_max,
					 .sessions_max = (uint64_t)c->o->concurrent_sessions};

	c->origin = clock_now() + LEAD_NS + (int64_t)c->order->n * LEAD_EACH_NS;
	limits.origin_ns = c->origin;
	pulse_init(&c->out->pulse, c->origin);
	return schedule_new(&c->schedule, c->order, &limits, msg);
}

void load_core_release(struct load_core *c)
{
	schedule_free(c->schedule);
	texts_release(&c->texts);
	talks_release(&c->talks);
}

int flight_init(struct flight *f, const struct load_options *o)
{
	static const enum answer_api api[] = {[BODY_CHAT] = ANSWER_CHOICES,
					      [BODY_COMPLETIONS] = ANSWER_CHOICES,
					      [BODY_EMBEDDINGS] = ANSWER_EMBEDDINGS,
					      [BODY_RESPONSES] = ANSWER_RESPONSES,
					      [BODY_MESSAGES] = ANSWER_MESSAGES};

	answer_init(&f->answer, api[o->body.endpoint], o->keep_text || o->carry_answers);
	buf_init(&f->body, BODY_MAX);
	return PD_OK;
}

void flight_release(struct flight *f)
{
	answer_release(&f->answer);
	buf_release(&f->body);
}

/* ---- the next request ---- */

bool load_core_stopping(const struct load_core *c)
{
	return c->enough || (c->o->stop && *c->o->stop);
}

bool load_core_abort(struct load_core *c, int64_t now)
{
	if (load_core_stopping(c) && c->stop_at == CLOCK_NEVER)
		c->stop_at = now + c->o->grace_ns;
	return c->stop_at <= now || (c->o->stop && *c->o->stop > 1);
}

bool load_core_over(const struct load_core *c)
{
	bool late = c->o->send_until_ns > 0 && clock_now() - c->origin >= c->o->send_until_ns;

	return c->err || (c->p.in_flight == 0 &&
			  (late || load_core_stopping(c) || schedule_left(c->schedule) == 0));
}

int64_t load_core_due(struct load_core *c)
{
	int64_t due;

	if (c->err || load_core_stopping(c))
		return CLOCK_NEVER;
	due = schedule_due(c->schedule);
	if (due == SCHEDULE_NEVER ||
	    (c->o->send_until_ns > 0 && (due - c->origin >= c->o->send_until_ns ||
					 clock_now() - c->origin >= c->o->send_until_ns)))
		return CLOCK_NEVER;
	return due;
}

static int build_body(struct load_core *c, struct flight *f)
{
	const struct load_item *item = &c->items[f->item];
	struct body_turn turn = {.key = {item->session, item->key}, .salt = span_of(c->o->salt)};
	const struct talk *k = NULL;
	char salt[256];

	if (c->o->salt_each) {
		(void)snprintf(salt, sizeof(salt), "%s%u", c->o->salt, f->item);
		turn.salt = span_of(salt);
	}

	if (c->o->carry_answers && c->order->session)
		k = talks_find(&c->talks, c->order->session[f->item]);
	if (k) {
		turn.answer = (const char *const *)k->answer;
		turn.nanswers = k->nanswers;
	}
	buf_clear(&f->body);
	return body_build(&c->o->body, item->request, &turn, &f->body);
}

int load_core_take(struct load_core *c, struct flight *f)
{
	struct schedule_entry e = schedule_take(c->schedule);

	f->item = e.item;
	f->intended_ns = e.intended_ns;
	f->eligible_ns = e.eligible_ns;
	f->first_byte_ns = f->sent_ns = f->end_ns = -1;
	f->prefill_ns = f->decode_ns = -1;
	for (unsigned i = 0; i < FLIGHT_WORKERS; i++)
		f->worker[i][0] = '\0';
	answer_clear(&f->answer);
	c->p.in_flight++;
	c->p.sent++;
	return build_body(c, f);
}

void load_core_sent(struct load_core *c, struct flight *f, int64_t now)
{
	f->sent_ns = now;
	/* without a schedule the crowd at the start is not late */
	if (!c->o->scheduled && f->eligible_ns == c->origin)
		f->eligible_ns = now;
	if (!c->o->scheduled && f->intended_ns == c->origin && c->o->max_concurrency == 0)
		f->intended_ns = now;
	pulse_sent(&c->out->pulse, f->eligible_ns, now);
}

/* ---- its answer ---- */

static bool is_name(struct span name, const char *text)
{
	return span_eq_case(name, span_of(text));
}

/* "prefill;dur=12.5, decode;dur=300": milliseconds (W3C Server Timing). */
static void server_timing(struct flight *f, struct span rest)
{
	while (rest.n > 0) {
		const char *comma = memchr(rest.p, ',', rest.n);
		struct span part = {rest.p, comma ? (size_t)(comma - rest.p) : rest.n};
		const char *dur = memmem(part.p, part.n, "dur=", 4);
		char number[32] = "";
		size_t n = dur ? (size_t)(part.p + part.n - dur - 4) : 0;

		rest.p += part.n + (comma != NULL);
		rest.n -= part.n + (comma != NULL);
		part = span_trim(part);
		memcpy(number, dur ? dur + 4 : "", n < sizeof(number) ? n : 0);
		if (dur && span_starts(part, SPAN("prefill")))
			f->prefill_ns = (int64_t)(strtod(number, NULL) * 1e6);
		else if (dur && span_starts(part, SPAN("decode")))
			f->decode_ns = (int64_t)(strtod(number, NULL) * 1e6);
	}
}

static void echo(struct load_core *c, const struct flight *f, size_t which, struct span value)
{
	uint32_t session = c->order->session ? c->order->session[f->item] : SCHEDULE_NONE;
	struct talk *k = session == SCHEDULE_NONE ? NULL : talks_get(&c->talks, session);

	if (session != SCHEDULE_NONE && (!k || talk_set_header(k, which, value)))
		c->err = PD_ENOMEM;
}

void load_core_field(struct load_core *c, struct flight *f, struct span name, struct span value)
{
	static const struct {
		const char *name;
		enum flight_worker which;
	} workers[] = {{"x-worker", FLIGHT_WORKER},
		       {"x-prefill-worker", FLIGHT_PREFILL},
		       {"x-decode-worker", FLIGHT_DECODE}};

	if (is_name(name, "content-type"))
		f->answer.streamed =
			value.n >= 17 && strncasecmp(value.p, "text/event-stream", 17) == 0;
	else if (is_name(name, "server-timing"))
		server_timing(f, value);
	for (size_t i = 0; i < sizeof(workers) / sizeof(workers[0]); i++) {
		size_t n = value.n < FLIGHT_WORKER_MAX ? value.n : FLIGHT_WORKER_MAX - 1;

		if (!is_name(name, workers[i].name))
			continue;
		memcpy(f->worker[workers[i].which], value.p, n);
		f->worker[workers[i].which][n] = '\0';
	}
	for (size_t i = 0; i < c->o->necho_headers; i++)
		if (is_name(name, c->o->echo_headers[i]))
			echo(c, f, i, value);
}

/* ---- its record ---- */

static int64_t relative(const struct load_core *c, int64_t t)
{
	return t < 0 ? -1 : t - c->origin;
}

static const char *failure_label(struct load_core *c, const struct flight *f, const char *label)
{
	char text[32];

	if (!label || strcmp(label, "http") != 0)
		return label;
	(void)snprintf(text, sizeof(text), "http_%d", f->answer.status);
	return texts_intern(&c->texts, text);
}

static int64_t stated_or(int64_t stated, int64_t other)
{
	return stated >= 0 ? stated : other;
}

/* The code unit of "\\uXXXX" at p, 0 when there is none before end. */
static unsigned unit_at(const char *p, const char *end)
{
	char hex[5] = "";

	if (end - p < 6 || p[0] != '\\' || p[1] != 'u')
		return 0;
	memcpy(hex, p + 2, 4);
	return (unsigned)strtoul(hex, NULL, 16);
}

/* The text of an answer; a surrogate that has no other half is what JSON readers stumble over. */
static char *detach_text(struct buf *text)
{
	char *p, *end = text->data + text->len;

	for (p = text->data; p < end; p++) {
		unsigned unit = unit_at(p, end);

		if (*p != '\\')
			continue;
		if ((unit & 0xF800) != 0xD800)
			p++; /* what is escaped is no backslash of ours */
		else if ((unit & 0xFC00) == 0xD800 && (unit_at(p + 6, end) & 0xFC00) == 0xDC00)
			p += 11;
		else
			memcpy(p + 2, "fffd", 4);
	}
	p = strndup(text->data, text->len);
	buf_clear(text);
	return p;
}

static void fill_record(struct load_core *c, struct flight *f, const char *label)
{
	struct result_request *r = &c->out->record[f->item];
	struct answer *a = &f->answer;
	const struct workload_request *q = c->items[f->item].request;

	r->intended_ns = relative(c, f->intended_ns);
	r->eligible_ns = relative(c, f->eligible_ns);
	r->sent_ns = relative(c, f->sent_ns);
	r->first_byte_ns = relative(c, f->first_byte_ns);
	r->first_token_ns = relative(c, a->first_token_ns);
	r->last_token_ns = relative(c, a->last_token_ns);
	r->end_ns = relative(c, f->end_ns);
	r->input_tokens = stated_or(a->prompt_tokens, q->input_tokens > 0 ? q->input_tokens : 0);
	r->output_tokens = stated_or(a->completion_tokens, a->pieces);
	r->cached_tokens = a->cached_tokens;
	r->first_tokens = a->first_tokens;
	r->basis = answer_basis(a);
	r->prefill_ns = f->prefill_ns;
	r->decode_ns = f->decode_ns;
	r->gap = answer_take_gaps(a, &r->ngaps);
	r->status = a->status;
	r->failure = failure_label(c, f, label);
	r->worker = texts_intern(&c->texts, f->worker[FLIGHT_WORKER]);
	r->prefill = texts_intern(&c->texts, f->worker[FLIGHT_PREFILL]);
	r->decode = texts_intern(&c->texts, f->worker[FLIGHT_DECODE]);
	if (label)
		r->error = texts_own(&c->texts, strdup(a->error));
}

/* The text of a whole answer goes on to the next turn, also an empty one. */
static void carry(struct load_core *c, struct flight *f)
{
	uint32_t session = c->order->session ? c->order->session[f->item] : SCHEDULE_NONE;
	struct talk *k = session == SCHEDULE_NONE ? NULL : talks_get(&c->talks, session);

	if (session != SCHEDULE_NONE && (!k || talk_add_answer(k, buf_span(&f->answer.text))))
		c->err = PD_ENOMEM;
}

void load_core_finish(struct load_core *c, struct flight *f, const char *label)
{
	struct result_request *r = &c->out->record[f->item];
	char *text;

	fill_record(c, f, label);
	if (!label && c->o->carry_answers)
		carry(c, f);
	if (c->o->keep_text && f->answer.text.len > 0) {
		text = detach_text(&f->answer.text);
		r->text = texts_own(&c->texts, text);
	}
	if (!label && r->first_token_ns >= 0) {
		c->ttft_sum += (double)(r->first_token_ns - r->sent_ns) / 1e6;
		c->ttft_n++;
	}
	PD_CHECK(c->p.in_flight > 0);
	c->p.in_flight--;
	c->p.done++;
	c->p.failed += label != NULL;
	if (schedule_ended(c->schedule, f->item, f->end_ns))
		c->err = PD_ENOMEM;
	c->err = c->err ? c->err : c->texts.err;
}

struct load_progress load_core_look(struct load_core *c, int64_t now)
{
	c->p.elapsed_ns = now - c->origin;
	c->p.ttft_ms = c->ttft_n > 0 ? c->ttft_sum / (double)c->ttft_n : NAN;
	c->ttft_sum = 0;
	c->ttft_n = 0;
	return c->p;
}

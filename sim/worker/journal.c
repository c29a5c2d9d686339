/*
 * Entries are complete JSON text when they are stored: a reader copies strings and keeps no
 * request alive.
 */
#include "sim/worker/journal.h"

#include <inttypes.h>
#include <stdlib.h>
#include <string.h>

#include <xxhash.h>

#include "lib/base/clock.h"

static const char *const session_paths[] = {
	"session_params.session_id",
	"session_id",
	"user",
	"user_id",
	"prompt_cache_key",
	"conversation",
	"conversation.id",
	"vllm_xargs.agentic_context.program_id",
	"vllm_xargs.agentic_context.session_id",
};

void journal_init(struct journal *j)
{
	memset(j, 0, sizeof(*j));
	(void)pthread_mutex_init(&j->lock, NULL);
}

void journal_release(struct journal *j)
{
	for (size_t i = 0; i < JOURNAL_MAX; i++)
		free(j->ring[i].text);
	(void)pthread_mutex_destroy(&j->lock);
}

void journal_describe(struct journal_entry *e, const struct http_head *head, struct span body)
{
	struct jout o;

	*e = (struct journal_entry){.wall_ns = clock_wall(), .leg = "plain", .outcome = "running"};
	jout_init(&o, 65536);
	jout_put(&o, "\"method\":");
	jout_quote(&o, head->method);
	jout_put(&o, ",\"target\":");
	jout_quote(&o, head->target.n < 2048 ? head->target
		       : head->path.n < 2048 ? head->path
					     : SPAN("?"));
	jout_put(&o, ",\"path\":");
	jout_quote(&o, head->path.n < 2048 ? head->path : SPAN("?"));
	jout_put(&o, ",\"body_bytes\":");
	jout_uint(&o, body.n);
	jout_fmt(&o, ",\"body_xxh3\":\"%016" PRIx64 "\",\"headers\":{",
		 (uint64_t)XXH3_64bits(body.p ? body.p : "", body.n));
	for (size_t i = 0; i < head->nfields && o.b.len < JOURNAL_HEADERS_MAX; i++) {
		struct span value = head->field[i].value;

		if (value.n > 1024)
			value.n = 1024;
		if (i > 0)
			jout_put(&o, ",");
		jout_quote(&o, head->field[i].name);
		jout_put(&o, ":");
		jout_quote(&o, value);
	}
	jout_put(&o, "}");
	if (o.err)
		jout_release(&o);
	else
		e->text = buf_detach(&o.b);
}

void journal_session(struct journal_entry *e, const struct json_object *body)
{
	struct jout o;
	enum json_type type;
	struct span value;
	bool first = true;

	if (!e->text)
		return;
	jout_init(&o, 131072);
	jout_put(&o, e->text);
	jout_put(&o, ",\"session\":{");
	for (size_t i = 0; i < sizeof(session_paths) / sizeof(session_paths[0]); i++) {
		if (!json_object_path(body, session_paths[i], &type, &value) ||
		    type == JSON_OBJECT || type == JSON_ARRAY ||
		    o.b.len + value.n > JOURNAL_HEADERS_MAX + JOURNAL_SESSION_MAX)
			continue;
		if (!first)
			jout_put(&o, ",");
		first = false;
		jout_fmt(&o, "\"%s\":", session_paths[i]);
		jout_raw(&o, value.p, value.n);
	}
	jout_put(&o, "}");
	if (o.err) {
		jout_release(&o);
		return;
	}
	free(e->text);
	e->text = buf_detach(&o.b);
}

void journal_add(struct journal *j, struct journal_entry *e)
{
	struct journal_entry *at;

	(void)pthread_mutex_lock(&j->lock);
	e->number = j->next++;
	at = &j->ring[e->number % JOURNAL_MAX];
	free(at->text);
	*at = *e;
	(void)pthread_mutex_unlock(&j->lock);
	e->text = NULL;
}

void journal_update(struct journal *j, const struct journal_entry *e)
{
	struct journal_entry *at = &j->ring[e->number % JOURNAL_MAX];

	(void)pthread_mutex_lock(&j->lock);
	if (at->number == e->number && e->number < j->next) {
		char *text = at->text;

		*at = *e;
		at->text = text;
	}
	(void)pthread_mutex_unlock(&j->lock);
}

void journal_write(struct journal *j, size_t last, struct jout *o)
{
	uint64_t n, from;
	char when[32];

	(void)pthread_mutex_lock(&j->lock);
	n = j->next < JOURNAL_MAX ? j->next : JOURNAL_MAX;
	if (last < n)
		n = last;
	from = j->next - n;
	jout_fmt(o, "{\"total\":%" PRIu64 ",\"requests\":[", j->next);
	for (uint64_t i = from; i < j->next; i++) {
		const struct journal_entry *e = &j->ring[i % JOURNAL_MAX];

		clock_rfc3339(e->wall_ns, when, sizeof(when));
		jout_fmt(o,
			 "%s{\"number\":%" PRIu64
			 ",\"time\":\"%s\",\"leg\":\"%s\",\"outcome\":\"%s\",\"status\":%d,"
			 "\"prompt_tokens\":%zu,\"cached_tokens\":%zu,\"output_tokens\":%zu,",
			 i > from ? "," : "", e->number, when, e->leg, e->outcome, e->status,
			 e->prompt_tokens, e->cached_tokens, e->output_tokens);
		jout_put(o, e->text ? e->text : "\"lost\":true");
		jout_put(o, "}");
	}
	jout_put(o, "]}\n");
	(void)pthread_mutex_unlock(&j->lock);
}

/*
 * Every text opens with what tells it apart (group, conversation, number), so that two groups
 * differ in their very first characters even when the length asked for is tiny; the rest is filler
 * of the words of synth.h, whose stream is named by seed, kind and number.
 */
#include "lib/workload/generate.h"

#include <inttypes.h>
#include <stdlib.h>
#include <string.h>

#include "lib/base/clock.h"
#include "lib/base/rng.h"
#include "lib/json/scan.h"
#include "lib/workload/arrivals.h"
#include "lib/workload/synth.h"

struct stated {
	int64_t turn; /* -1: none */
	int64_t conversation;
	int64_t group;
	int64_t at_ns; /* -1: none */
};

void generate_defaults(struct generate_options *o, enum generate_kind kind)
{
	*o = (struct generate_options){.kind = kind,
				       .prompts = kind == GENERATE_SHARED_PREFIX ? 32 : 64,
				       .prefixes = kind == GENERATE_SHARED_PREFIX ? 1 : 4,
				       .prefix_len = 8192,
				       .suffix_len = 32,
				       .conversations = 4,
				       .messages = 8,
				       .context_len = 1024,
				       .new_msg_len = 128,
				       .seed = 42};
}

/* Fills out to exactly len characters: what was appended since start is cut, or filler is added. */
static int fill(struct buf *out, size_t start, int64_t len, uint64_t id)
{
	size_t want = start + (size_t)len;
	int err = PD_OK;

	if (out->len < want)
		err = synth_words(out, id, (want - out->len) / SYNTH_TOKEN_BYTES + 1);
	if (err)
		return err;
	out->len = want;
	out->data[want] = '\0';
	return PD_OK;
}

static uint64_t stream(const struct generate_options *o, unsigned what, int64_t a, int64_t b)
{
	uint64_t x = o->seed;

	x = rng_splitmix(&x) ^ what;
	x = rng_splitmix(&x) ^ (uint64_t)a;
	x = rng_splitmix(&x) ^ (uint64_t)b;
	return rng_splitmix(&x);
}

static int put_length(struct buf *out, const char *name, size_t chars)
{
	return buf_printf(out, ",\"%s_chars\":%zu,\"%s_tokens_approx\":%" PRIu64, name, chars, name,
			  synth_tokens_of_chars(chars));
}

/* What every record states after its text. */
static int put_stated(struct buf *out, const struct generate_options *o, const struct stated *s,
		      size_t chars)
{
	int err;

	if (s->turn >= 0)
		err = buf_printf(out,
				 ",\"prompt_cache_key\":\"conv_%" PRId64
				 "\",\"conversation_id\":%" PRId64 ",\"message_index\":%" PRId64
				 ",\"turn\":%" PRId64,
				 s->conversation, s->conversation, s->turn, s->turn);
	else
		err = buf_printf(out, ",\"prompt_cache_key\":\"prefix_%" PRId64 "\"", s->group);
	if (!err)
		err = buf_printf(out, ",\"prefix_group\":%" PRId64, s->group);
	if (!err)
		err = put_length(out, "prompt", chars);
	if (!err && o->output_tokens > 0)
		err = buf_printf(out, ",\"output_tokens\":%" PRId64, o->output_tokens);
	if (!err && s->at_ns >= 0)
		err = buf_printf(out, ",\"timestamp\":%" PRId64 ".%03d", s->at_ns / NS_PER_MS,
				 (int)(s->at_ns / NS_PER_US % 1000));
	if (!err)
		err = buf_puts(out, "}\n");
	return err;
}

static int put_text(struct buf *out, const char *member, const struct buf *text)
{
	int err = buf_printf(out, "\"%s\":", member);

	return err ? err : json_quote(out, text->data ? text->data : "", text->len);
}

static int prefix_record(const struct generate_options *o, int64_t number, const struct stated *s,
			 struct buf *text, struct buf *out)
{
	size_t at;
	int err;

	buf_clear(text);
	err = buf_printf(text, "%" PRId64 " is the prefix group of this text. ", s->group);
	if (!err)
		err = fill(text, 0, o->prefix_len, stream(o, 1, s->group, 0));
	at = text->len;
	if (!err)
		err = buf_printf(text, "\n\n%" PRId64 ": a question about group %" PRId64 ", ",
				 number, s->group);
	if (!err)
		err = fill(text, at, o->suffix_len, stream(o, 2, number, s->group));
	if (!err)
		err = buf_putc(out, '{');
	if (!err)
		err = put_text(out, "prompt", text);
	return err ? err : put_stated(out, o, s, text->len);
}

static int make_prefixes(const struct generate_options *o, const int64_t *at_ns, struct buf *out)
{
	struct rng rng;
	struct buf text;
	int err = PD_OK;

	rng_seed(&rng, stream(o, 3, 0, 0));
	buf_init(&text, out->max);
	for (int64_t i = 0; !err && i < o->prompts; i++) {
		struct stated s = {.turn = -1, .at_ns = at_ns ? at_ns[i] : -1};

		s.group = (int64_t)rng_below(&rng, (uint64_t)o->prefixes);
		err = prefix_record(o, i, &s, &text, out);
	}
	buf_release(&text);
	return err;
}

/* Message m of a conversation: 0 is the system message, odd ones are the user's, even ones the
 * assistant's. */
static int message_text(const struct generate_options *o, int64_t conv, int64_t m, struct buf *text,
			const char **role)
{
	int64_t len = m == 0 ? o->context_len : o->new_msg_len;
	size_t at = text->len;
	int err;

	*role = m == 0 ? "system" : m % 2 ? "user" : "assistant";
	if (m == 0)
		err = buf_printf(text, "%" PRId64 " is the conversation this context belongs to. ",
				 conv);
	else
		err = buf_printf(text, "%" PRId64 ".%" PRId64 " %s ", conv, (m - 1) / 2,
				 m % 2 ? "asks:" : "answers:");
	return err ? err : fill(text, at, len, stream(o, 4, conv, m));
}

/* The request of one turn: the whole history, and the user's new message at its end. */
static int conversation_record(const struct generate_options *o, const struct stated *s,
			       struct buf *text, struct buf *message, struct buf *out)
{
	int64_t count = 2 + 2 * s->turn;
	int err = buf_puts(out, "{\"messages\":[");

	buf_clear(text);
	for (int64_t m = 0; !err && m < count; m++) {
		const char *role;

		buf_clear(message);
		err = message_text(o, s->conversation, m, message, &role);
		if (!err)
			err = buf_printf(out, "%s{\"role\":\"%s\",", m ? "," : "", role);
		if (!err)
			err = put_text(out, "content", message);
		if (!err)
			err = buf_putc(out, '}');
		if (!err)
			err = buf_printf(text, "%s%s: ", m ? "\n" : "", role);
		if (!err)
			err = buf_append(text, message->data, message->len);
	}
	if (!err)
		err = buf_puts(out, "],");
	if (!err)
		err = put_text(out, "prompt", text);
	return err ? err : put_stated(out, o, s, text->len);
}

static void shuffle(struct rng *rng, int64_t *a, int64_t n)
{
	for (int64_t i = n - 1; i > 0; i--) {
		int64_t j = (int64_t)rng_below(rng, (uint64_t)i + 1), t = a[i];

		a[i] = a[j];
		a[j] = t;
	}
}

/*
 * Interleaved: every conversation takes its turn k, in an order drawn anew, before any takes turn k
 * + 1; so no two neighbours are of one conversation (the one possible case, across a round's
 * border, is swapped away).
 */
static int make_conversations(const struct generate_options *o, const int64_t *at_ns,
			      struct buf *out)
{
	int64_t *order = malloc((size_t)o->conversations * sizeof(*order)), last = -1, done = 0;
	struct buf text, message;
	struct rng rng;
	int err = order ? PD_OK : PD_ENOMEM;

	rng_seed(&rng, stream(o, 5, 0, 0));
	buf_init(&text, out->max);
	buf_init(&message, out->max);
	for (int64_t i = 0; order && i < o->conversations; i++)
		order[i] = i;
	for (int64_t turn = 0; !err && turn < o->messages; turn++) {
		shuffle(&rng, order, o->conversations);
		if (order[0] == last && o->conversations > 1) {
			order[0] = order[1];
			order[1] = last;
		}
		for (int64_t i = 0; !err && i < o->conversations; i++, done++) {
			struct stated s = {turn, order[i], order[i], at_ns ? at_ns[done] : -1};

			err = conversation_record(o, &s, &text, &message, out);
		}
		last = order[o->conversations - 1];
	}
	buf_release(&text);
	buf_release(&message);
	free(order);
	return err;
}

static int in_range(const char *what, int64_t v, int64_t min, int64_t max, struct pd_msg *msg)
{
	if (v >= min && v <= max)
		return PD_OK;
	return pd_fail(msg, PD_EINVAL, "%s is %" PRId64 ", expected %" PRId64 " to %" PRId64, what,
		       v, min, max);
}

static int check(const struct generate_options *o, int64_t *records, struct pd_msg *msg)
{
	bool talk = o->kind == GENERATE_CONVERSATIONS;
	int err = in_range("number of prompts", o->prompts, 1, GENERATE_RECORDS_MAX, msg);

	if (!err)
		err = in_range("number of prefixes", o->prefixes, 1, GENERATE_RECORDS_MAX, msg);
	if (!err)
		err = in_range("prefix length", o->prefix_len, 0, GENERATE_LENGTH_MAX, msg);
	if (!err)
		err = in_range("suffix length", o->suffix_len, 0, GENERATE_LENGTH_MAX, msg);
	if (!err)
		err = in_range("number of conversations", o->conversations, 1, GENERATE_RECORDS_MAX,
			       msg);
	if (!err)
		err = in_range("messages per conversation", o->messages, 1, GENERATE_RECORDS_MAX,
			       msg);
	if (!err)
		err = in_range("context length", o->context_len, 0, GENERATE_LENGTH_MAX, msg);
	if (!err)
		err = in_range("message length", o->new_msg_len, 1, GENERATE_LENGTH_MAX, msg);
	*records = talk ? o->conversations * o->messages : o->prompts;
	if (!err)
		err = in_range("number of records", *records, 1, GENERATE_RECORDS_MAX, msg);
	return err;
}

int generate(const struct generate_options *o, struct buf *out, struct pd_msg *msg)
{
	int64_t n = 0, *at_ns = NULL;
	int err = check(o, &n, msg);

	if (err)
		return err;
	if (o->arrival_rate > 0) {
		at_ns = calloc((size_t)n, sizeof(*at_ns));
		err = at_ns ? arrivals_fill(at_ns, (size_t)n, o->arrival_rate, 1.0,
					    stream(o, 6, 0, 0))
			    : PD_ENOMEM;
	}
	if (!err)
		err = o->kind == GENERATE_CONVERSATIONS ? make_conversations(o, at_ns, out)
							: make_prefixes(o, at_ns, out);
	free(at_ns);
	if (err)
		(void)pd_fail(msg, err, "cannot generate %" PRId64 " records: %s", n,
			      err == PD_ETOOBIG ? "the file would be too big" : pd_err_text(err));
	return err;
}

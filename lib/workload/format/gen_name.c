#include "lib/workload/format/gen_name.h"

#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "lib/base/nearest.h"
#include "lib/workload/format/formats.h"

#define PREFIX	"gen:"
#define GEN_MAX ((size_t)4 << 30)

static const char *const kinds[] = {"shared-prefix", "multi-prefix", "conversations", NULL};
static const char *const names[] = {"num-prompts", "num-prefixes",	"prefix-len",
				    "suffix-len",  "num-conversations", "messages-per-conv",
				    "context-len", "new-msg-len",	"output-tokens",
				    "seed",	   "arrival-rate",	NULL};

static int64_t *number_of(struct generate_options *o, size_t i)
{
	int64_t *const list[] = {&o->prompts,	  &o->prefixes,	     &o->prefix_len,
				 &o->suffix_len,  &o->conversations, &o->messages,
				 &o->context_len, &o->new_msg_len,   &o->output_tokens};

	return i < sizeof(list) / sizeof(list[0]) ? list[i] : NULL;
}

static int set(struct generate_options *o, const char *word, struct pd_msg *msg)
{
	const char *eq = strchr(word, '='), *near;
	char name[64], *end;
	size_t n = eq ? (size_t)(eq - word) : strlen(word);
	int64_t whole;
	double real;

	(void)snprintf(name, sizeof(name), "%.*s", n < 60 ? (int)n : 60, word);
	for (size_t i = 0; names[i]; i++) {
		if (strcmp(names[i], name) != 0)
			continue;
		real = eq ? strtod(eq + 1, &end) : -1;
		if (!eq || end == eq + 1 || *end != '\0' || !(real >= 0))
			return pd_fail(msg, PD_EINVAL,
				       "gen: option '%.100s': expected %s=NUMBER, 0 or more", word,
				       name);
		if (strcmp(name, "arrival-rate") == 0) {
			o->arrival_rate = real;
			return PD_OK;
		}
		if (json_int(span_of(eq + 1), &whole))
			return pd_fail(msg, PD_EINVAL,
				       "gen: option '%.100s': expected a whole number", word);
		if (strcmp(name, "seed") == 0)
			o->seed = (uint64_t)whole;
		else
			*number_of(o, i) = whole;
		return PD_OK;
	}
	near = nearest_word(name, names);
	return pd_fail(msg, PD_EINVAL,
		       "gen: unknown option '%s'%s%s%s: expected one of num-prompts, num-prefixes, "
		       "prefix-len, suffix-len, num-conversations, messages-per-conv, context-len, "
		       "new-msg-len, output-tokens, arrival-rate, seed",
		       name, near ? ", did you mean '" : "", near ? near : "", near ? "'" : "");
}

int format_gen_parse(const char *name, struct generate_options *out, struct pd_msg *msg)
{
	const char *at = name + strlen(PREFIX);
	size_t n = strcspn(at, ",");
	char word[128];
	int kind = -1, err = PD_OK;

	for (int i = 0; kinds[i]; i++)
		if (strlen(kinds[i]) == n && memcmp(at, kinds[i], n) == 0)
			kind = i;
	if (kind < 0)
		return pd_fail(msg, PD_EINVAL,
			       "gen: found '%.*s', expected gen:shared-prefix, gen:multi-prefix or "
			       "gen:conversations, then ,option=value",
			       n < 60 ? (int)n : 60, at);
	generate_defaults(out, (enum generate_kind)kind);
	while (!err && at[n] == ',') {
		at += n + 1;
		n = strcspn(at, ",");
		(void)snprintf(word, sizeof(word), "%.*s", n < 120 ? (int)n : 120, at);
		err = set(out, word, msg);
	}
	return err;
}

static bool starts(struct span path)
{
	return span_starts(path, SPAN(PREFIX));
}

/* The records of the generated text, by the rules of format_pdctl. */
static int open_gen(struct format_reader *rd, const char *path)
{
	struct generate_options o;
	struct workload_options opt = rd->opt;
	struct workload made;
	struct buf text;
	int err = format_gen_parse(path, &o, rd->msg);

	buf_init(&text, GEN_MAX);
	workload_init(&made);
	if (!err)
		err = generate(&o, &text, rd->msg);
	opt.format = "pdctl";
	if (!err)
		err = workload_parse_take(&made, &text, path, &opt, rd->msg);
	if (!err) {
		/* it is finished already: the reader adds nothing */
		workload_release(rd->w);
		*rd->w = made;
		rd->taken = true;
		rd->w->format = "gen";
	}
	buf_release(&text);
	return err;
}

static bool no_record(const struct json_object *o)
{
	(void)o;
	return false;
}

const struct workload_format format_gen = {
	.name = "gen",
	.title = "a workload of pdctl gen, made in memory",
	.marks = "gen:KIND,option=value,... instead of a file",
	.times = "ms",
	.origin = "[gen](gen.md)",
	.shape = FORMAT_OTHER,
	.is = no_record,
	.starts = starts,
	.open = open_gen,
};

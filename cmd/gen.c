/* pdctl gen: workload files for bench and simulate. */
#include <stdio.h>
#include <string.h>

#include "cmd/cmd.h"
#include "cmd/workload_opts.h"
#include "lib/base/cli.h"
#include "lib/base/file.h"
#include "lib/base/table.h"
#include "lib/workload/capture_file.h"
#include "lib/workload/format.h"
#include "lib/workload/generate.h"
#include "lib/workload/records_write.h"
#include "lib/workload/tracev2_write.h"

#define GEN_FILE_MAX ((size_t)4 << 30)

/* Defaults of a kind are known after the first word, so the numbers start as "not given". */
#define NOT_GIVEN (-1)

struct gen_options {
	struct generate_options g;
	int64_t seed, capture_run;
	const char *output, *capture, *from, *to;
	bool list;
};

static struct gen_options o;

static const struct opt opts[] = {
	{.type = OPT_HEADING, .help = "shared-prefix and multi-prefix"},
	{OPT_INT, "num-prompts", &o.g.prompts, "N",
	 "records (default: 32 for shared-prefix, 64 for multi-prefix)", NULL, 1,
	 GENERATE_RECORDS_MAX, NULL},
	{OPT_INT, "num-prefixes", &o.g.prefixes, "N",
	 "multi-prefix: prefix groups, one drawn per record (default: 4)", NULL, 1,
	 GENERATE_RECORDS_MAX, NULL},
	{OPT_INT, "prefix-len", &o.g.prefix_len, "CHARS",
	 "characters of the shared beginning (default: 8192)", NULL, 0, GENERATE_LENGTH_MAX, NULL},
	{OPT_INT, "suffix-len", &o.g.suffix_len, "CHARS",
	 "characters of the question after it (default: 32)", NULL, 0, GENERATE_LENGTH_MAX, NULL},
	{.type = OPT_HEADING, .help = "conversations"},
	{OPT_INT, "num-conversations", &o.g.conversations, "N", "conversations (default: 4)", NULL,
	 1, GENERATE_RECORDS_MAX, NULL},
	{OPT_INT, "messages-per-conv", &o.g.messages, "N",
	 "requests of each conversation (default: 8)", NULL, 1, GENERATE_RECORDS_MAX, NULL},
	{OPT_INT, "context-len", &o.g.context_len, "CHARS",
	 "characters of the system message (default: 1024)", NULL, 0, GENERATE_LENGTH_MAX, NULL},
	{OPT_INT, "new-msg-len", &o.g.new_msg_len, "CHARS",
	 "characters of each user message and answer (default: 128)", NULL, 1, GENERATE_LENGTH_MAX,
	 NULL},
	{.type = OPT_HEADING, .help = "from a capture, instead of a kind"},
	{OPT_TEXT, "from-capture", &o.capture, "FILE",
	 "the requests of a capture of pdctl serve, with their times, keys, lengths and block "
	 "hashes",
	 NULL, 0, 0, NULL},
	{OPT_INT, "capture-run", &o.capture_run, "N", "run of the capture (default: the last one)",
	 NULL, 1, 9e8, NULL},
	{.type = OPT_HEADING, .help = "from a file of any format, instead of a kind"},
	{OPT_TEXT, "from", &o.from, "FILE",
	 "the requests of this file, recognised by its content, for tools that do not know its "
	 "format",
	 NULL, 0, 0, NULL},
	{.type = OPT_ROWS, .value = workload_opts_rows},
	{OPT_CHOICE, "to", &o.to, "FORMAT",
	 "pdctl: records for bench and simulate; tracev2: OUTPUT.yaml and OUTPUT.csv for BLIS "
	 "(default: pdctl)",
	 "pdctl|tracev2", 0, 0, NULL},
	{OPT_FLAG, "list-formats", &o.list, NULL,
	 "print the formats that bench, simulate and --from read, and stop", NULL, 0, 0, NULL},
	{.type = OPT_HEADING, .help = "all kinds"},
	{OPT_INT, "output-tokens", &o.g.output_tokens, "N",
	 "state this output length in each record (default: not stated)", NULL, 1, 1e9, NULL},
	{OPT_REAL, "arrival-rate", &o.g.arrival_rate, "REQ/S",
	 "add Poisson arrival times, in ms, at this rate (default: none)", NULL, 1e-6, 1e9, NULL},
	{OPT_INT, "seed", &o.seed, "N", "the same seed gives the same bytes (default: 42)", NULL, 0,
	 0, NULL},
	{OPT_TEXT, "output", &o.output, "FILE",
	 "write here, whole or not at all (default: standard output)", NULL, 0, 0, NULL},
	{.type = OPT_END},
};

static const struct opt_command command = {
	.name = "gen",
	.usage = "pdctl gen shared-prefix|multi-prefix|conversations|--from FILE|--from-capture "
		 "FILE "
		 "[options]",
	.summary = "write workload files: shared prefixes and growing conversations",
	.about = "Writes JSON Lines that bench and simulate read, and that vllm bench reads as its "
		 "custom dataset.\n"
		 "Lengths are characters; every record also states approximate tokens (4 "
		 "characters each), its\n"
		 "routing key (prompt_cache_key) and its prefix_group, so that an experiment knows "
		 "what belongs together.\n"
		 "Conversations are interleaved, each turn comes after the turn before it, and "
		 "each request ends\n"
		 "with a message of the user.",
	.examples = "  $ pdctl gen multi-prefix --num-prompts 64 --num-prefixes 4 --output "
		    "multi.jsonl\n"
		    "      64 prompts, each with one of 4 prefixes of 8192 characters\n"
		    "  $ pdctl gen conversations --num-conversations 8 --arrival-rate 2 --seed 7 > "
		    "talk.jsonl\n"
		    "      8 conversations of 8 turns, arriving at 2 requests per second\n"
		    "  $ pdctl gen --from-capture today.db --output today.jsonl\n"
		    "      the requests that a router served, as a trace that other tools read\n"
		    "  $ pdctl gen --from bailian.jsonl.gz --to tracev2 --output bailian\n"
		    "      any trace that pdctl reads, for BLIS: bailian.yaml and bailian.csv",
	.opts = opts,
};

static bool kind_of(const char *word, enum generate_kind *kind)
{
	static const char *const names[] = {"shared-prefix", "multi-prefix", "conversations"};

	for (unsigned i = 0; i < 3; i++)
		if (strcmp(word, names[i]) == 0) {
			*kind = (enum generate_kind)i;
			return true;
		}
	return false;
}

static void take_default(int64_t *value, int64_t fallback)
{
	if (*value == NOT_GIVEN)
		*value = fallback;
}

static void apply_defaults(enum generate_kind kind)
{
	struct generate_options d;

	generate_defaults(&d, kind);
	o.g.kind = kind;
	o.g.seed = (uint64_t)o.seed;
	take_default(&o.g.prompts, d.prompts);
	take_default(&o.g.prefixes, d.prefixes);
	take_default(&o.g.prefix_len, d.prefix_len);
	take_default(&o.g.suffix_len, d.suffix_len);
	take_default(&o.g.conversations, d.conversations);
	take_default(&o.g.messages, d.messages);
	take_default(&o.g.context_len, d.context_len);
	take_default(&o.g.new_msg_len, d.new_msg_len);
}

/* Refuses an option of another kind, which would be ignored silently. */
static int check_kind(enum generate_kind kind, int argc, char **argv, struct pd_msg *msg)
{
	static const char *const talk[] = {"num-conversations", "messages-per-conv", "context-len",
					   "new-msg-len", NULL};
	static const char *const prefix[] = {"num-prompts", "num-prefixes", "prefix-len",
					     "suffix-len", NULL};
	const char *const *foreign = kind == GENERATE_CONVERSATIONS ? prefix : talk;

	for (; *foreign; foreign++)
		if (opt_given(&command, argc, argv, *foreign))
			return pd_fail(msg, PD_EINVAL, "--%s has no effect for %s", *foreign,
				       kind == GENERATE_CONVERSATIONS
					       ? "conversations"
					       : "shared-prefix and multi-prefix");
	if (kind == GENERATE_SHARED_PREFIX && opt_given(&command, argc, argv, "num-prefixes"))
		return pd_fail(msg, PD_EINVAL,
			       "--num-prefixes has no effect for shared-prefix, which has one; use "
			       "multi-prefix");
	return PD_OK;
}

static int write_out(const struct buf *out)
{
	struct pd_msg msg = {""};

	if (!o.output || strcmp(o.output, "-") == 0) {
		cli_print(out->data, out->len);
		return EXIT_OK;
	}
	if (file_write(o.output, out->data, out->len, &msg) != PD_OK)
		return cli_runtime_error(&command, &msg);
	return EXIT_OK;
}

static int run(enum generate_kind kind, int argc, char **argv)
{
	struct pd_msg msg = {""};
	struct buf out;
	int err = check_kind(kind, argc, argv, &msg), rc;

	apply_defaults(kind);
	buf_init(&out, GEN_FILE_MAX);
	if (!err)
		err = generate(&o.g, &out, &msg);
	if (err)
		rc = err == PD_ENOMEM ? cli_runtime_error(&command, &msg)
				      : cli_usage_error(&command, &msg);
	else
		rc = write_out(&out);
	buf_release(&out);
	return rc;
}

/* The options of the generators have no effect on requests that are there. */
static int check_only(int argc, char **argv, const struct opt_list *rest, const char *mode,
		      const char *const *fits, struct pd_msg *msg)
{
	struct opt_walk walk = {.at = opts};

	if (rest->n > 0)
		return pd_fail(msg, PD_EINVAL, "'%s' and --%s: expected one of them",
			       rest->items[0], mode);
	for (const struct opt *p; (p = opt_next(&walk));) {
		bool ok = p->type == OPT_HEADING;

		for (size_t i = 0; fits[i] && !ok; i++)
			ok = strcmp(fits[i], p->name) == 0;
		if (!ok && opt_given(&command, argc, argv, p->name))
			return pd_fail(msg, PD_EINVAL, "--%s has no effect with --%s", p->name,
				       mode);
	}
	return PD_OK;
}

static int check_capture(int argc, char **argv, const struct opt_list *rest, struct pd_msg *msg)
{
	static const char *const fits[] = {"from-capture", "capture-run", "output", NULL};

	return check_only(argc, argv, rest, "from-capture", fits, msg);
}

/* ---- from a file ---- */

static int write_trace(const struct workload *w, struct pd_msg *msg)
{
	struct buf header, rows;
	char path[4096];
	int err;

	buf_init(&header, 1 << 20);
	buf_init(&rows, GEN_FILE_MAX);
	err = tracev2_write(w, o.g.output_tokens > 0 ? o.g.output_tokens : 128, &header, &rows);
	if (err)
		err = pd_fail(msg, err, "cannot write the trace: %s", pd_err_text(err));
	/* the rows first: a header alone would name what is not there */
	(void)snprintf(path, sizeof(path), "%.4000s.csv", o.output);
	if (!err)
		err = file_write(path, rows.data, rows.len, msg);
	(void)snprintf(path, sizeof(path), "%.4000s.yaml", o.output);
	if (!err)
		err = file_write(path, header.data, header.len, msg);
	buf_release(&header);
	buf_release(&rows);
	return err;
}

static int from_file(int argc, char **argv, const struct opt_list *rest)
{
	static const char *const fits[] = {
		"from", "to", "output", "output-tokens", "dataset-format", "timestamp-unit", NULL};
	struct workload_options wo = {0};
	struct pd_msg msg = {""};
	struct workload w;
	struct buf out;
	bool trace = o.to && strcmp(o.to, "tracev2") == 0;
	int err = check_only(argc, argv, rest, "from", fits, &msg), rc = EXIT_OK;

	workload_init(&w);
	buf_init(&out, GEN_FILE_MAX);
	workload_opts_take(&wo);
	if (!err && !trace && o.g.output_tokens > 0)
		err = pd_fail(&msg, PD_EINVAL, "--output-tokens has no effect with --to pdctl");
	if (!err && trace && (!o.output || strcmp(o.output, "-") == 0))
		err = pd_fail(
			&msg, PD_EINVAL,
			"--to tracev2 writes two files: expected --output NAME, for NAME.yaml "
			"and NAME.csv");
	err = err ? err : workload_read(&w, o.from, &wo, &msg);
	if (err) {
		rc = err == PD_ENOMEM ? cli_runtime_error(&command, &msg)
				      : cli_usage_error(&command, &msg);
		goto out;
	}
	workload_opts_say((const char *const *)w.note, w.nnotes);
	err = trace ? write_trace(&w, &msg) : records_write(&w, &out);
	if (err && !msg.text[0])
		(void)pd_fail(&msg, err, "cannot write the records: %s", pd_err_text(err));
	if (err)
		rc = cli_runtime_error(&command, &msg);
	else if (!trace)
		rc = write_out(&out);
out:
	workload_release(&w);
	buf_release(&out);
	return rc;
}

static int list_formats(void)
{
	struct table t;
	struct buf out;
	int err;

	table_init(&t);
	buf_init(&out, 1 << 20);
	table_column(&t, "format");
	table_column(&t, "recognised by");
	for (size_t i = 0; workload_formats[i]; i++) {
		table_row(&t);
		table_cell(&t, "%s", workload_formats[i]->name);
		table_cell(&t, "%s", workload_formats[i]->marks);
	}
	err = table_text(&t, &out);
	if (!err)
		cli_print(out.data, out.len);
	table_release(&t);
	buf_release(&out);
	return err ? EXIT_RUNTIME : EXIT_OK;
}

static int from_capture(int argc, char **argv, const struct opt_list *rest)
{
	struct pd_msg msg = {""};
	struct buf out;
	int err = check_capture(argc, argv, rest, &msg), rc;

	buf_init(&out, GEN_FILE_MAX);
	if (!err && !capture_file_is(o.capture))
		err = pd_fail(&msg, PD_EINVAL,
			      "--from-capture: '%.300s' does not exist or is not an SQLite "
			      "database, expected a capture of pdctl serve",
			      o.capture);
	err = err ? err : capture_to_records(o.capture, o.capture_run, &out, &msg);
	if (err)
		rc = err == PD_ENOMEM ? cli_runtime_error(&command, &msg)
				      : cli_usage_error(&command, &msg);
	else
		rc = write_out(&out);
	buf_release(&out);
	return rc;
}

int cmd_gen(int argc, char **argv)
{
	struct opt_list rest = {0};
	struct pd_msg msg = {""};
	enum generate_kind kind = GENERATE_SHARED_PREFIX;
	int rc;

	o = (struct gen_options){.g = {.prompts = NOT_GIVEN,
				       .prefixes = NOT_GIVEN,
				       .prefix_len = NOT_GIVEN,
				       .suffix_len = NOT_GIVEN,
				       .conversations = NOT_GIVEN,
				       .messages = NOT_GIVEN,
				       .context_len = NOT_GIVEN,
				       .new_msg_len = NOT_GIVEN},
				 .seed = 42};
	workload_opts = (struct workload_opts){0};
	rc = cli_parse(&command, argc, argv, &rest);
	if (rc < 0 && (o.list || o.from)) {
		rc = o.list ? list_formats() : from_file(argc, argv, &rest);
		opt_list_release(&rest);
		return rc;
	}
	if (rc < 0 && o.to) {
		(void)pd_fail(&msg, PD_EINVAL, "--to requires --from");
		rc = cli_usage_error(&command, &msg);
	}
	if (rc < 0 && o.capture) {
		rc = from_capture(argc, argv, &rest);
		opt_list_release(&rest);
		return rc;
	}
	if (rc < 0 && o.capture_run > 0) {
		(void)pd_fail(&msg, PD_EINVAL, "--capture-run requires --from-capture");
		rc = cli_usage_error(&command, &msg);
	}
	if (rc < 0 && (rest.n != 1 || !kind_of(rest.items[0], &kind))) {
		(void)pd_fail(&msg, PD_EINVAL,
			      "found %s%s%s, expected shared-prefix, multi-prefix or conversations",
			      rest.n ? "'" : "no kind", rest.n ? rest.items[rest.n - 1] : "",
			      rest.n ? "'" : "");
		rc = cli_usage_error(&command, &msg);
	}
	if (rc < 0)
		rc = run(kind, argc, argv);
	opt_list_release(&rest);
	return rc;
}

/* pdctl results: the store of runs. Options and verbs; what is printed is in results_print.c. */
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include <cjson/cJSON.h>

#include "cmd/cmd.h"
#include "cmd/compare_input.h"
#include "cmd/results_print.h"
#include "cmd/store_opts.h"
#include "lib/base/cli.h"
#include "lib/base/clock.h"
#include "lib/base/file.h"
#include "lib/base/nearest.h"
#include "lib/results/merge.h"
#include "lib/results/store.h"
#include "sim/report/parts.h"

#define OUT_MAX ((size_t)4 << 30)

static struct options {
	struct store_opts store;
	const char *output, *label, *model, *tool, *format;
	int64_t last;
	bool json, partial;
} o;

static const struct opt table[] = {
	{OPT_TEXT, "store", &o.store.path, "FILE",
	 "the store; default results/pdctl.db, or $PDCTL_STORE", NULL, 0, 0, NULL},
	{OPT_TEXT, "label", &o.label, "LABEL", "list, trend: only runs with this label", NULL, 0, 0,
	 NULL},
	{OPT_TEXT, "model", &o.model, "MODEL", "list, trend: only runs of this model", NULL, 0, 0,
	 NULL},
	{OPT_TEXT, "tool", &o.tool, "TOOL", "list, trend: only runs of bench, simulate or other",
	 NULL, 0, 0, NULL},
	{OPT_INT, "last", &o.last, "N",
	 "list, trend: only the newest N (list: all; trend: 40 lines, the line of marks has all)",
	 NULL, 1, 1e9, NULL},
	{OPT_TEXT, "output", &o.output, "FILE",
	 "export, merge: write there instead of standard output", NULL, 0, 0, NULL},
	{OPT_CHOICE, "format", &o.format, "FORM",
	 "export: json (default: the document as it was written), or vllm-table: the records that "
	 "vLLM's compare-json-results.py reads",
	 "json|vllm-table", 0, 0, NULL},
	{OPT_FLAG, "partial", &o.partial, NULL, "merge: shards of the load may be missing", NULL, 0,
	 0, NULL},
	{OPT_FLAG, "json", &o.json, NULL, "list, trend: one JSON object per run", NULL, 0, 0, NULL},
	{OPT_END, NULL, NULL, NULL, NULL, NULL, 0, 0, NULL},
};

static const struct opt_command command = {
	.name = "results",
	.usage =
		"pdctl results list | show REF | export REF... | import FILE... | merge RUNS... |\n"
		"               trend METRIC | remove REF...  [options]",
	.summary = "the runs that bench and simulate kept: list, read, join, history",
	.about = "bench and simulate keep every finished run in an SQLite file, results/pdctl.db "
		 "under the current\n"
		 "folder. REF is @last, @last~N (the N-th before the last), @last:N (the N last "
		 "ones), @NUMBER, or\n"
		 "@LABEL (all runs with this label), @LABEL~N, @LABEL:N; the @ may be left out. "
		 "`pdctl compare` takes\n"
		 "them too. Exit codes: 0 done; 2 wrong request, no such run, unreadable file; 3 "
		 "the "
		 "store failed, or the\n"
		 "shards of merge do not belong together.",
	.examples = "  $ pdctl results list --last 20\n"
		    "        what was run\n"
		    "  $ pdctl results export @main --output main.json\n"
		    "        the documents of these runs, byte for byte\n"
		    "  $ pdctl results trend mean_ttft_ms --label nightly\n"
		    "        the history of a figure\n"
		    "  $ pdctl results merge shard-*.json --output whole.json\n"
		    "        shards of one load become one result, with its percentiles\n",
	.opts = table,
};

static bool finding; /* merge: an expectation of simulate is not met */

static const char *path(void)
{
	const char *p = store_opts_path(&o.store);

	return p ? p : STORE_DEFAULT;
}

/* -- verbs: each prints or writes; words are what stands behind the verb -- */

static int list(const struct opt_list *words, struct pd_msg *msg)
{
	const struct store_filter f = {o.label, o.model, o.tool, o.last};
	struct store *s;
	struct buf out;
	int err;

	(void)words;
	err = store_open(path(), &s, msg);
	if (err)
		return err;
	buf_init(&out, OUT_MAX);
	err = results_print_list(s, &f, o.json, &out, msg);
	if (!err)
		cli_print(out.data ? out.data : "", out.len);
	buf_release(&out);
	store_close(s);
	return err;
}

static int show(const struct opt_list *words, struct pd_msg *msg)
{
	int64_t *ids = NULL;
	struct store *s;
	struct buf out;
	size_t n = 0;
	int err = store_open(path(), &s, msg);

	if (err)
		return err;
	buf_init(&out, OUT_MAX);
	for (size_t w = 0; !err && w < words->n; w++) {
		err = store_find(s, words->items[w], &ids, &n, msg);
		for (size_t i = 0; !err && i < n; i++)
			err = results_print_run(s, ids[i], &out, msg);
		free(ids);
		ids = NULL;
	}
	if (!err)
		cli_print(out.data ? out.data : "", out.len);
	buf_release(&out);
	store_close(s);
	return err;
}

static int deliver(const struct buf *out, struct pd_msg *msg)
{
	if (o.output && strcmp(o.output, "-") != 0)
		return file_write(o.output, out->data, out->len, msg);
	cli_print(out->data ? out->data : "", out->len);
	return PD_OK;
}

static int export_runs(const struct opt_list *words, struct pd_msg *msg)
{
	bool table_form = o.format && strcmp(o.format, "vllm-table") == 0;
	int64_t *ids = NULL;
	struct store *s;
	struct buf out;
	size_t n = 0, done = 0;
	int err = store_open(path(), &s, msg);

	if (err)
		return err;
	buf_init(&out, OUT_MAX);
	err = table_form ? buf_putc(&out, '[') : PD_OK;
	for (size_t w = 0; !err && w < words->n; w++) {
		err = store_find(s, words->items[w], &ids, &n, msg);
		for (size_t i = 0; !err && i < n; i++) {
			bool open = !table_form && out.len > 0 && out.data[out.len - 1] != '\n';

			err = open ? buf_putc(&out, '\n') : PD_OK;
			if (!err)
				err = table_form
					      ? results_print_vllm(s, ids[i], done++ > 0, &out, msg)
					      : store_document(s, ids[i], &out, msg);
		}
		free(ids);
		ids = NULL;
	}
	if (!err && table_form)
		err = buf_puts(&out, "\n]\n");
	if (!err)
		err = deliver(&out, msg);
	buf_release(&out);
	store_close(s);
	return err;
}

/* The documents of one file, each as it is written there, with the line feed behind it if there is
 * one. What the store has already is left out. */
static int import_file(const char *name, struct pd_msg *msg)
{
	struct store *s = NULL;
	struct result_set set;
	struct buf file, text;
	struct span *doc = NULL;
	size_t n = 0, at = 0, known = 0;
	int64_t first = 0, same;
	int err;

	result_set_init(&set);
	buf_init(&file, RESULT_FILE_MAX);
	buf_init(&text, (size_t)2 << 30);
	err = file_read(name, &file, msg);
	if (!err)
		err = result_parse(&set, name, buf_span(&file), msg);
	if (!err && access(path(), F_OK) == 0)
		err = store_open(path(), &s, msg);
	doc = calloc(set.n + 1, sizeof(*doc));
	if (!err && (!doc || buf_reserve(&text, file.len + set.n + 1)))
		err = PD_ENOMEM;
	for (size_t i = 0; !err && i < set.n; i++) {
		const struct result_doc *d = &set.doc[i];

		at = text.len;
		/* the file's text ends in a NUL */
		err = buf_append(&text, file.data + d->at,
				 d->len + (file.data[d->at + d->len] == '\n'));
		same = 0;
		if (!err && s)
			err = store_same(s, text.data + at, text.len - at, &same, msg);
		if (same)
			known++;
		else if (!err)
			doc[n++] = (struct span){text.data + at, text.len - at};
	}
	store_close(s);
	if (!err && n > 0)
		err = store_save(path(), doc, n, clock_wall(), &first, msg);
	if (!err && n == 1)
		(void)fprintf(stderr, "pdctl results: %s: kept as run %" PRId64 "\n", name, first);
	else if (!err && n > 1)
		(void)fprintf(stderr,
			      "pdctl results: %s: kept as runs %" PRId64 " to %" PRId64 "\n", name,
			      first, first + (int64_t)n - 1);
	if (!err && known > 0)
		(void)fprintf(stderr, "pdctl results: %s: %zu were there already\n", name, known);
	free(doc);
	buf_release(&text);
	buf_release(&file);
	result_set_release(&set);
	return err;
}

static int import_runs(const struct opt_list *words, struct pd_msg *msg)
{
	int err = PD_OK;

	for (size_t w = 0; !err && w < words->n; w++)
		err = import_file(words->items[w], msg);
	return err;
}

/* -- merge -- */

struct shards {
	struct result_set set; /* names and places */
	struct merge_input *in;
	struct buf *text; /* one per word: the file, or the documents of a reference */
	size_t n, ntexts;
};

static int read_words(struct shards *sh, const struct opt_list *words, struct pd_msg *msg)
{
	int64_t *ids = NULL;
	struct store *s = NULL;
	size_t n = 0;
	int err = PD_OK;

	for (size_t w = 0; !err && w < words->n; w++) {
		const char *word = words->items[w];
		struct buf *text = &sh->text[sh->ntexts++];

		buf_init(text, (size_t)4 << 30);
		if (word[0] != '@' || access(word, F_OK) == 0) {
			err = file_read(word, text, msg);
			continue;
		}
		err = s ? PD_OK : store_open(path(), &s, msg);
		err = err ? err : store_find(s, word, &ids, &n, msg);
		for (size_t i = 0; !err && i < n; i++)
			err = store_document(s, ids[i], text, msg);
		free(ids);
		ids = NULL;
	}
	store_close(s);
	return err;
}

static int find_shards(struct shards *sh, const struct opt_list *words, struct pd_msg *msg)
{
	int err = PD_OK;

	for (size_t w = 0; !err && w < sh->ntexts; w++) {
		size_t before = sh->set.n;

		err = result_parse(&sh->set, words->items[w], buf_span(&sh->text[w]), msg);
		for (size_t i = before; !err && i < sh->set.n; i++) {
			const struct result_doc *d = &sh->set.doc[i];
			struct merge_input *more = realloc(sh->in, (sh->n + 1) * sizeof(*sh->in));

			if (!more)
				return PD_ENOMEM;
			sh->in = more;
			sh->in[sh->n++] =
				(struct merge_input){d->source, {sh->text[w].data + d->at, d->len}};
		}
	}
	return err;
}

/* ---- merge: parts of simulate ---- */

static bool of_simulate(const struct buf *text)
{
	cJSON *doc = cJSON_ParseWithLength(text->data ? text->data : "", text->len);
	bool is = parts_is(doc);

	cJSON_Delete(doc);
	return is;
}

static int put_document(cJSON *doc, struct buf *out)
{
	char *text = cJSON_Print(doc);
	int err = text ? buf_puts(out, text) : PD_ENOMEM;

	cJSON_free(text);
	return err ? err : buf_putc(out, '\n');
}

static int merge_parts(const struct shards *sh, const struct opt_list *words, struct pd_msg *msg)
{
	cJSON **part = calloc(sh->ntexts + 1, sizeof(cJSON *)), *whole = NULL;
	struct buf out, missed, verdict;
	int err = part ? PD_OK : PD_ENOMEM;

	buf_init(&out, OUT_MAX);
	buf_init(&missed, OUT_MAX);
	buf_init(&verdict, OUT_MAX);
	for (size_t i = 0; !err && i < sh->ntexts; i++) {
		const struct buf *t = &sh->text[i];

		part[i] = cJSON_ParseWithLength(t->data ? t->data : "", t->len);
		if (!part[i])
			err = pd_fail(msg, PD_EINVAL, "%s: found no JSON document",
				      words->items[i]);
	}
	if (!err)
		err = parts_merge(part, words->items, sh->ntexts, &whole, &missed, &verdict, msg);
	if (!err)
		err = put_document(whole, &out);
	if (!err)
		err = deliver(&out, msg);
	if (!err && verdict.len > 0)
		(void)fwrite(verdict.data, 1, verdict.len, stderr);
	if (!err && missed.len > 0) {
		(void)fwrite(missed.data, 1, missed.len, stderr);
		finding = true;
	}
	for (size_t i = 0; part && i < sh->ntexts; i++)
		cJSON_Delete(part[i]);
	free(part);
	cJSON_Delete(whole);
	buf_release(&out);
	buf_release(&missed);
	buf_release(&verdict);
	return err;
}

static int merge(const struct opt_list *words, struct pd_msg *msg)
{
	struct shards sh = {0};
	struct buf whole;
	int err;

	result_set_init(&sh.set);
	buf_init(&whole, OUT_MAX);
	sh.text = calloc(words->n, sizeof(*sh.text));
	err = sh.text ? read_words(&sh, words, msg) : PD_ENOMEM;
	if (!err && of_simulate(&sh.text[0])) {
		err = merge_parts(&sh, words, msg);
		goto out;
	}
	if (!err)
		err = find_shards(&sh, words, msg);
	err = err == PD_ENOENT ? PD_EINVAL : err;
	if (!err)
		err = result_merge(sh.in, sh.n, o.partial, &whole, msg);
	/* what does not belong together is no wrong request */
	err = err == PD_ENOENT ? PD_EPROTO : err;
	if (!err)
		err = deliver(&whole, msg);
out:
	buf_release(&whole);
	for (size_t i = 0; i < sh.ntexts; i++)
		buf_release(&sh.text[i]);
	free(sh.text);
	free(sh.in);
	result_set_release(&sh.set);
	return err;
}

static int trend(const struct opt_list *words, struct pd_msg *msg)
{
	const struct store_filter f = {o.label, o.model, o.tool, o.last};
	struct store *s;
	struct buf out;
	int err = store_open(path(), &s, msg);

	if (err)
		return err;
	buf_init(&out, OUT_MAX);
	err = results_print_trend(s, words->items[0], &f, o.json, &out, msg);
	if (!err)
		cli_print(out.data ? out.data : "", out.len);
	buf_release(&out);
	store_close(s);
	return err;
}

static int remove_runs(const struct opt_list *words, struct pd_msg *msg)
{
	int64_t *ids = NULL;
	struct store *s;
	size_t n = 0;
	int err = PD_OK;

	for (size_t w = 0; !err && w < words->n; w++) {
		err = store_open(path(), &s, msg);
		err = err ? err : store_find(s, words->items[w], &ids, &n, msg);
		store_close(err == PD_ENOENT && !s ? NULL : s);
		err = err ? err : store_remove(path(), ids, n, msg);
		if (!err)
			(void)fprintf(stderr, "pdctl results: %zu %s removed\n", n,
				      n == 1 ? "run" : "runs");
		free(ids);
		ids = NULL;
	}
	return err;
}

/* -- dispatch -- */

struct verb {
	const char *name;
	int (*run)(const struct opt_list *words, struct pd_msg *msg);
	size_t least, most; /* words behind it */
	const char *words;
	const char *options; /* that it knows, besides --store */
};

static const struct verb verbs[] = {
	{"list", list, 0, 0, "no word", "label model tool last json"},
	{"show", show, 1, OPT_LIST_MAX, "a run, such as @last", ""},
	{"export", export_runs, 1, OPT_LIST_MAX, "a run, such as @last", "output format"},
	{"import", import_runs, 1, OPT_LIST_MAX, "a file", ""},
	{"merge", merge, 1, OPT_LIST_MAX, "shards: files or runs", "output partial"},
	{"trend", trend, 1, 1, "a metric, such as mean_ttft_ms", "label model tool last json"},
	{"remove", remove_runs, 1, OPT_LIST_MAX, "a run, such as @12", ""},
};
#define VERBS (sizeof(verbs) / sizeof(verbs[0]))

static const struct verb *verb_of(const struct opt_list *rest, struct pd_msg *msg)
{
	const char *names[VERBS + 1] = {NULL}, *near;

	if (rest->n == 0) {
		(void)pd_fail(msg, PD_EINVAL,
			      "expected list, show, export, import, merge, trend or remove");
		return NULL;
	}
	for (size_t i = 0; i < VERBS; i++) {
		names[i] = verbs[i].name;
		if (strcmp(rest->items[0], verbs[i].name) == 0)
			return &verbs[i];
	}
	near = nearest_word(rest->items[0], names);
	(void)pd_fail(
		msg, PD_EINVAL,
		"found '%s', expected list, show, export, import, merge, trend or remove%s%s%s",
		rest->items[0], near ? "; did you mean '" : "", near ? near : "", near ? "'?" : "");
	return NULL;
}

static bool knows(const struct verb *v, const char *option)
{
	size_t n = strlen(option);

	for (const char *at = v->options; *at; at += strcspn(at, " "), at += *at == ' ')
		if (strcspn(at, " ") == n && memcmp(at, option, n) == 0)
			return true;
	return strcmp(option, "store") == 0;
}

static int check(const struct verb *v, const struct opt_list *words, int argc, char **argv,
		 struct pd_msg *msg)
{
	for (const struct opt *p = table; p->type != OPT_END; p++)
		if (opt_given(&command, argc, argv, p->name) && !knows(v, p->name))
			return pd_fail(msg, PD_EINVAL, "%s has no option --%s", v->name, p->name);
	if (words->n < v->least || words->n > v->most)
		return pd_fail(msg, PD_EINVAL, "%s: found %zu words, expected %s", v->name,
			       words->n, v->words);
	return PD_OK;
}

int cmd_results(int argc, char **argv)
{
	struct opt_list rest = {0}, words;
	struct pd_msg msg = {""};
	const struct verb *v;
	int code, err = PD_EINVAL;

	o = (struct options){0};
	code = cli_parse(&command, argc, argv, &rest);
	if (code >= 0) {
		opt_list_release(&rest);
		return code;
	}
	v = verb_of(&rest, &msg);
	words = rest;
	if (v) {
		words.items++;
		words.n--;
		err = check(v, &words, argc, argv, &msg);
	}
	if (!err)
		err = v->run(&words, &msg);
	if (err && !msg.text[0])
		(void)pd_fail(&msg, err, "%s", pd_err_text(err));
	opt_list_release(&rest);
	if (!err)
		return finding ? EXIT_FINDING : EXIT_OK;
	return err == PD_EINVAL || err == PD_ENOENT ? cli_usage_error(&command, &msg)
						    : cli_runtime_error(&command, &msg);
}
